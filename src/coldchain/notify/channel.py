"""What all ways of telling have in common."""

from __future__ import annotations

from typing import Protocol

from coldchain.errors import DeliveryError
from coldchain.notify.message import Batch


class BusyError(DeliveryError):
    """The receiver said for how long it wants to be left alone: `pause_seconds`."""

    def __init__(self, found: str, *, pause_seconds: float) -> None:
        super().__init__(found)
        self.pause_seconds = pause_seconds


class Channel(Protocol):
    """A way to tell one receiver. `str` says where it leads, without secrets."""

    @property
    def bundles(self) -> bool:
        """Whether one message can hold several events."""

    def send(self, batch: Batch) -> list[str]:
        """Tell it; return what the receiver objected to, all the same.

        Raises DeliveryError where it could not be told, RefusedError where it will never take this message. It returns
        in bounded time.
        """
