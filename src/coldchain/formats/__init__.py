"""Bytes ↔ arrays and metadata: movies, micrographs, gain references, defects, and what microscopes write beside them.

Arrays come in the MRC convention whatever the container: row 0 is the bottom of the picture. An MRC's first row is
that already; a TIFF's or PNG's first row is the picture's top, so their rows are reversed on reading and on writing.
"""
