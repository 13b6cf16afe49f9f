"""Commands that wait for their turn, run in a thread of their own, so that whoever orders them never waits.

At most `jobs` run at a time. Those of one key (a file) run one after another, in the order in which they were ordered.
Each is the leader of a process group of its own, so that it can be ended with all that it started. What a command
prints is taken as it comes, and only its beginning is kept.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

log = logging.getLogger(__name__)

SHELL = "/bin/sh"
MOST_OUTPUT_BYTES = 64 << 10
"""How much of what a command prints is kept."""

MOST_BACKGROUND = 128
"""How many commands may have left something running in the background that still holds their output."""

_KILL_SECONDS = 5.0
_LONGEST_WAIT_SECONDS = 300.0
_CHUNK_BYTES = 256 << 10
_DRAIN_BYTES = 4 << 20
_WITHOUT_PIDFD_SECONDS = 0.02
_RESET = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXFSZ)


@dataclass(frozen=True, slots=True)
class Order:
    """A line for `sh -c`, or an argv that is run as it stands and of which `line` is only told.

    Orders of the same key are never run at the same time, nor in another order.
    """

    line: str
    key: str
    argv: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt.

    Parameters
    ----------
    status : the exit status, negative for the signal that ended it; None where it was never begun.
    output : the beginning of what it printed, both streams as they came; `output_bytes` is how much it was in all.
    trouble : why it did not end by itself, or was not begun; "" otherwise.
    next_try_seconds : after which wait it is tried again; None where it is not.
    """

    order: Order
    attempt: int
    status: int | None
    output: bytes
    output_bytes: int
    seconds: float
    trouble: str = ""
    next_try_seconds: float | None = None

    @property
    def is_good(self) -> bool:
        """Whether the command says that it went well."""
        return self.status == 0 and not self.trouble


@dataclass(slots=True, eq=False)
class _Running:
    order: Order
    attempt: int
    pid: int
    pipe: int
    pidfd: int | None
    began: float
    deadline: float
    output: bytearray = field(default_factory=bytearray)
    output_bytes: int = 0
    ended: bool = False
    trouble: str = ""
    is_told_to_end: bool = False


class CommandQueue:
    """Runs what is ordered: `start`, then `put` from any thread, then `stop`.

    Parameters
    ----------
    told : called with each outcome, in the queue's own thread; it should return soon and may not raise.
    jobs : how many run at a time.
    retries : how often one that fails is tried again; the wait doubles from 1 s, up to 300 s.
    timeout_seconds : after which one is ended that has not come to its end; None: never.
    environment : of the commands.
    """

    def __init__(
        self,
        told: Callable[[Outcome], None],
        *,
        jobs: int = 1,
        retries: int = 0,
        timeout_seconds: float | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._told = told
        self._jobs = jobs
        self._retries = retries
        self._timeout_seconds = timeout_seconds
        self._environment = dict(os.environ if environment is None else environment)
        self._arrived: deque[Order] = deque()
        self._ready: deque[tuple[Order, int]] = deque()
        self._behind: dict[str, deque[Order]] = {}
        self._later: list[tuple[float, int, Order, int]] = []
        self._count = itertools.count()
        self._by_descriptor: dict[int, _Running] = {}
        self._running: set[_Running] = set()
        self._background: set[_Running] = set()
        self._poll = select.poll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._wake, select.POLLIN)
        self._is_awake = False
        self._end_by: float | None = None
        self._thread = threading.Thread(target=self._run, name="commands")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, order: Order) -> None:
        """Order a command. It never waits."""
        self._arrived.append(order)
        self._awake()

    def waiting(self) -> int:
        """About how many have not been begun."""
        return len(self._arrived) + len(self._ready) + len(self._later) + sum(map(len, self._behind.values()))

    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def is_idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not (self._arrived or self._behind)

    def stop(self, patience_seconds: float = 10.0) -> None:
        """Go on for so long at most, then end what runs, say of what waits that it was not begun, and return."""
        self._end_by = time.monotonic() + patience_seconds
        self._is_awake = False
        self._awake()
        if self._thread.is_alive():
            self._thread.join()
        os.close(self._wake)

    def _awake(self) -> None:
        if not self._is_awake:
            self._is_awake = True
            os.eventfd_write(self._wake, 1)

    # -- the loop ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_over():
            self._take_arrived()
            self._take_due()
            while self._ready and len(self._running) < self._jobs and len(self._background) < MOST_BACKGROUND:
                self._begin(*self._ready.popleft())
            self._attend(self._pause_seconds())
            self._end_the_late()
        self._end_all()

    def _is_over(self) -> bool:
        if self._end_by is None:
            return False
        return time.monotonic() >= self._end_by or not (self._arrived or self._behind)

    def _take_arrived(self) -> None:
        while self._arrived:
            order = self._arrived[0]
            line = self._behind.get(order.key)
            if line is None:
                self._behind[order.key] = deque()
                self._ready.append((order, 1))
            else:
                line.append(order)
            self._arrived.popleft()  # last: at no time is it in neither

    def _take_due(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            _, _, order, attempt = heapq.heappop(self._later)
            self._ready.append((order, attempt))

    def _pause_seconds(self) -> float | None:
        times = [running.deadline for running in self._running]
        times += [self._later[0][0]] if self._later else []
        times += [] if self._end_by is None else [self._end_by]
        pause = max(min(times) - time.monotonic(), 0.0) if times and min(times) < float("inf") else None
        if any(running.pidfd is None for running in self._running):
            return _WITHOUT_PIDFD_SECONDS if pause is None else min(pause, _WITHOUT_PIDFD_SECONDS)
        return pause

    def _attend(self, pause_seconds: float | None) -> None:
        milliseconds = None if pause_seconds is None else int(pause_seconds * 1000) + 1
        for descriptor, _ in self._poll.poll(milliseconds):
            running = self._by_descriptor.get(descriptor)
            if descriptor == self._wake:
                with suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
                # After the reading: an order that comes between wakes nobody, and is taken right after this.
                self._is_awake = False
            elif running is None:
                continue  # closed a moment ago
            elif descriptor == running.pipe:
                self._read(running, _CHUNK_BYTES)
            else:
                self._finish(running)
        for running in [running for running in self._running if running.pidfd is None]:
            self._finish(running)

    # -- one command ------------------------------------------------------------------------------------------------

    def _begin(self, order: Order, attempt: int) -> None:
        now = time.monotonic()
        try:
            running = self._spawn(order, attempt, now)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self._conclude(Outcome(order, attempt, None, b"", 0, 0.0, f"it cannot be begun: {reason}"))
            return
        self._running.add(running)
        self._by_descriptor[running.pipe] = running
        self._poll.register(running.pipe, select.POLLIN)
        if running.pidfd is not None:
            self._by_descriptor[running.pidfd] = running
            self._poll.register(running.pidfd, select.POLLIN)

    def _spawn(self, order: Order, attempt: int, now: float) -> _Running:
        pipe, other_end = os.pipe()
        try:
            argv = order.argv or (SHELL, "-c", order.line)
            pid = os.posix_spawnp(  # an argv's program is looked for on the PATH
                argv[0],
                argv,
                self._environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, other_end, 1),
                    (os.POSIX_SPAWN_DUP2, other_end, 2),
                ],
                setpgroup=0,
                setsigmask=(),
                setsigdef=_RESET,
            )
        except BaseException:
            os.close(pipe)
            raise
        finally:
            os.close(other_end)
        os.set_blocking(pipe, False)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # a kernel before 5.3, or no descriptor left
            pidfd = None
        deadline = float("inf") if self._timeout_seconds is None else now + self._timeout_seconds
        return _Running(order, attempt, pid, pipe, pidfd, now, deadline)

    def _read(self, running: _Running, most_bytes: int) -> None:
        """Take what was printed; close the pipe where nobody can print any more."""
        while most_bytes > 0:
            try:
                data = os.read(running.pipe, min(_CHUNK_BYTES, most_bytes))
            except BlockingIOError:
                return
            if not data:
                self._close_pipe(running)
                return
            most_bytes -= len(data)
            running.output_bytes += len(data)
            room = MOST_OUTPUT_BYTES - len(running.output)
            if room > 0:
                running.output += data[:room]

    def _close_pipe(self, running: _Running) -> None:
        if running.pipe < 0:
            return
        self._poll.unregister(running.pipe)
        del self._by_descriptor[running.pipe]
        os.close(running.pipe)
        running.pipe = -1
        self._background.discard(running)

    def _finish(self, running: _Running) -> None:
        """Take leave of a command that has ended; do nothing where it has not."""
        pid, wait_status = os.waitpid(running.pid, os.WNOHANG)
        if pid == 0:
            return
        if running.pidfd is not None:
            self._poll.unregister(running.pidfd)
            del self._by_descriptor[running.pidfd]
            os.close(running.pidfd)
        self._running.discard(running)
        if running.pipe >= 0:
            self._read(running, _DRAIN_BYTES)
        if running.pipe >= 0:  # something in the background still holds it: it may go on, and print to nobody
            self._background.add(running)
        self._conclude(
            Outcome(
                running.order,
                running.attempt,
                os.waitstatus_to_exitcode(wait_status),
                bytes(running.output),
                running.output_bytes,
                time.monotonic() - running.began,
                running.trouble,
            )
        )
        running.output.clear()

    def _conclude(self, outcome: Outcome) -> None:
        """Say what became of it; try it again, or let the next of its key go on."""
        if not outcome.is_good and outcome.attempt <= self._retries and self._end_by is None:
            wait = min(2.0 ** min(outcome.attempt - 1, 32), _LONGEST_WAIT_SECONDS)
            due = time.monotonic() + wait
            heapq.heappush(self._later, (due, next(self._count), outcome.order, outcome.attempt + 1))
            self._told(replace(outcome, next_try_seconds=wait))
            return
        self._told(outcome)
        line = self._behind[outcome.order.key]
        if line:
            self._ready.append((line.popleft(), 1))
        else:
            del self._behind[outcome.order.key]

    # -- ends -------------------------------------------------------------------------------------------------------

    def _end_the_late(self) -> None:
        now = time.monotonic()
        for running in self._running:
            if now >= running.deadline:
                self._tell_to_end(running, f"it had not ended after {self._timeout_seconds:g} s", now)

    def _tell_to_end(self, running: _Running, trouble: str, now: float) -> None:
        """First politely; the second time so that it must."""
        _signal_group(running.pid, signal.SIGKILL if running.is_told_to_end else signal.SIGTERM)
        running.is_told_to_end = True
        running.trouble = trouble
        running.deadline = now + _KILL_SECONDS

    def _end_all(self) -> None:
        trouble = "it was ended, because the watching ends"
        for running in list(self._running):
            self._tell_to_end(running, trouble, time.monotonic())
        for left in self._background:
            _signal_group(left.pid, signal.SIGTERM)
        while self._running:
            self._attend(self._pause_seconds())
            for running in self._running:
                if time.monotonic() >= running.deadline:
                    self._tell_to_end(running, trouble, time.monotonic())
        for left in list(self._background):
            self._close_pipe(left)
        self._take_arrived()
        unbegun = [order for order, _ in self._ready] + [order for _, _, order, _ in self._later]
        unbegun += [order for line in self._behind.values() for order in line]
        for order in unbegun:
            self._told(Outcome(order, 1, None, b"", 0, 0.0, "it was not run, because the watching ends"))


def _signal_group(pid: int, number: signal.Signals) -> None:
    """Send it to the process group that `pid` leads."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
