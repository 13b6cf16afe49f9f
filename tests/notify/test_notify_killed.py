"""A process that tells and is killed at any moment: nothing is lost, and what limits its messages holds."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coldchain.catalog import events
from coldchain.catalog.engine import Catalog, open_catalog, upgrade
from coldchain.model.events import Severity
from coldchain.notify.rules import Pace
from tests.forking import forking
from tests.notify.mail_sink import Sink, serving
from tests.notify.notify_givens import WAIT_SECONDS
from tests.notify.telling_process import Telling, tell_for_ever

EVENT = re.compile(r"happened-(\d+)")


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """An empty catalog."""
    url = f"sqlite:///{tmp_path / 'catalog.sqlite'}"
    upgrade(url)
    opened = open_catalog(url, "here")
    yield opened
    opened.close()


@contextmanager
def telling(catalog: Catalog, sink: Sink, pace: Pace) -> Iterator[None]:
    """Another process that tells, killed at the end."""
    context = forking()
    ours, theirs = context.Pipe()
    process = context.Process(target=tell_for_ever, args=(Telling(catalog.url, sink.port, pace), theirs))
    process.start()
    try:
        assert ours.poll(3 * WAIT_SECONDS)
        assert ours.recv() == "begun"
        yield
    finally:
        process.kill()
        process.join(WAIT_SECONDS)
        process.close()


def happen(catalog: Catalog, *numbers: int) -> None:
    """Events of these numbers."""
    for number in numbers:
        events.record(catalog, Severity.WARNING, "alert.raised", f"happened-{number}-")


class Reader:
    """Reads the mails of a sink."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.mails: list[list[int]] = []

    def read(self) -> Counter[int]:
        """How often each event was told up to now."""
        while not self._sink.taken.empty():
            text = self._sink.mail().get_content()
            self.mails.append([int(number) for number in EVENT.findall(text)])
        return Counter(number for mail in self.mails for number in mail)


def until(holds: Callable[[], bool]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + 2 * WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_again_and_again_it_tells_every_event(catalog: Catalog) -> None:
    """Killed at random while events happen and mails go: each event is told, and only what was being told at a kill is
    told twice."""
    chance, pace = random.Random(5), Pace(digest_seconds=0.05)
    with serving(None) as sink:
        reader, kills = Reader(sink), 6
        with telling(catalog, sink, pace):  # the rule begins
            pass
        for turn in range(kills):
            with telling(catalog, sink, pace):
                for number in range(20):
                    happen(catalog, 20 * turn + number)
                    time.sleep(chance.uniform(0, 0.02))
        wanted = set(range(20 * kills))
        with telling(catalog, sink, pace):
            until(lambda: set(reader.read()) == wanted)
    twice = [mail for mail in reader.mails if any(reader.read()[number] > 1 for number in mail)]
    assert len(twice) <= 2 * kills
    assert max(reader.read().values()) <= 2


def test_the_hour_s_limit_holds_over_kills(catalog: Catalog) -> None:
    """Of three messages an hour no more go, however often it is killed; without the limit the rest is told."""
    few = Pace(digest_seconds=0, most_per_hour=3)
    with serving(None) as sink:
        reader = Reader(sink)
        with telling(catalog, sink, few):
            happen(catalog, 0)
            until(lambda: len(reader.read()) == 1)
        for turn in range(1, 6):
            with telling(catalog, sink, few):
                happen(catalog, 2 * turn, 2 * turn + 1)
                time.sleep(0.15)
        reader.read()
        assert len(reader.mails) <= 3
        with telling(catalog, sink, Pace(digest_seconds=0)):
            until(lambda: set(reader.read()) == {0, *range(2, 12)})


def test_what_waited_for_its_digest_at_the_kill_goes_in_one_message(catalog: Catalog) -> None:
    """More events than are read at once, all of them waiting at the kill, are one mail after it."""
    with serving(None) as sink:
        reader = Reader(sink)
        with telling(catalog, sink, Pace(digest_seconds=3600)):
            happen(catalog, 0)
            time.sleep(0.1)
        with catalog.writing() as unit:
            for _ in range(600):
                events.add(unit, Severity.WARNING, "alert.raised", "more")
        with telling(catalog, sink, Pace(digest_seconds=0.01)):
            until(lambda: not sink.taken.empty())
            assert "601 events: 601 warning" in sink.mail()["Subject"]
            assert reader.read() == {}
