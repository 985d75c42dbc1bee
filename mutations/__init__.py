"""Faults that the tests must notice."""
