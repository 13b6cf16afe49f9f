"""E-mail to a real SMTP server, with TLS and login, and to servers that fail in every way."""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coldchain.errors import DeliveryError, RefusedError
from coldchain.notify.line import Patience
from coldchain.notify.mail import Mail
from coldchain.notify.secret import Secret
from tests.notify.mail_sink import PASSWORD, serving
from tests.notify.notify_givens import HOSTILE, Identity, answering, batch, dead_port, notice, read_all


@pytest.fixture
def password(tmp_path: Path) -> Secret:
    """The right password, in a file."""
    (tmp_path / "password").write_text(PASSWORD + "\n")
    return Secret("password_file", file=tmp_path / "password")


def by(port: int, identity: Identity | None = None, **other: Any) -> Mail:
    """Mail by the server at that port."""
    return Mail(
        facility="EM",
        host="localhost" if identity else "127.0.0.1",
        port=port,
        security=other.pop("security", "starttls" if identity else "none"),
        sender="cold@example.org",
        to=other.pop("to", ("ada@example.org",)),
        ca_file=identity.certificate if identity else None,
        patience=Patience(answer_seconds=5, total_seconds=10),
        **other,
    )


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # aiosmtpd means STARTTLS
@pytest.mark.parametrize("tls", [False, True])
def test_a_mail_goes_by_tls_and_login(identity: Identity, password: Secret, tls: bool) -> None:
    """By STARTTLS, and by TLS from the beginning: the server has seen the login, and the mail says it all."""
    with serving(identity, tls=tls, login=True) as sink:
        mail = by(sink.port, identity, security="tls" if tls else "starttls", user="cold", password=password)
        assert mail.send(batch(notice(message="größer"))) == []
        taken = sink.mail()
    assert sink.logins == [(b"cold", PASSWORD.encode())]
    assert taken["Subject"] == "[EM] alert.raised: krios / visit: größer"
    assert "größer" in taken.get_content()


def test_hostile_texts_make_one_mail_to_whom_it_is_meant(identity: Identity) -> None:
    """Line breaks, a lone dot, SMTP commands and headers in a message reach the reader as text."""
    with serving(None) as sink:
        by(sink.port).send(batch(notice(message=HOSTILE, session=HOSTILE), notice(2, message=".")))
        envelope = sink.taken.get(timeout=20)
        assert sink.taken.empty()
    assert envelope.rcpt_tos == ["ada@example.org"]
    assert b"\nBcc:" not in envelope.content


def test_without_the_tls_that_was_asked_for_nothing_is_sent(identity: Identity, password: Secret) -> None:
    """A server that offers no STARTTLS, and one whose certificate is not trusted, get neither mail nor password."""
    with serving(None) as sink:
        with pytest.raises(DeliveryError, match="STARTTLS"):
            by(sink.port, security="starttls").send(batch())
        assert sink.taken.empty()
    with serving(identity, login=True) as sink:
        mail = by(sink.port, identity, user="cold", password=password)
        with pytest.raises(DeliveryError, match="ca_file"):
            replace(mail, ca_file=None).send(batch())
        assert sink.logins == []


def test_a_wrong_password_is_said_but_not_shown(identity: Identity, tmp_path: Path) -> None:
    """The error tells that the login failed; neither it nor its traceback has the password."""
    (tmp_path / "wrong").write_text("hunter2-hunter2")
    with serving(identity, login=True) as sink:
        secret = Secret("password_file", file=tmp_path / "wrong")
        with pytest.raises(DeliveryError, match="login is refused") as caught:
            by(sink.port, identity, user="cold", password=secret).send(batch())
    assert caught.value.retry
    assert "hunter2" not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


def test_some_addresses_are_refused_and_the_others_told() -> None:
    """The mail goes to who can be reached; who cannot is named with the server's words. With nobody left it fails."""
    with serving(None) as sink:
        sink.refuses["bob@example.org"] = "550 who is that"
        complaints = by(sink.port, to=("bob@example.org", "ada@example.org")).send(batch())
        assert complaints == ["bob@example.org: 550 who is that"]
        assert sink.taken.get(timeout=20).rcpt_tos == ["ada@example.org"]
        with pytest.raises(DeliveryError, match="no address is taken"):
            by(sink.port, to=("bob@example.org",)).send(batch())


def test_what_the_server_will_never_take_is_told_from_what_it_does_not_take_now() -> None:
    """554 to the mail itself is refused for good, 451 is to be tried again."""
    with serving(None) as sink:
        sink.answer = "554 spam"
        with pytest.raises(RefusedError, match="554 spam"):
            by(sink.port).send(batch())
        sink.answer = "451 later"
        with pytest.raises(DeliveryError, match="451 later") as caught:
            by(sink.port).send(batch())
    assert caught.value.retry


def hang(line: socket.socket) -> None:
    """Never say a word."""
    read_all(line)


def dribble(line: socket.socket) -> None:
    """Be busy for ever: each byte comes in time, and the greeting never ends."""
    while True:
        line.sendall(b"2")
        time.sleep(0.02)


def drop(line: socket.socket) -> None:
    """Hang up in the middle."""
    line.sendall(b"220 hello\r\n")
    line.recv(1000)


def busy(line: socket.socket) -> None:
    """Have no time."""
    line.sendall(b"421 too busy\r\n")


def echo_the_login(line: socket.socket) -> None:
    """Say again what was said, password and all."""
    line.sendall(b"220 hello\r\n")
    line.recv(1000)
    line.sendall(b"250-hello\r\n250 AUTH PLAIN\r\n")
    line.sendall(b"535 bad: " + line.recv(1000).strip() + f" {PASSWORD}\r\n".encode())
    line.recv(1000)


@pytest.mark.parametrize(
    ("answer", "says"), [(hang, "timed out"), (dribble, "0.4 s"), (drop, "closed"), (busy, "421 too busy")]
)
def test_a_server_that_hangs_or_leaves_is_given_up_in_time(answer: Callable[[socket.socket], None], says: str) -> None:
    """Silence, endless slowness, a lost connection and a refusal are stated failures that a retry may mend."""
    with answering(answer) as port:
        patience = Patience(answer_seconds=0.2 if answer is hang else 5, total_seconds=0.4 if answer is dribble else 10)
        with pytest.raises(DeliveryError, match=says) as caught:
            replace(by(port), patience=patience).send(batch())
    assert caught.value.retry


def test_nobody_there_is_a_stated_failure() -> None:
    """A refused connection, and a host that nobody knows."""
    with pytest.raises(DeliveryError, match="refused"):
        by(dead_port()).send(batch())
    with pytest.raises(DeliveryError):
        replace(by(25), host="x" * 80 + ".invalid").send(batch())


def test_a_server_that_says_the_password_again_does_not_bring_it_into_an_error(password: Secret) -> None:
    """What it said is shown without the password, plain or in base64."""
    with answering(echo_the_login) as port, pytest.raises(DeliveryError) as caught:
        by(port, user="cold", password=password).send(batch())
    shown = "".join(traceback.format_exception(caught.value))
    assert "535 bad: AUTH PLAIN [secret] [secret]" in shown
    assert PASSWORD not in shown
