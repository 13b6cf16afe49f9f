"""What all ways of telling have in common."""

from __future__ import annotations

from typing import Protocol

from coldchain.notify.message import Batch


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
