"""The figures of a memory: how well it finds what answers a question, and whether it keeps to its rules."""
