"""The facility's part that copies, in a process of its own that a test may kill.

`python -m tests.faults.worker` imports once and forks for every order that it reads (`Order`, a line of JSON); its
answer is the child's process id. `python -m tests.faults.worker ORDER` carries out one order itself. A worker ends at
SIGTERM after what it has in hand, and with its parent.
"""

from __future__ import annotations

import codecs
import ctypes
import faulthandler
import json
import logging
import os
import signal
import sys
import threading
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from coldchain.catalog.engine import open_catalog, revisions
from coldchain.storage import keeper
from coldchain.storage.copies import backoff, copier, queue
from coldchain.storage.copies.copier import Copier
from coldchain.storage.copies.troubles import Troubles
from coldchain.storage.digests import new_digest
from coldchain.storage.keeper import StoreKeeper
from coldchain.storage.posix.incoming import PosixIncoming
from coldchain.storage.posix.store import PosixStore
from coldchain.storage.readback import ReadBack
from coldchain.storage.ring import Ring
from coldchain.storage.ssh.settings import SshSettings
from coldchain.storage.ssh.store import SshStore
from coldchain.storage.store import Store

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Order:
    """What to work on: a catalog, its site, and stores by name and root.

    `hosts` are the settings of those stores that are on other hosts. `user` is whose rights it has; None: the test's.
    With `pause_at` a file's path, who is about to read a copy back first makes that file and waits until it is gone.
    """

    url: str
    site: str
    stores: dict[str, str]
    log: str
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    user: int | None = None
    pause_at: str | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def as_line(self) -> str:
        """For a worker."""
        return json.dumps(asdict(self))


def carry_out(order: Order) -> None:
    """Copy, and look after the stores, as the service does, until SIGTERM. Waits are shorter than the service's."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if order.user is not None:
        os.setgroups([])
        os.setgid(order.user)
        os.setuid(order.user)
    faulthandler.register(signal.SIGUSR1, os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    logging.basicConfig(filename=order.log, level=logging.INFO, format="%(asctime)s %(threadName)s %(message)s")
    _be_impatient()
    if order.pause_at is not None:
        _pause_before_proving(Path(order.pause_at))
    catalog = open_catalog(order.url, order.site)
    stores = {name: _store(order, name, root) for name, root in order.stores.items()}
    troubles = Troubles(stores)
    parts = [*(StoreKeeper(catalog, store, troubles) for store in stores.values())]
    for part in parts:
        part.start()
    at_work = Copier(catalog, stores, threads=2, troubles=troubles)
    at_work.start()
    while not stopping.wait(0.1):
        if not at_work.alive():
            raise SystemExit("the copier has ended by itself")
    at_work.stop()
    for part in parts:
        part.stop()


def _store(order: Order, name: str, root: str) -> Store:
    if name not in order.hosts:
        return PosixStore(name, Path(root))
    given = dict(order.hosts[name])
    files = {key: Path(given.pop(key)) for key in ("identity_file", "known_hosts_file")}
    return SshStore(name, PurePosixPath(root), SshSettings(**given, **files))


def _be_impatient() -> None:
    backoff.FIRST_WAIT_SECONDS = 0.05
    backoff.LONGEST_WAIT_SECONDS = backoff.LONGEST_STORE_WAIT_SECONDS = 0.3
    copier.POLL_SECONDS = queue._EMPTY_SECONDS = 0.02
    copier._SWEEP_WAIT_SECONDS = 0.1
    keeper.LOOK_SECONDS = 0.1


def _pause_before_proving(at: Path) -> None:
    prove = PosixIncoming.prove

    def prove_later(self: PosixIncoming, sha256: str, ring: Ring) -> ReadBack:
        if not at.with_suffix(".over").exists():
            at.touch()
            while at.exists():
                threading.Event().wait(0.005)
        return prove(self, sha256, ring)

    PosixIncoming.prove = prove_later  # type: ignore[method-assign]


def _serve() -> None:
    digest = new_digest()  # compiled, or loaded, once and not by every child
    digest.update(bytes(1 << 20))
    digest.hexdigest()
    # Another user could not load these where the interpreter lies in a folder of root's.
    codecs.lookup("ascii")
    revisions()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children, and none stays a zombie
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _end_after(Order(**json.loads(line)))
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


def _end_after(order: Order) -> None:
    try:
        carry_out(order)
    except BaseException:  # noqa: BLE001  # a child must not go on in its parent's code
        with Path(order.log).open("a") as log:
            log.write(traceback.format_exc())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        carry_out(Order(**json.loads(sys.argv[1])))
    else:
        _serve()
