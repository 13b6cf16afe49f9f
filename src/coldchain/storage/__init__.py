"""Stores and copies: a file is read once, written to every store that wants it, and read back from each as proof."""
