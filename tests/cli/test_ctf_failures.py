"""`coldchain ctf` and `coldchain pick` on disks and names that are hard to write to."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from coldchain.formats import star
from coldchain.formats.mrc import write_mrc
from coldchain.preprocess import publishing
from tests.cli.answer import Typed

COMMANDS = (["ctf", "--voltage", 300, "--max-resolution", 9], ["pick", "--diameter", 120])


def write_noise(path: Path, shape: tuple[int, int]) -> None:
    """A picture of noise."""
    picture = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    write_mrc(path, picture, pixel_size_angstrom=4)


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """A folder with a picture of noise, `a.mrc`."""
    (tmp_path / "in").mkdir()
    write_noise(tmp_path / "in" / "a.mrc", (400, 420))
    return tmp_path / "in"


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system without room for a picture."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a file system")
def test_a_full_disk_is_said_and_left_empty(noise: Path, full_disk: Path, typed: Typed) -> None:
    """One sentence that names the folder, status 1, and nothing half-written."""
    for command in COMMANDS:
        answer = typed(*command, noise / "a.mrc", "--threads", 1, "--out", full_disk)
        assert answer.status == 1, answer.out + answer.err
        assert f"{full_disk}: the disk is full. Make room, or name another folder with --out." in answer.err
        assert not list(full_disk.iterdir())


def test_a_folder_that_refuses_is_named(noise: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do about it; the other files are tried all the same."""

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(publishing.tempfile, "mkdtemp", refuse)
    for command in COMMANDS:
        answer = typed(*command, noise / "a.mrc", "--threads", 1, "--out", noise)
        assert answer.status == 1
        assert f"{noise}: the results cannot be written: Permission denied" in answer.err


def test_a_result_that_is_a_folder_is_said(noise: Path, typed: Typed) -> None:
    """Nothing of the file's results is then renamed."""
    for command, name in zip(COMMANDS, ("a_ctf.png", "a_picks.png"), strict=True):
        (noise / "out" / name).mkdir(parents=True)
        answer = typed(*command, noise / "a.mrc", "--threads", 1, "--out", noise / "out")
        assert answer.status == 1
        assert f"{name} is a folder" in answer.err
        assert [path.name for path in (noise / "out").iterdir()] == [name]
        (noise / "out" / name).rmdir()


def test_a_list_that_cannot_be_written_is_no_failure_of_a_file(noise: Path, typed: Typed) -> None:
    """It is named, with status 1; the files' results are there, and none is counted as failed."""
    (noise / "b.mrc").write_bytes((noise / "a.mrc").read_bytes())
    for command, name in zip(COMMANDS, ("micrographs_ctf.star", "autopick.star"), strict=True):
        (noise / "out" / name).mkdir(parents=True)
        answer = typed(*command, noise, "--threads", 1, "--out", noise / "out")
        assert answer.status == 1
        assert f"out/{name}: " in answer.err
        assert "micrographs failed" not in answer.err
    assert (noise / "out" / "b_ctf.png").is_file()
    assert (noise / "out" / "b_picks.png").is_file()


def test_no_name_breaks_a_line_or_a_list(noise: Path, typed: Typed) -> None:
    """Control characters are shown escaped, all else as it is; what RELION cannot read is told and not listed."""
    write_noise(noise / "a.mrc", (160, 168))
    for name in ("new\nline.mrc", "b[red]x.mrc", os.fsdecode(b"\xff.mrc"), "two  spaces.mrc", "c:b:d.mrc"):
        (noise / name).write_bytes((noise / "a.mrc").read_bytes())
    for command in COMMANDS:
        answer = typed(*command, noise, "--threads", 1, "--out", noise / "out")
        assert answer.status == 0, answer.err
        assert "new\\nline.mrc: " in answer.out
        assert "b[red]x.mrc: " in answer.out
        assert "c:b:d.mrc: " in answer.out
        told = json.loads(typed(*command, noise, "--threads", 1, "--out", noise / "out", "--json").out)
        assert len(told) == 6
    listed = star.table(star.read_star(noise / "out" / "autopick.star"), "coordinate_files", noise).columns
    assert {Path(str(name)).name for name in listed["rlnMicrographName"]} == {
        *("a.mrc", "b[red]x.mrc", os.fsdecode(b"\xff.mrc"))
    }
