"""Decoding alone, the floor under every alignment: a TIFF movie's strips by imagecodecs into one preallocated array.

    python -m benchmarks.decode MOVIE [--threads N]

It is a program of its own, so that it can be timed as the others are: a whole process, with its start and its imports.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from coldchain.formats.ifd import Page, walk


def decode(path: Path, threads: int) -> NDArray[np.uint8]:
    """All frames (frames, rows, columns) of a movie of LZW strips of bytes, rows as they lie in the file."""
    with path.open("rb") as stream:
        pages = walk(stream, path)
        stack = np.empty((len(pages), pages[0].height, pages[0].width), dtype=np.uint8)

        def fill(page: Page) -> None:
            for strip, (offset, count) in enumerate(page.segments):
                first = strip * page.rows_per_strip
                out = stack[page.index, first : first + page.rows_per_strip].reshape(-1)
                imagecodecs.lzw_decode(os.pread(stream.fileno(), count, offset), out=out.data)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, pages))
    return stack


def main(arguments: Sequence[str]) -> None:
    """Decode and forget."""
    parser = argparse.ArgumentParser(description="Decode a TIFF-LZW movie.")
    parser.add_argument("movie", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    decode(given.movie, given.threads)


if __name__ == "__main__":
    main(sys.argv[1:])
