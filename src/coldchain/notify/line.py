"""A connection that ends in time, however slowly the other side answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from coldchain.errors import DeliveryError


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a receiver may take: for one answer, and in all."""

    answer_seconds: float = 15.0
    total_seconds: float = 30.0


class Line:
    """A connection. Hung up in the middle of an answer, it looks as if the other side had ended: see `is_over`."""

    def __init__(self, connection: socket.socket, patience: Patience) -> None:
        self.socket = connection
        self._patience = patience
        self._over = threading.Event()

    def hang_up(self, handle: socket.socket) -> None:
        """Time is over: shut the connection down."""
        self._over.set()
        with suppress(OSError):
            handle.shutdown(socket.SHUT_RDWR)

    def is_over(self) -> bool:
        """Whether it was hung up."""
        return self._over.is_set()

    def lateness(self) -> DeliveryError:
        """What to say of a line that was hung up."""
        return DeliveryError(f"it had not finished after {self._patience.total_seconds:g} s")


@contextmanager
def connected(host: str, port: int, patience: Patience) -> Iterator[Line]:
    """A TCP connection, hung up when `patience` is at its end, even where every single byte comes in time.

    Raises DeliveryError then, and what `socket` raises where there is no connection.
    """
    # The handle stays the connection's when TLS is laid over it, which takes the socket's descriptor away.
    with _dial(host, port, patience) as connection, connection.dup() as handle:
        line = Line(connection, patience)
        timer = threading.Timer(patience.total_seconds, line.hang_up, [handle])
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:
            raise DeliveryError("this machine has no thread left to send it") from None
        try:
            yield line
        except OSError:
            if line.is_over():
                raise line.lateness() from None
            raise
        finally:
            timer.cancel()
            timer.join()


def _dial(host: str, port: int, patience: Patience) -> socket.socket:
    try:
        return socket.create_connection((host, port), timeout=patience.answer_seconds)
    except UnicodeError:  # of the encoding of domain names; its text shows the name
        raise DeliveryError("the host's name is none that the network knows") from None


def reason(error: Exception) -> str:
    """What a network error says, in a few words."""
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
