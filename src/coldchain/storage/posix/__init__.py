"""Stores that are folder trees: RAID, parallel file systems, drives."""
