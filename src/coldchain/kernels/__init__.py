"""Arrays in, arrays out: what is computed from a movie and a micrograph. NumPy, SciPy, numba and ducc0; no files.

Axis order is (frame, row, column); x grows with the column, y with the row; row 0 is the first stored row, which is the
bottom of the picture (the MRC convention, and RELION's). Pixel coordinates count from the first stored pixel's centre.
"""
