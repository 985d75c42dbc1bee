"""The versions of Memsy's SDK that this adapter is tested with."""

tested_with = ("0.3.5",)
