"""The server: the pages on a port, in the foreground or beside other work."""

from __future__ import annotations

import socket
import threading
from types import TracebackType

import uvicorn
from fastapi import FastAPI

from coldchain.errors import ComputeError, ConfigError
from coldchain.web.guard import hosts_of

DEFAULT_HOST = "127.0.0.1"
_START_SECONDS = 30.0
_STOP_SECONDS = 5


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound and listens; port 0 takes any that is free.

    Raises ConfigError where the port is taken, not allowed, or the host is none of this machine's.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"port {port}", expected="a number from 0 to 65535", remedy="Choose another port.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise ConfigError(
            f"the site cannot listen on {host}, port {port}: {error.strerror or error}",
            remedy="Stop what uses it, or choose another host or port (port 0 takes any that is free).",
        ) from error


def url_of(bound: socket.socket, host: str) -> str:
    """The address to type into a browser on this machine."""
    port = bound.getsockname()[1]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared with, not bound to
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


class BackgroundServer:
    """The pages (`app.create_app`), served from a thread of this process, on a socket of its own or on `bound`, which
    listens already (`listen`).

    >>> with BackgroundServer(app) as url:  # doctest: +SKIP
    ...     print(url)
    """

    def __init__(
        self, app: FastAPI, host: str = DEFAULT_HOST, port: int = 0, *, bound: socket.socket | None = None
    ) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._given = bound
        self._server: _ReadyServer | None = None
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None

    def start(self) -> str:
        """Begin to serve, and return the URL once requests are answered.

        Raises ConfigError where the port cannot be had, ComputeError where the server does not come up.
        """
        self._socket = listen(self._host, self._port) if self._given is None else self._given
        self._app.state.hosts = self._app.state.hosts | hosts_of(self._host)
        self._server = _ReadyServer(_config(self._app))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="coldchain-web", daemon=True
        )
        self._thread.start()
        if not self._server.ready.wait(_START_SECONDS):
            self.stop()
            raise ComputeError(f"the site did not come up within {_START_SECONDS:.0f} s", remedy="See the log.")
        return url_of(self._socket, self._host)

    def stop(self) -> None:
        """End the server; what is being answered is finished, within some seconds. Calling it again does nothing."""
        if self._server is not None and self._thread is not None and self._socket is not None:
            self._server.should_exit = True
            self._thread.join(2 * _STOP_SECONDS)
            self._socket.close()
            self._app.state.figures.close()
        self._server = self._thread = self._socket = None

    def __enter__(self) -> str:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _ReadyServer(uvicorn.Server):
    """uvicorn's server, saying when it answers."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.ready.set()


def _config(app: FastAPI) -> uvicorn.Config:
    # The facility's own log tells what matters; a line for each of a page's polls does not.
    return uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
