"""Stores around stores: throttled, tried again, only pretending."""
