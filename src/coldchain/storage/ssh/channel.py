"""One connection to another host: `ssh` as a child, the helper at its far end, and frames between them.

One request is answered after another, in the order in which they were sent; `post` and `write` send what has no answer
of its own, and are held back by the pipe when the far side is slower. The calling thread reads and writes itself, and
never without an end: a link that says nothing for `silence_seconds`, or a disk that does nothing for `stall_seconds`,
ends the child, and the call with a StorageError whose cause is a `WholeStoreError`. A broken channel is not mended; the
next call is made on a new one.
"""

from __future__ import annotations

import fcntl
import importlib.resources
import json
import os
import select
import signal
import subprocess
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from threading import Lock, Thread

from coldchain.errors import StorageError
from coldchain.storage.posix.root import SYNCED_WHOLE
from coldchain.storage.readback import MEDIUM_TYPES
from coldchain.storage.ssh.faults import link_error
from coldchain.storage.ssh.remote_helper import BLOCK_BYTES, LENGTHS, MAGIC
from coldchain.storage.ssh.settings import SshSettings

_HEADER_BYTES = 16 << 20  # the longest header that is believed
_GREETING_BYTES = 64 << 10  # what a talkative log-in may print before the helper speaks
_LAST_WORDS = 4096
_PIPE_BYTES = 1 << 20
_BEAT_SECONDS = 5.0
_IDLE_SECONDS = 900.0  # after so long without a request the helper goes; the next call makes a new connection
_LOCK_SECONDS = 5.0  # how long to wait for a part that a helper which was cut off has not let go of yet
_ENDING_SECONDS = 2.0


class RemoteError(Exception):
    """What was asked for was refused there: `fields` say how (`kind`, and for `os` its `errno` and `words`)."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        super().__init__(str(fields.get("kind")))
        self.fields = fields


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gave."""

    fields: Mapping[str, object]
    payload: bytes

    def number(self, name: str) -> int:
        """The field of that name; TypeError where it is no whole number."""
        found = self.fields.get(name)
        if not isinstance(found, int):
            raise TypeError(f"{name} is {found!r}")
        return found

    def text(self, name: str) -> str:
        """The field of that name; TypeError where it is no text."""
        found = self.fields.get(name)
        if not isinstance(found, str):
            raise TypeError(f"{name} is {found!r}")
        return found


class Channel:
    """A connection that stands, to the tree at `root` on the settings' host. Making it raises StorageError."""

    def __init__(self, store: str, root: PurePosixPath, settings: SshSettings) -> None:
        self.load = 0  # what is under way on it; its pool counts
        self.boot = ""
        self.kind: str | None = None  # of the root's file system; its store asks
        self.is_undurable = False  # whether its helper has written what a flush shall make durable; its store knows
        self.failures: dict[int, Mapping[str, object]] = {}
        self.proofs: dict[int, Answer] = {}
        self._store = store
        self._settings = settings
        self._lock = Lock()
        self._number = 0
        self._handle = 0
        self._inbox = bytearray()
        self._greeted = False
        self._answers: deque[Answer] = deque()
        self._done = 0
        self._ended: bool
        self._listener: _Listener
        self._finalizer: weakref.finalize[[subprocess.Popen[bytes]], Channel]
        self._source = importlib.resources.files("coldchain.storage.ssh").joinpath("remote_helper.py").read_bytes()
        self._start()
        try:
            self._greet(root)
        except BaseException:
            self.end()
            raise

    @property
    def is_alive(self) -> bool:
        """Whether it can be used: nothing has ended it, as far as this side has heard."""
        if self._ended:
            return False
        if self._lock.acquire(blocking=False):
            try:
                return not any(event & (select.POLLHUP | select.POLLERR) for _, event in self._reading.poll(0))
            finally:
                self._lock.release()
        return True  # it is in use

    @property
    def process_id(self) -> int:
        """Of the child."""
        return self._process.pid

    def call(self, op: str, **fields: object) -> Answer:
        """Ask, and wait for the answer. Raises RemoteError, and StorageError where the link fails."""
        with self._lock:
            self._number += 1
            try:
                self._send({"op": op, "n": self._number, **fields}, None)
                answer = self._await(self._number)
            except BaseException:  # also an interrupt: half a frame leaves nothing to go on with
                self.end()
                raise
        error = answer.fields.get("error")
        if error is not None:
            raise RemoteError(error if isinstance(error, dict) else {})
        return answer

    def post(self, op: str, handle: int, **fields: object) -> None:
        """Ask for what has no answer; `failures` says later if it failed. StorageError where the link fails."""
        self._post({"op": op, "h": handle, **fields}, [None])

    def write(self, handle: int, view: memoryview) -> None:
        """Send bytes of a copy, as `post` does."""
        starts = range(0, len(view), BLOCK_BYTES)
        self._post({"op": "write", "h": handle}, [view[begin : begin + BLOCK_BYTES] for begin in starts])

    def _post(self, header: Mapping[str, object], payloads: Sequence[memoryview | None]) -> None:
        with self._lock:
            try:
                for payload in payloads:
                    self._send(header, payload)
            except BaseException:
                self.end()
                raise

    def new_handle(self) -> int:
        """A number for something that is to be begun there."""
        with self._lock:
            self._handle += 1
            return self._handle

    def forget(self, handle: int) -> None:
        """What was told of that handle is of no use any more."""
        self.failures.pop(handle, None)
        self.proofs.pop(handle, None)

    def close(self) -> None:
        """End it from outside: a call that is under way fails. A helper at rest goes first, and lets go of its disk."""
        if self._lock.acquire(blocking=False):
            try:
                if not self._ended and self._process.stdin is not None:
                    self._process.stdin.close()
                    self._listener.thread.join(_ENDING_SECONDS)
                self.end()
            finally:
                self._lock.release()
        else:
            _kill(self._process)  # whoever waits for it sees its end

    def end(self) -> None:
        """End the child and what it started. Only for who has the channel to himself."""
        if not self._ended:
            self._ended = True
            self._finalizer()
            self._listener.thread.join(_ENDING_SECONDS)

    def _start(self) -> None:
        try:
            # A session of its own: an interrupt at the terminal is for us to act on.
            self._process = subprocess.Popen(
                self._settings.argv(len(self._source)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            failed = link_error(self._store, self._settings, f"ssh cannot be started: {error}", None, "")
            raise failed from failed.__cause__
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._ended = False
        self._to = self._process.stdin.fileno()
        self._from = self._process.stdout.fileno()
        self._reading = select.poll()
        self._reading.register(self._from, select.POLLIN)
        self._both = select.poll()
        self._both.register(self._from, select.POLLIN)
        self._both.register(self._to, select.POLLOUT)
        for descriptor in (self._to, self._from):
            os.set_blocking(descriptor, False)
            with suppress(OSError):  # the user's share of pipe memory may be used up
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._listener = _Listener(self._process, f"ssh-{self._store}")
        # Also where nobody closes the store: at the end of its life, and of this process's.
        self._finalizer = weakref.finalize(self, _end, self._process)

    def _greet(self, root: PurePosixPath) -> None:
        self._patience(self._settings.connect_seconds)
        self._push([memoryview(self._source)])
        while not self._greeted:
            self._turn([])
        fields = {
            "root": os.fsencode(root).decode("latin-1"),
            "medium": sorted(MEDIUM_TYPES),
            "whole": sorted(SYNCED_WHOLE),
            "beat": min(_BEAT_SECONDS, self._settings.silence_seconds / 4),
            "idle": _IDLE_SECONDS,
            "lock": min(_LOCK_SECONDS, self._settings.silence_seconds),
        }
        self.boot = str(self.call("open", **fields).fields.get("boot"))

    def _send(self, header: Mapping[str, object], payload: memoryview | None) -> None:
        if self._ended:
            raise self._lost("the connection was lost")
        self._patience(self._settings.silence_seconds)
        head = json.dumps(header).encode("ascii")
        payload_bytes = 0 if payload is None else len(payload)
        views = [memoryview(LENGTHS.pack(len(head), payload_bytes) + head)]
        if payload is not None:
            views.append(payload)
        self._push(views)

    def _push(self, views: list[memoryview]) -> None:
        while views:
            self._turn(views)

    def _await(self, number: int) -> Answer:
        while not self._answers:
            self._turn([])
        answer = self._answers.popleft()
        if answer.fields["n"] != number:
            raise self._lost("the host answered something else than it was asked")
        return answer

    def _patience(self, silence_seconds: float) -> None:
        self._silence_seconds = silence_seconds
        self._heard = self._moved = time.monotonic()

    def _turn(self, sending: list[memoryview]) -> None:
        """Wait until bytes can go or have come, and move them; what was sent leaves the list."""
        now = time.monotonic()
        silent = self._heard + self._silence_seconds - now
        stalled = self._moved + self._settings.stall_seconds - now
        if silent <= 0:
            raise self._lost(f"the host has not answered for {self._silence_seconds:g} s")
        if stalled <= 0:
            raise self._lost(f"the host's disk has done nothing for {self._settings.stall_seconds:g} s")
        poll = self._both if sending else self._reading
        for descriptor, _ in poll.poll(1000 * min(silent, stalled) + 1):
            try:
                self._receive() if descriptor == self._from else self._give(sending)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError:
                lost = self._lost("the connection was lost")
                raise lost from lost.__cause__

    def _give(self, sending: list[memoryview]) -> None:
        sent = os.writev(self._to, sending)
        self._moved = time.monotonic()
        while sending and sent >= len(sending[0]):
            sent -= len(sending.pop(0))
        if sent:
            sending[0] = sending[0][sent:]

    def _receive(self) -> None:
        received = os.read(self._from, _PIPE_BYTES)
        if not received:
            raise self._lost("the connection was lost")
        self._heard = time.monotonic()
        self._inbox += received
        if not self._greeted and not self._find_greeting():
            return
        try:
            while self._take_frame():
                pass
        except (ValueError, TypeError, KeyError, RecursionError):
            lost = self._lost("what came from the host is not what the helper says")
            raise lost from lost.__cause__

    def _find_greeting(self) -> bool:
        at = self._inbox.find(MAGIC)
        if at >= 0:
            del self._inbox[: at + len(MAGIC)]
            self._greeted = True
        elif len(self._inbox) > _GREETING_BYTES:
            raise self._lost("the host prints much and starts no helper")
        return self._greeted

    def _take_frame(self) -> bool:
        if len(self._inbox) < LENGTHS.size:
            return False
        header_bytes, payload_bytes = LENGTHS.unpack_from(self._inbox)
        if header_bytes > _HEADER_BYTES or payload_bytes > BLOCK_BYTES:
            raise ValueError("the frame is too large")
        middle = LENGTHS.size + header_bytes
        end = middle + payload_bytes
        if len(self._inbox) < end:
            return False
        header = json.loads(self._inbox[LENGTHS.size : middle])
        payload = bytes(memoryview(self._inbox)[middle:end])
        del self._inbox[:end]
        self._dispatch(header, payload)
        return True

    def _dispatch(self, header: Mapping[str, object], payload: bytes) -> None:
        if "beat" in header:
            # Life is no progress: a disk that hangs does not keep the helper's heart from beating.
            if header["beat"] != self._done:
                self._moved = time.monotonic()
            self._done = int(str(header["beat"]))
        elif "failed" in header:
            handle, error = int(str(header["failed"])), header["error"]
            if handle <= self._handle:
                self.failures[handle] = error if isinstance(error, dict) else {}
        elif "proved" in header:
            handle = int(str(header["proved"]))
            if handle <= self._handle:
                self.proofs[handle] = Answer(header, b"")
        else:
            self._moved = time.monotonic()
            int(str(header["n"]))
            self._answers.append(Answer(header, payload))

    def _lost(self, why: str) -> StorageError:
        """End the child, and say what became of the link, in its own last words where it has some."""
        if not self._ended and "lost" in why:
            self._listener.thread.join(_ENDING_SECONDS)  # it is ending, and about to say why
        self.end()
        words = self._listener.last_words.decode("utf-8", "replace")
        return link_error(self._store, self._settings, why, self._process.returncode, words)


class _Listener:
    """Keeps what the child says on its standard error, and takes its status when it ends, whoever waits or not."""

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        self.last_words = b""
        self._process = process
        self.thread = Thread(target=self._listen, name=name, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as errors:
            while words := errors.read(_LAST_WORDS):
                self.last_words = (self.last_words + words)[-_LAST_WORDS:]
        self._process.wait()


def _end(process: subprocess.Popen[bytes]) -> None:
    _kill(process)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
