"""What every answer carries and every request must pass, whatever page it is about.

A page on 127.0.0.1 is within reach of every site that the same browser has open: a name under a stranger's control can
be made to resolve to 127.0.0.1 (DNS rebinding), and his script then reads our answers as his own. Only the `Host`
header tells; so names that nobody gave this site are turned away.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Plotly lays its plots out with style attributes
        "img-src 'self' data:",  # Plotly's "save as picture" and the style sheet's small icons
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def host_name(header: str) -> str:
    """The name or address in a `Host` header: lower case, without port, brackets or a final dot."""
    text = header.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].rstrip(".")


def hosts_of(bound: str) -> frozenset[str]:
    """The names under which a server bound to `bound` may be asked for.

    One that is bound to every address answers to this machine's own names too (and to addresses, see `is_admitted`).
    """
    if not is_every_address(bound):
        return LOCAL_HOSTS | {host_name(f"[{bound}]" if ":" in bound else bound)}
    own = socket.gethostname().lower()
    return LOCAL_HOSTS | {own, own.partition(".")[0], socket.getfqdn().lower(), "*"}


def is_every_address(bound: str) -> bool:
    """Whether a server bound to this listens on every address of the machine."""
    return _is_address(bound) and ipaddress.ip_address(bound).is_unspecified


def is_admitted(header: str, hosts: Iterable[str]) -> bool:
    """Whether a request with this `Host` header is answered.

    "*" among the hosts admits every literal address: rebinding needs a name, so an address is what the reader typed.
    """
    name = host_name(header)
    admitted = frozenset(hosts)
    return bool(name) and (name in admitted - {"*"} or ("*" in admitted and _is_address(name)))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """ASGI middleware: turns away foreign `Host` headers and adds the security headers to every answer that passes it.

    A HEAD is a GET whose body the server leaves out: whoever only asks whether a page is there is answered.

    The hosts are read from `app.state.hosts` on each request, because they are known only when the server is bound.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        hosts = scope["app"].state.hosts
        if is_admitted(Headers(scope=scope).get("host", ""), hosts):
            asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
            await self._app(asked, receive, send_with_headers)
            return
        names = ", ".join(sorted(hosts - {"*"}))
        refusal = PlainTextResponse(
            f"This site does not answer to that name. Open it as one of: {names}.\n", status_code=421
        )
        await refusal(scope, receive, send_with_headers)
