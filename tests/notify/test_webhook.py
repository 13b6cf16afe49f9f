"""Webhooks to a real HTTP server, and what becomes of its refusals and of the secret URL."""

from __future__ import annotations

import json
import math
import socket
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest

from coldchain.errors import DeliveryError, RefusedError
from coldchain.notify.channel import BusyError
from coldchain.notify.line import Patience
from coldchain.notify.secret import Secret
from coldchain.notify.webhook import Webhook, _pause_seconds
from tests.notify.notify_givens import HOSTILE, Identity, WebServer, answering, batch, dead_port, notice, read_all

TOKEN = "/services/T0123/B4567/XyZZySecretToken"


def to(url: str, monkeypatch: pytest.MonkeyPatch, ca_file: Path | None = None, **patience: float) -> Webhook:
    """A webhook whose URL is in the environment."""
    monkeypatch.setenv("HOOK", url)
    return Webhook(
        "EM", Secret("url_variable", variable="HOOK"), ca_file, Patience(**({"total_seconds": 10} | patience))
    )


def test_a_message_is_posted_as_json_over_tls(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path and query of the URL, the type, and an object with the text; a certificate of one's own is trusted."""
    with WebServer(identity) as server:
        url = f"https://localhost:{server.port}{TOKEN}?x=1"
        assert to(url, monkeypatch, identity.certificate).send(batch(notice(message=HOSTILE))) == []
        posted = server.posted.get(timeout=20)
        with pytest.raises(DeliveryError, match="ca_file"):
            to(url, monkeypatch).send(batch())
        assert server.posted.empty()
    assert (posted.path, posted.content_type) == (f"{TOKEN}?x=1", "application/json")
    said = json.loads(posted.body)
    assert list(said) == ["text"]
    assert "&lt;!channel&gt;" in said["text"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, DeliveryError) for status in (500, 503, 429, 404, 301)),
        *((status, RefusedError) for status in (400, 413, 422)),
    ],
)
def test_an_answer_that_is_no_yes_is_said(
    status: int, kind: type[DeliveryError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a fault of the message itself is final. The server's words are shown, without the URL."""
    with WebServer(says=f"no, not {TOKEN}\n".encode()) as server:
        server.statuses = [status]
        with pytest.raises(DeliveryError, match=f"the answer is {status} no, not") as caught:
            to(f"http://127.0.0.1:{server.port}{TOKEN}", monkeypatch).send(batch())
    assert type(caught.value) is kind
    assert "XyZZy" not in "".join(traceback.format_exception(caught.value))


def http_date(seconds: float) -> str:
    """That time (Unix seconds) as HTTP writes it."""
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


@pytest.mark.parametrize("status", [429, 503, 500])
def test_a_server_that_says_when_to_come_again_is_obeyed(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry-After of 429 and 503, as seconds and as a date; of other answers it does not count."""
    for says, least, most in (("120", 120, 120), (http_date(time.time() + 1000), 800, 1001)):
        with WebServer(headers={"Retry-After": says}) as server:
            server.statuses = [status]
            with pytest.raises(DeliveryError, match=f"the answer is {status}") as caught:
                to(f"http://127.0.0.1:{server.port}{TOKEN}", monkeypatch).send(batch())
        assert caught.value.retry
        pause = caught.value.pause_seconds if isinstance(caught.value, BusyError) else 0
        assert (pause == 0) if status == 500 else (least <= pause <= most)


def test_nonsense_in_place_of_a_time_asks_for_nothing() -> None:
    """Fractions, words, dates that are past or none; of a number without end nothing is computed."""
    for says in ("0", "-5", "1.5", "soon", "", "²", http_date(1.0), "Wed, 99 Nov 99999999999 99:99:99 GMT", "x" * 9000):
        assert _pause_seconds(says, 1e9) == 0
    assert _pause_seconds(" 7 ", 1e9) == 7
    assert _pause_seconds(http_date(1e9 + 60).replace(" GMT", ""), 1e9) == 60
    assert _pause_seconds("9" * 9000, 1e9) == math.inf


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(
    status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither to another host nor on the same one: nobody else gets the message, and the error names no place."""
    with WebServer() as other, WebServer(headers={"Location": f"http://localhost:{other.port}{TOKEN}"}) as server:
        server.statuses = [status]
        with caplog.at_level(0), pytest.raises(DeliveryError, match=f"the answer is {status}") as caught:
            to(f"http://127.0.0.1:{server.port}{TOKEN}", monkeypatch).send(batch())
    assert server.posted.qsize() == 1
    assert other.posted.empty()
    assert "XyZZy" not in "".join(traceback.format_exception(caught.value)) + caplog.text


def hang(line: socket.socket) -> None:
    """Never say a word."""
    read_all(line)


def dribble(line: socket.socket) -> None:
    """Send headers without end, byte by byte."""
    line.recv(100_000)
    line.sendall(b"HTTP/1.1 200 ")
    while True:
        line.sendall(b"x")
        time.sleep(0.02)


def babble(line: socket.socket) -> None:
    """Say what is not HTTP."""
    line.recv(100_000)
    line.sendall(b"this is no HTTP " + TOKEN.encode() + b"\r\n\r\n")


@pytest.mark.parametrize(("answer", "says"), [(hang, "in time"), (dribble, "0.4 s"), (babble, "not HTTP")])
def test_a_server_that_hangs_or_talks_nonsense_is_given_up(
    answer: Callable[[socket.socket], None], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a stated failure in bounded time that a retry may mend, and shows nothing of the URL."""
    patience = {"answer_seconds": 0.2 if answer is hang else 5.0, "total_seconds": 0.4 if answer is dribble else 10.0}
    with answering(answer) as port, pytest.raises(DeliveryError, match=says) as caught:
        to(f"http://127.0.0.1:{port}{TOKEN}", monkeypatch, **patience).send(batch())
    assert caught.value.retry
    assert "XyZZy" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/XyZZy",
        "ftp://example.org/XyZZy",
        "XyZZy",
        "https://[XyZZy",
        "https://",
        "https://h:XyZZy/",
        "https://h:99999/XyZZy",
        "https://u:XyZZy@h/",
        "https://h/a XyZZy",
        "",
        "XyZZy\x01",
        "https://ü/XyZZy",
        "https://" + "XyZZy" * 20 + "/",
    ],
)
def test_what_is_no_url_of_https_is_said_but_not_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TLS a secret goes only to this machine itself; a mistake in the URL does not bring it into the log."""
    with pytest.raises(DeliveryError) as caught:
        to(url, monkeypatch).send(batch())
    assert "XyZZy" not in "".join(traceback.format_exception(caught.value))


def test_nobody_there_is_a_stated_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection may be taken tomorrow."""
    with pytest.raises(DeliveryError, match="refused"):
        to(f"http://127.0.0.1:{dead_port()}{TOKEN}", monkeypatch).send(batch())


def test_a_secret_that_cannot_be_read_is_said_by_the_key_that_names_it(tmp_path: Path) -> None:
    """Missing, a folder, a name with a NUL, empty, binary or endless: who wrote the secret as the name does not find
    it in the log."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "endless").write_bytes(b"x" * 10_000)
    for name in ("XyZZy", ".", "a\0XyZZy", "empty", "binary", "endless"):
        with pytest.raises(DeliveryError, match="url_file") as caught:
            Secret("url_file", file=tmp_path / name).read()
        assert "XyZZy" not in "".join(traceback.format_exception(caught.value))
    (tmp_path / "good").write_text("s3cret\r\nsecond line\n")
    assert Secret("url_file", file=tmp_path / "good").read() == "s3cret"
    assert "good" not in repr(Secret("url_file", file=tmp_path / "good"))
