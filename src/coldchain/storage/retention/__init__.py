"""Clearing copies by the facility's rules, and never one too many."""
