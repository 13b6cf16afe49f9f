"""A real mail server that keeps what it takes."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword

from tests.notify.notify_givens import Identity

PASSWORD = "correct-horse-battery"


@dataclass
class Sink:
    """A mail server's insides: it keeps what it takes."""

    port: int = 0
    taken: queue.Queue[Envelope] = field(default_factory=queue.Queue)
    logins: list[tuple[bytes, bytes]] = field(default_factory=list)
    refuses: dict[str, str] = field(default_factory=dict)
    answer: str = "250 taken"

    async def handle_RCPT(  # noqa: N802  # aiosmtpd's hook
        self, server: Any, session: Any, envelope: Envelope, address: str, options: Any
    ) -> str:
        """Take the address or not."""
        if address in self.refuses:
            return self.refuses[address]
        envelope.rcpt_tos.append(address)
        return "250 fine"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802
        """Take the mail or not."""
        if self.answer.startswith("250"):
            self.taken.put(envelope)
        return self.answer

    def login(self, server: Any, session: Any, envelope: Any, mechanism: str, data: LoginPassword) -> AuthResult:
        """Let one user in."""
        self.logins.append((data.login, data.password))
        return AuthResult(success=data == LoginPassword(b"cold", PASSWORD.encode()), handled=False)

    def mail(self) -> EmailMessage:
        """The mail that was taken, parsed."""
        raw = self.taken.get(timeout=20).content
        assert isinstance(raw, bytes)
        mail = message_from_bytes(raw, policy=SMTP_POLICY)
        assert isinstance(mail, EmailMessage)
        return mail


@contextmanager
def serving(identity: Identity | None, *, tls: bool = False, login: bool = False) -> Iterator[Sink]:
    """A real SMTP server on 127.0.0.1: with STARTTLS where there is an identity, or TLS from the beginning."""
    sink = Sink()
    context = None if identity is None else identity.context()
    options: dict[str, Any] = {"authenticator": sink.login, "auth_required": True} if login else {}
    if context is not None and not tls:
        options |= {"tls_context": context, "require_starttls": True}
    elif tls:
        options |= {"auth_require_tls": False}  # it is asked of STARTTLS only
    loop = asyncio.new_event_loop()

    def protocol() -> SMTP:
        return SMTP(sink, hostname="localhost", enable_SMTPUTF8=False, loop=loop, **options)

    listening = loop.create_server(protocol, "127.0.0.1", 0, ssl=context if tls else None)
    server = loop.run_until_complete(listening)
    sink.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield sink
    finally:
        asyncio.run_coroutine_threadsafe(end_all(server), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


async def end_all(server: asyncio.Server) -> None:
    """End the server, in the thread that it belongs to, and every conversation that is left."""
    server.close()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
