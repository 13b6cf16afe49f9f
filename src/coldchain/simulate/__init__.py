"""A microscope that knows the answer: specimens, optics, movies and whole sessions with their planted truth.

Nothing here uses `coldchain.kernels`: a judge that shares the accused's code proves nothing.
"""
