"""The facility's site in a process of its own, beside the service.

Making a page is the interpreter's work, and so is taking in files: in one process each would wait for the other's turn.
Nor can a page, whatever it asks for, take the service down with it.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import socket
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType

from coldchain.catalog.engine import open_catalog
from coldchain.cli.log_lines import log_to_terminal
from coldchain.cli.site import site
from coldchain.config import Settings
from coldchain.errors import ColdchainError, ComputeError
from coldchain.web.server import listen, url_of

log = logging.getLogger("coldchain")

_START_SECONDS = 60.0
_STOP_SECONDS = 15.0
_PAUSE_SECONDS = 10.0


class SiteProcess:
    """The site's process, as a context: it answers when that is entered, and has ended when it is left.

    The service holds the socket: the site begun anew has the same address, and who asks meanwhile waits. The two hold
    the ends of a pipe, and the site ends when the service lets go of it, by itself or killed.
    """

    def __init__(self, settings: Settings, *, enabled: bool = True) -> None:
        self.url = "The site is off."
        self._settings = settings
        self._enabled = enabled
        self._bound: socket.socket | None = None
        self._site: tuple[SpawnProcess, Connection] | None = None
        self._not_before = 0.0

    def __enter__(self) -> SiteProcess:
        """Begin. Raises ConfigError where the port cannot be had, ColdchainError where the site does not come up."""
        if self._enabled:
            host = self._settings.web.host
            self._bound = listen(host, self._settings.web.port)
            try:
                self._await(self._begin())
            except BaseException:
                self._end()
                raise
            self.url = url_of(self._bound, host)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def pid(self) -> int | None:
        """The process's number; None where there is none."""
        return None if self._site is None else self._site[0].pid

    def keep(self) -> None:
        """Begin the site again where its process has ended, some seconds apart. It is not waited for."""
        if self._site is None or self._site[0].is_alive() or time.monotonic() < self._not_before:
            return
        line = self._site[1]
        why = _told(line) or _told(line)  # that it answered was not waited for
        log.warning("the site has ended and is begun again: %s", why)
        line.close()
        self._not_before = time.monotonic() + _PAUSE_SECONDS
        self._begin()

    def _begin(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        line, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(self._settings, self._bound, theirs), name="site", daemon=True)
        process.start()
        theirs.close()
        self._site = process, line
        return line

    def _await(self, line: Connection) -> None:
        if not line.poll(_START_SECONDS):
            raise ComputeError(f"the site did not come up within {_START_SECONDS:.0f} s", remedy="See the log.")
        error = _told(line)
        if error is not None:
            raise error

    def _end(self) -> None:
        if self._site is not None:
            process, line = self._site
            line.close()
            process.join(_STOP_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
        if self._bound is not None:
            self._bound.close()
        self._site = self._bound = None


def _told(line: Connection) -> ColdchainError | None:
    """What the site's process says next: None that it answers, or why it has ended."""
    try:
        told: ColdchainError | None = line.recv()
    except (EOFError, OSError):
        return ComputeError("its process was killed, or failed", remedy="See the log, and the system's.")
    return told


def _serve(settings: Settings, bound: socket.socket, line: Connection) -> None:
    """The site, until the line's other end is let go of. None is sent when it answers, or the error why it cannot."""
    # Ctrl-C in a terminal reaches both: the service lets go of the site when it has finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log_to_terminal()
    try:
        catalog = open_catalog(settings.catalog.url, settings.facility.site, settings.facility.name)
        try:
            with site(catalog, settings, bound=bound):
                line.send(None)
                line.poll(None)
        finally:
            catalog.close()
    except ColdchainError as error:
        with suppress(OSError):  # the service may have ended meanwhile
            line.send(error)
