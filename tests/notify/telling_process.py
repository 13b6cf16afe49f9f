"""A process that tells what stands in a catalog, to be killed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

from coldchain.catalog.engine import open_catalog
from coldchain.notify.mail import Mail
from coldchain.notify.notifier import Notifier, Receiver
from coldchain.notify.rules import Pace, Rule
from coldchain.service import EventJournal


@dataclass(frozen=True)
class Telling:
    """Which catalog, by which mail server, how often."""

    url: str
    port: int
    pace: Pace


def tell_for_ever(telling: Telling, ready: Connection) -> None:
    """Tell everything of the catalog by mail, until the process is killed; says when it has begun."""
    journal = EventJournal(open_catalog(telling.url, "here"))
    mail = Mail("EM", "127.0.0.1", telling.port, "none", "cold@example.org", ("ada@example.org",))
    notifier = Notifier(journal, [Receiver(Rule("staff"), telling.pace, mail)], ledger=journal, read_seconds=0.02)
    notifier.start()
    ready.send("begun")
    while True:
        time.sleep(60)
