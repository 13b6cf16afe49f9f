"""A batch of small files does not ask a store again and again that has failed as a whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from coldchain.model.files import ReplicaState
from coldchain.storage.copies.copying import CopyReport
from coldchain.storage.copies.small import CopyRequest, copy_small
from coldchain.storage.copies.source import SourceVersion
from coldchain.storage.posix.store import PosixStore


def test_a_store_that_fails_as_a_whole_is_asked_once(
    tmp_path: Path, make_store: Callable[[str], PosixStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not answer would hold up the others as often as the batch has files; every file has its reason."""
    requests = []
    for n in range(5):
        path = tmp_path / f"{n}.xml"
        path.write_bytes(b"content")
        status = path.stat()
        version = SourceVersion(status.st_size, status.st_mtime_ns)
        requests.append(CopyRequest(tmp_path, path.name, f"krios/{path.name}", version))
    away, raid = PosixStore("away", tmp_path / "away"), make_store("raid")
    asked: list[str] = []
    receive = PosixStore.receive

    def counted(self: PosixStore, relative, facts):
        asked.append(self.name)
        return receive(self, relative, facts)

    monkeypatch.setattr(PosixStore, "receive", counted)
    reports = copy_small(requests, [away, raid])
    assert asked.count("away") == 1
    for report in reports:
        assert isinstance(report, CopyReport)
        failed, verified = report.outcomes
        assert failed.error is not None
        assert "not there" in str(failed.error)
        assert away.is_at_fault(failed.error)
        assert verified.state is ReplicaState.VERIFIED
