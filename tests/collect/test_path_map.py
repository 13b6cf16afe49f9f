"""Paths of Leginon's host as this one has them."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from coldchain.collect.path_map import PathMap
from coldchain.errors import UsageError


def test_the_longest_beginning_that_fits_counts() -> None:
    """Whole parts are compared; what no map fits is as it is."""
    maps = PathMap(["/data=/mnt/a", "/data/frames=/mnt/b", "/x/=/mnt/c/"])
    assert maps.here("/data/leginon/s") == PurePosixPath("/mnt/a/leginon/s")
    assert maps.here("/data/frames/s") == PurePosixPath("/mnt/b/s")
    assert maps.here("/database/s") == PurePosixPath("/database/s")
    assert maps.here("//x///s/./t/") == PurePosixPath("/mnt/c/s/t")


@pytest.mark.parametrize("path", ["data/x", "/data/../etc", "/data/\0", "/data/a\nb", "", "/" + "a" * 5000])
def test_a_path_that_leads_out_is_none(path: str) -> None:
    """Relative paths, `..`, control characters and endless names are no paths."""
    assert PathMap(["/data=/mnt"]).here(path) is None


@pytest.mark.parametrize("given", ["/data", "data=/mnt", "/data=mnt", "/data=/mnt/../etc", "=", "/data="])
def test_a_map_that_maps_nothing_is_refused(given: str) -> None:
    """Both sides must be absolute, and lead nowhere else."""
    with pytest.raises(UsageError, match="OLD=NEW"):
        PathMap([given])
