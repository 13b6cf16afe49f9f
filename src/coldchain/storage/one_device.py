"""Which stores lie on one device: its failure takes the copies of all of them. That is told, and may be meant so."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from coldchain.storage.sections import StoreSection

_PATIENCE_SECONDS = 2.0


def together(sections: Iterable[StoreSection]) -> list[str]:
    """Of each device that holds several stores, a sentence that names them. A store on another host or in a bucket, one
    that is not there, and one that does not answer in time are on none."""
    found: dict[str, int] = {}
    # A mount whose server is gone answers to nobody: daemons, so that a process can end all the same.
    asking = [
        threading.Thread(target=_ask, args=(section.name, section.folder, found), daemon=True)
        for section in sections
        if section.folder is not None
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(_PATIENCE_SECONDS)
    names: defaultdict[int, list[str]] = defaultdict(list)
    for name, device in sorted(found.copy().items()):
        names[device].append(name)
    return [
        f"The stores {', '.join(each[:-1])} and {each[-1]} lie on one device: should it fail, their copies are lost "
        "together, although a rule counts them one by one."
        for each in names.values()
        if len(each) > 1
    ]


def _ask(name: str, folder: Path, found: dict[str, int]) -> None:
    try:
        found[name] = folder.stat().st_dev
    except (OSError, ValueError):
        return
