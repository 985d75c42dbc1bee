"""Which versions of mem0's package this adapter has been tried with."""

TESTED_WITH = ("2.2.1",)
