"""A process that collects what comes below a root, to be killed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from coldchain.catalog import engine
from coldchain.collect.collector import Collector
from coldchain.collect.completeness import Timing
from coldchain.collect.intake import Intake
from coldchain.model.policy import everywhere
from tests.forking import forking

_START_SECONDS = 120


def _collect_for_ever(url: str, root: Path, scan_seconds: float, ready: Connection) -> None:
    catalog = engine.open_catalog(url, "here")
    intake = Intake(catalog, instrument_name="krios", source_root=root, copies=everywhere(("live",)))
    Collector(root, intake, timing=Timing(settle_seconds=0.1), scan_seconds=scan_seconds).start()
    ready.send("started")
    while True:
        time.sleep(60)


@contextmanager
def collector_process(url: str, root: Path, *, scan_seconds: float) -> Iterator[ForkServerProcess]:
    """A collector in a process of its own, killed at the end."""
    context = forking()
    ours, theirs = context.Pipe()
    process = context.Process(target=_collect_for_ever, args=(url, root, scan_seconds, theirs))
    process.start()
    theirs.close()
    try:
        assert ours.poll(_START_SECONDS), "it did not start"
        assert ours.recv() == "started"
        yield process
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()
