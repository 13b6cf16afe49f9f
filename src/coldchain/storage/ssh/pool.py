"""A few channels to one host. Each serves one request after another; what comes while one is busy goes to another.

A channel's load is what is under way on it: copies that are being written, and calls. The least loaded is taken, and a
new one opened while all are loaded and there are fewer than the settings' most. A copy stays on its channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from threading import Lock

from coldchain.errors import StorageError
from coldchain.storage.ssh.channel import Channel
from coldchain.storage.ssh.settings import SshSettings


class ChannelPool:
    """The channels of the store `name` to its tree at `root`. `boots` counts how often the host was found to have
    started anew since the first channel."""

    def __init__(self, name: str, root: PurePosixPath, settings: SshSettings) -> None:
        self.boots = 0
        self._name = name
        self._root = root
        self._settings = settings
        self._lock = Lock()
        self._opening = Lock()
        self._channels: list[Channel] = []
        self._boot = ""
        self._failures = 0
        self._failure: StorageError | None = None

    @contextmanager
    def lease(self) -> Iterator[Channel]:
        """A channel for a call or two."""
        channel = self.take()
        try:
            yield channel
        finally:
            self.let_go(channel)

    @contextmanager
    def use(self, channel: Channel) -> Iterator[Channel]:
        """Count a call on a channel that is taken already."""
        with self._lock:
            channel.load += 1
        try:
            yield channel
        finally:
            self.let_go(channel)

    def take(self) -> Channel:
        """A channel, loaded by one more until it is let go. StorageError where there is none and none can be opened."""
        seen = self._failures
        channel = self._least_loaded()
        if channel is None:
            with self._opening:
                # Whoever waited meanwhile need not wait for the same silence again.
                if self._failure is not None and self._failures > seen:
                    raise _again(self._failure)
                channel = self._least_loaded() or self._open()
        return channel

    def let_go(self, channel: Channel) -> None:
        """What was under way is done."""
        with self._lock:
            channel.load -= 1

    def close(self) -> None:
        """End them all. The next `take` would open a new one."""
        with self._lock:
            channels, self._channels = self._channels, []
        for channel in channels:
            channel.close()

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Those that stand."""
        with self._lock:
            return tuple(self._channels)

    def _least_loaded(self) -> Channel | None:
        with self._lock:
            lost = [channel for channel in self._channels if not channel.is_alive]
            self._channels = [channel for channel in self._channels if channel not in lost]
            found = min(self._channels, key=lambda channel: channel.load, default=None)
            if found is not None and found.load and len(self._channels) < self._settings.channels:
                found = None
            if found is not None:
                found.load += 1
        for channel in lost:
            channel.close()
        return found

    def _open(self) -> Channel:
        try:
            channel = Channel(self._name, self._root, self._settings)
        except StorageError as error:
            self._failures += 1
            self._failure = error
            raise
        with self._lock:
            self.boots += self._boot not in ("", channel.boot)
            self._boot = channel.boot
            channel.load = 1
            self._channels.append(channel)
        return channel


def _again(error: StorageError) -> StorageError:
    """The same error for another thread: one exception is raised once."""
    other = type(error)(error.found, expected=error.expected, remedy=error.remedy, path=error.path)
    other.__cause__ = error.__cause__
    return other
