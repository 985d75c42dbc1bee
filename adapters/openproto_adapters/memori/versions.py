"""Which versions of Memori's package this adapter has been tried with."""

TESTED_WITH = ("3.3.6",)
