"""The facility as a service tells what happens."""

from __future__ import annotations

import socket
from pathlib import Path

from coldchain.catalog import events
from coldchain.model.events import Severity
from tests.facility import make_facility

RULE = """
[[notify]]
name = "log"
events = ["exposure.quarantined", "alert.*"]
[notify.syslog]
address = "{path}"
"""


def test_a_quarantined_exposure_reaches_syslog_once_and_a_restart_tells_what_came_meanwhile(tmp_path: Path) -> None:
    """A file that is no movie is told as a line; what happens while the service is down is told after its start."""
    facility = make_facility(tmp_path / "facility")
    path = str(tmp_path / "log")
    with facility.config_file.open("a") as file:
        file.write(RULE.format(path=path))
    with facility.catalog() as catalog:
        events.record(catalog, Severity.WARNING, "alert.raised", "before the first start")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        receiver.settimeout(120)
        with facility.running():
            bad = facility.camera / "visit" / "bad.tif"
            bad.parent.mkdir()
            bad.write_bytes(b"MZ this is no TIFF at all" * 100)
            line = receiver.recv(4096)
        assert b" exposure.quarantined: scope / visit: bad is quarantined" in line
        with facility.catalog() as catalog:
            events.record(catalog, Severity.WARNING, "alert.raised", "meanwhile")
            events.record(catalog, Severity.INFO, "alert.ended", "not so severe")
        with facility.running():
            assert receiver.recv(4096).endswith(b" alert.raised: meanwhile")
        receiver.setblocking(False)
        left = []
        while True:
            try:
                left.append(receiver.recv(4096))
            except BlockingIOError:
                break
        assert left == []
