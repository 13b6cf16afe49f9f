"""Frozen values that every room of the house speaks in. No I/O, no database, no arrays beyond tuples."""
