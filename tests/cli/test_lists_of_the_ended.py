"""`coldchain ctf` and `coldchain pick` that are ended: what was done is told, and stands in RELION's list."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldchain.formats.mrc import write_mrc
from coldchain.kernels import ctf as ctf_kernel
from coldchain.kernels import pick as pick_kernel
from tests.cli.answer import Typed
from tests.kernels.planted_ctf import micrograph, planted_ctf

KERNELS = {"ctf": (ctf_kernel, "fit_ctf"), "pick": (pick_kernel, "find_particles")}
LISTS = {"ctf": "micrographs_ctf.star", "pick": "autopick.star"}
OPTIONS = {"ctf": ["--voltage", 300], "pick": []}
PIXEL_ANGSTROM, SHAPE = 1.2, (640, 640)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A micrograph whose CTF is planted, three times."""
    ctf = planted_ctf(SHAPE, PIXEL_ANGSTROM, 15000.0, 14200.0, 35.0)
    picture = micrograph(SHAPE, PIXEL_ANGSTROM, ctf, signal_to_noise=0.5, seed=1)
    write_mrc(tmp_path / "picture", picture.astype(np.float32), pixel_size_angstrom=PIXEL_ANGSTROM)
    paths = [tmp_path / f"{name}.mrc" for name in "abc"]
    for path in paths:
        shutil.copy(tmp_path / "picture", path)
    return paths


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int, int], None]:
    """Let a signal come while so many micrographs have been worked on."""

    def after(command: str, count: int, number: int) -> None:
        module, name = KERNELS[command]
        work, begun = getattr(module, name), iter(range(count + 1))

        def until_then(*given: Any, **named: Any) -> Any:
            if next(begun) == count:
                os.kill(os.getpid(), number)
            return work(*given, **named)

        monkeypatch.setattr(module, name, until_then)

    return after


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(("command", "threads"), [("ctf", 1), ("ctf", 2), ("pick", 1), ("pick", 2)])
def test_what_was_done_before_an_end_is_told_and_listed(
    command: str,
    threads: int,
    number: int,
    status: int,
    files: list[Path],
    tmp_path: Path,
    typed: Typed,
    ended: Callable[[str, int, int], None],
) -> None:
    """Two of three: the array is whole, the list has both, a line says how far it came, nothing is half there."""
    ended(command, 2, number)
    out = tmp_path / "out"
    answer = typed(command, *files, *OPTIONS[command], "--threads", threads, "--out", out, "--json")
    assert answer.status == status
    assert [Path(told["file"]).name for told in json.loads(answer.out)] == ["a.mrc", "b.mrc"]
    assert "Ended after 2 of 3 micrographs." in answer.err
    listed = (out / LISTS[command]).read_text()
    assert ["a.mrc" in listed, "b.mrc" in listed, "c.mrc" in listed] == [True, True, False]
    assert {path.name[0] for path in out.iterdir()} - {LISTS[command][0]} <= {"a", "b"}


@pytest.mark.parametrize("command", ["ctf", "pick"])
def test_an_end_before_the_first_result_leaves_what_was_there(
    command: str, files: list[Path], tmp_path: Path, typed: Typed, ended: Callable[[str, int, int], None]
) -> None:
    """No new folder; and an earlier call's list stays where nothing took its place."""
    ended(command, 0, signal.SIGINT)
    assert typed(command, *files, *OPTIONS[command], "--out", tmp_path / "new" / "folder").status == 130
    assert not (tmp_path / "new").exists()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / LISTS[command]).write_text("an earlier list")
    ended(command, 0, signal.SIGINT)
    assert typed(command, *files, *OPTIONS[command], "--out", tmp_path / "there").status == 130
    assert (tmp_path / "there" / LISTS[command]).read_text() == "an earlier list"
