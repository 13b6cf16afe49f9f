"""Two primaries that do not keep in step, on the front page."""

from __future__ import annotations

import httpx
import pytest

from coldchain.catalog import replication
from coldchain.model.replication import Direction, ReaderState, ServerLook
from tests.web.planted import Facility


def test_a_stopped_replication_stands_on_the_front_page(
    facility: Facility, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a thread is stopped the front page says so, and what to do; what a server said cannot forge the page."""
    assert "two servers" not in client.get("/").text
    words = "Duplicate entry '<script>' for key"
    stopped = Direction("hpc:3306", ReaderState.RUNNING, False, None, 0, "", 1062, words, "Slave_Pos")
    monkeypatch.setattr(replication, "look", lambda _: ServerLook("10.11-MariaDB", {}, (stopped,)))
    text = client.get("/").text
    assert "two servers" in text and "error 1062" in text and "do not skip it unseen" in text
    assert "<script>'" not in text
