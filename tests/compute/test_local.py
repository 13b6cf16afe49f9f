"""The pool of processes: what it returns, what it says when a worker dies, and that no worker outlives its service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from coldchain.compute.local import LocalEngine
from coldchain.errors import ComputeError, FormatError

DEADLINE_SECONDS = 60.0


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    """One worker."""
    engine = LocalEngine(1)
    yield engine
    engine.close()


def _fail() -> None:
    raise FormatError("mode 7", remedy="Convert it.")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_result_comes_back(engine: LocalEngine) -> None:
    """What a worker returns is the future's result."""
    assert engine.submit(pow, 2, 10).result(DEADLINE_SECONDS) == 1024


def test_a_stated_error_comes_back_whole(engine: LocalEngine) -> None:
    """A worker's error arrives with its fields."""
    error = engine.submit(_fail).exception(DEADLINE_SECONDS)
    assert isinstance(error, FormatError)
    assert error.remedy == "Convert it."


def test_a_killed_worker_is_said_and_replaced(engine: LocalEngine) -> None:
    """A worker that dies fails its work with an error that may be retried, and the next work is done."""
    error = engine.submit(_die).exception(DEADLINE_SECONDS)
    assert isinstance(error, ComputeError)
    assert error.retry
    assert engine.submit(pow, 2, 3).result(DEADLINE_SECONDS) == 8


def test_a_killed_worker_takes_no_neighbour_with_it() -> None:
    """Work that runs beside a worker that dies comes to its end."""
    engine = LocalEngine(2)
    beside = engine.submit(time.sleep, 3)
    assert isinstance(engine.submit(_die).exception(DEADLINE_SECONDS), ComputeError)
    assert beside.exception(DEADLINE_SECONDS) is None
    engine.close()


_PARENT = """
import time
from coldchain.compute.local import LocalEngine
if __name__ == "__main__":
    engine = LocalEngine(1)
    print(engine.submit(__import__("os").getpid).result(), flush=True)
    engine.submit(time.sleep, 600)
    time.sleep(600)
"""


def test_no_worker_outlives_a_killed_service(tmp_path: Path) -> None:
    """After `kill -9` of the service its workers end, though they were at work."""
    script = tmp_path / "parent.py"
    script.write_text(_PARENT, encoding="utf-8")
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
