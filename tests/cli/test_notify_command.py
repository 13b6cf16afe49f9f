"""`coldchain notify test`: a message that goes out, and one that cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.answer import Typed
from tests.notify.notify_givens import WebServer, dead_port

RULE = '[[notify]]\nname = "chat"\n[notify.webhook]\nurl_file = "chat.url"\n'


@pytest.fixture
def facility(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A facility.toml with one rule."""
    (tmp_path / "facility.toml").write_text(RULE)
    monkeypatch.setenv("COLDCHAIN_CONFIG", str(tmp_path / "facility.toml"))
    return tmp_path


def test_a_test_message_arrives_and_is_said_to(facility: Path, typed: Typed) -> None:
    """The receiver has it, and the command says so without the URL."""
    with WebServer() as server:
        (facility / "chat.url").write_text(f"http://127.0.0.1:{server.port}/XyZZy")
        answer = typed("notify", "test", "chat")
        posted = server.posted.get(timeout=20)
    assert answer.status == 0
    assert answer.out.startswith("chat: webhook: handed over in ")
    assert "notify.test" in json.loads(posted.body)["text"]
    assert "XyZZy" not in answer.out + answer.err


def test_what_cannot_be_sent_is_said_with_its_reason(facility: Path, typed: Typed) -> None:
    """No file, nobody there, no such rule: status 1, one sentence, no secret."""
    assert typed("notify", "test", "chat").status == 1
    (facility / "chat.url").write_text(f"http://127.0.0.1:{dead_port()}/XyZZy")
    answer = typed("notify", "test", "chat")
    assert answer.status == 1
    assert "chat: webhook: Connection refused" in answer.err
    assert "XyZZy" not in answer.err
    answer = typed("notify", "test", "chta")
    assert answer.status == 1
    assert "one of: chat" in answer.err
