"""Stores that are buckets of an S3 service."""
