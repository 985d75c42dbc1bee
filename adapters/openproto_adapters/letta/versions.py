"""Which versions of Letta's SDK this adapter has been tried with."""

TESTED_WITH = ("1.12.1",)
