"""What the mirror is made of: its journal, the task that applies the journal, and the comparison of two records."""
