"""Measurements: `make bench`, or one part by `make bench PART=chain`."""
