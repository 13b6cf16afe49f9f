"""Files are reached below their root, and nothing outside it is, whatever links stand on the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coldchain.errors import StorageError
from coldchain.formats.beneath import lstat_beneath, open_beneath


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with a file in it, and a secret beside it."""
    (tmp_path / "root" / "a" / "b").mkdir(parents=True)
    (tmp_path / "root" / "a" / "b" / "f").write_bytes(b"mine")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "f").write_bytes(b"not yours")
    return tmp_path / "root"


def test_a_file_below_the_root_is_reached(root: Path) -> None:
    """Through real folders a file is opened and measured."""
    assert lstat_beneath(root, "a/b/f").st_size == 4
    descriptor = open_beneath(root, "a/b/f")
    assert os.read(descriptor, 10) == b"mine"
    os.close(descriptor)


def test_the_root_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    """A facility may name its movie root by a link."""
    (tmp_path / "link").symlink_to(root)
    assert lstat_beneath(tmp_path / "link", "a/b/f").st_size == 4


@pytest.mark.parametrize("place", ["a/link/f", "out/f", "a/b/leaf"])
def test_no_link_is_followed(root: Path, place: str) -> None:
    """A link on the way or at the end leads nowhere."""
    (root / "a" / "link").symlink_to(root.parent / "secret")
    (root / "out").symlink_to("../secret")
    (root / "a" / "b" / "leaf").symlink_to(root.parent / "secret" / "f")
    with pytest.raises(OSError):  # ELOOP or ENOTDIR, as the kernel has it
        open_beneath(root, place)


@pytest.mark.parametrize("place", ["../secret/f", "/etc/passwd", "a/../../secret/f"])
def test_no_path_leads_out(root: Path, place: str) -> None:
    """Dots and absolute paths are refused in words."""
    with pytest.raises(StorageError, match="leads out"):
        open_beneath(root, place)
