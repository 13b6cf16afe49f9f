"""Whole processes, timed by turns, with their peak memory."""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_LAST_WORDS = 600
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class ProcessError(Exception):
    """A process ended with another status than 0."""


@dataclass(frozen=True, slots=True)
class Run:
    """A process that went well: wall seconds from start to end, peak resident bytes, and what it printed."""

    seconds: float
    peak_bytes: int
    output: str


@dataclass(frozen=True, slots=True)
class Runs:
    """Several runs of one command, in the order in which they were made."""

    runs: tuple[Run, ...]

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(run.seconds for run in self.runs)

    @property
    def peak_bytes(self) -> int:
        """The largest."""
        return max(run.peak_bytes for run in self.runs)

    @property
    def last(self) -> Run:
        """The last one."""
        return self.runs[-1]


def run_whole(command: Sequence[str], *, threads: int, folder: Path | None = None) -> Run:
    """Run a command to its end; `ProcessError` with its last words where it goes ill.

    Libraries that have their own idea of how many threads are good are told `threads`. The peak is the kernel's count
    for the process, which begins with that of this one at the start: keep this one small (see `apart`).
    """
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(list(command), cwd=folder, env=environment, stdout=output, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            last_words = (output.read() + errors.read()).strip()[-_LAST_WORDS:]
            raise ProcessError(f"{shlex.join(command)}: status {process.returncode}\n{last_words}")
        return Run(seconds, usage.ru_maxrss * 1024, output.read())


def by_turns(ways: Mapping[str, Callable[[], Run]], rounds: int) -> dict[str, Runs]:
    """Each way in turn, `rounds` times over, so that a machine that is busy for a while is busy for all."""
    done = [{name: way() for name, way in ways.items()} for _ in range(rounds)]
    return {name: Runs(tuple(turn[name] for turn in done)) for name in ways}


def apart(function: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
    """Call a function of a module in a process of its own, which takes its memory with it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **named).result()
