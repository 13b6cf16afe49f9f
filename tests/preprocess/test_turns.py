"""Files in turn: order, and that one which fails stops no other."""

from __future__ import annotations

import time
import weakref
from pathlib import Path

import pytest

from coldchain.errors import ProcessingError, StorageError
from coldchain.preprocess.report import Failed
from coldchain.preprocess.turns import EXPECTED, failed, in_turn


class _Tracing:
    """Stages that note what they do, and of which one may fail for some files."""

    def __init__(self, failing: dict[str, str]) -> None:
        self.failing = failing
        self.imported = False

    def import_kernels(self) -> None:
        self.imported = True

    def read(self, path: Path, threads: int, /) -> str | Failed:
        return self._do("read", path)

    def work(self, read: str | Failed, /) -> str | Failed:
        return read if isinstance(read, Failed) else self._do("work", Path(read))

    def write(self, made: str | Failed, threads: int, /) -> str | Failed:
        return made if isinstance(made, Failed) else self._do("write", Path(made))

    def _do(self, stage: str, path: Path) -> str | Failed:
        time.sleep(0.001)
        if self.failing.get(path.name) == stage:
            return Failed(path, ProcessingError(stage))
        return str(path)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_files_are_told_in_their_order(threads: int, count: int) -> None:
    """With one thread and with more; one that fails at any stage is told in its place."""
    paths = [Path(f"{number}") for number in range(count)]
    stages = _Tracing({"1": "read", "3": "work", "6": "write"})
    told = list(in_turn(paths, stages, threads))
    expected = [stages.failing.get(path.name, str(path)) for path in paths]
    assert [str(each.error) if isinstance(each, Failed) else each for each in told] == expected


class _Pixels:
    """What is read, and must not be kept while a result is written."""


class _Holding:
    """Stages that note whether what was read is still there when its result is written."""

    def __init__(self) -> None:
        self.held: list[bool] = []
        self._read: dict[Path, weakref.ref[_Pixels]] = {}

    def import_kernels(self) -> None:
        pass

    def read(self, path: Path, threads: int, /) -> tuple[Path, _Pixels] | Failed:
        pixels = _Pixels()
        self._read[path] = weakref.ref(pixels)
        return path, pixels

    def work(self, read: tuple[Path, _Pixels] | Failed, /) -> Path | Failed:
        return read if isinstance(read, Failed) else read[0]

    def write(self, made: Path | Failed, threads: int, /) -> Path | Failed:
        if not isinstance(made, Failed):
            self.held.append(self._read[made]() is not None)
        return made


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [1, 3])
def test_what_was_read_is_gone_when_its_result_is_written(threads: int, count: int) -> None:
    """Of the last file, too: else its pixels and its results' would be in memory together."""
    stages = _Holding()
    assert len(list(in_turn([Path(f"{number}") for number in range(count)], stages, threads))) == count
    assert stages.held == [False] * count


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(143)])
def test_what_is_being_written_at_the_end_is_told(end: BaseException) -> None:
    """Ended while the third of four is worked on, two were told, and the end goes on to who asked."""

    class Ending(_Tracing):
        def work(self, read: str | Failed, /) -> str | Failed:
            if read == "2":
                raise end
            return super().work(read)

    told: list[str | Failed] = []

    def tell() -> None:
        for each in in_turn([Path(f"{number}") for number in range(4)], Ending({}), 2):
            told.append(each)

    with pytest.raises(type(end)):
        tell()
    assert told == ["0", "1"]


def test_every_expected_failure_names_its_file() -> None:
    """Too little memory and a refusal of the operating system become errors of ours, about that file."""
    path = Path("a.mrc")
    assert "not enough memory" in str(failed(MemoryError(), path).error)
    refused = failed(PermissionError(13, "Permission denied"), path)
    assert isinstance(refused.error, StorageError)
    assert str(refused.error).startswith("a.mrc: Permission denied")
    assert str(failed(ProcessingError("no rings"), path).error).startswith("a.mrc: no rings")
    other = failed(ProcessingError("no rings", path="b.mrc"), path)
    assert str(other.error).startswith("b.mrc")
    assert ProcessingError("x").__class__.__mro__[1] in EXPECTED
