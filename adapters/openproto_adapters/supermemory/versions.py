"""Which versions of Supermemory's package this adapter has been tried with."""

TESTED_WITH = ("5.0.1",)
