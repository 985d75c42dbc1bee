"""Which versions of MemorySync's package this adapter has been tried with."""

TESTED_WITH = ("1.10.1",)
