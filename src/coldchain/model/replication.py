"""Two primaries that hold one catalog: what each says of itself, and what of that is not as it should be.

A direction of the replication is looked at on the server that receives it: its reader (MariaDB's IO thread) fetches the
other server's binary log, its applier (the SQL thread) writes the rows. Deciding is here, asking is the catalog's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from coldchain.model.replication_errors import applier_remedy, reader_remedy

LAG_SECONDS = 60


class ReaderState(StrEnum):
    """What the thread does that fetches the other server's binary log."""

    RUNNING = "Yes"
    CONNECTING = "Connecting"
    PREPARING = "Preparing"
    STOPPED = "No"


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of the replication, as its receiver sees it.

    `lag_seconds` is None while nothing is being received. `gtid_mode` is "Slave_Pos", "Current_Pos" or "No". `filters`
    are the rules by which rows are left out, as the server says them.
    """

    source: str
    reader: ReaderState
    is_applying: bool
    lag_seconds: int | None
    reader_error: int
    reader_words: str
    applier_error: int
    applier_words: str
    gtid_mode: str
    filters: tuple[str, ...] = ()

    @property
    def runs(self) -> bool:
        """Whether both threads do their work."""
        return self.reader is ReaderState.RUNNING and self.is_applying


@dataclass(frozen=True, slots=True)
class ServerLook:
    """What one server says of itself.

    `variables` are its settings by name (`SETTINGS`). `written` and `applied` are GTID positions: the last transaction
    of each domain in its binary log, and of what it received. `denied` is the GRANT without which it does not tell.
    """

    version: str
    variables: Mapping[str, str]
    directions: tuple[Direction, ...]
    written: str = ""
    applied: str = ""
    denied: str = ""

    @property
    def domain(self) -> str:
        """The GTID domain in which this server writes."""
        return self.variables.get("gtid_domain_id", "")


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is not as it should be. `key` stays the same while it lasts. `is_error`: rows do not arrive, or
    may be lost; else it is a warning."""

    key: str
    found: str
    remedy: str
    is_error: bool = True

    def __str__(self) -> str:
        return f"{self.found}. {self.remedy}."


@dataclass(frozen=True, slots=True)
class _Setting:
    name: str
    wanted: tuple[str, ...]
    why: str
    is_error: bool = True


_ON = ("1", "ON")
_FLUSH = _Setting(
    "innodb_flush_log_at_trx_commit", ("1",), "a power cut may take rows that were acknowledged as written down"
)
SETTINGS = (
    _Setting("log_bin", _ON, "without a binary log nothing reaches the other server"),
    _Setting("sync_binlog", ("1",), "a power cut may take rows from the binary log that this server keeps"),
    _FLUSH,
    _Setting("gtid_strict_mode", _ON, "a server that was set up wrongly is not noticed before the two differ"),
    _Setting("binlog_format", ("ROW",), "statements may do different things on the two servers"),
    _Setting("binlog_row_image", ("FULL", "FULL_NODUP"), "the other server gets less than whole rows"),
    _Setting("slave_skip_errors", ("OFF",), "rows that cannot be written are left out without a word"),
    _Setting("slave_exec_mode", ("STRICT",), "rows that are missing or there twice are passed over without a word"),
    _Setting("log_slave_updates", _ON, "a backup of this server cannot bring the other one back", is_error=False),
)
IDENTITIES = ("server_id", "gtid_domain_id")


def troubles(
    here: ServerLook, peer: ServerLook | None = None, *, peer_fault: str = "", lag_seconds: float = LAG_SECONDS
) -> list[Trouble]:
    """What is not as it should be, the gravest kind first; of a server alone only what a power cut would take.

    Parameters
    ----------
    peer : the other server, where it was asked; `peer_fault` says why it did not answer.
    lag_seconds : how far a direction may be behind.
    """
    if not here.directions and not here.denied and peer is None and not peer_fault:
        return list(_of_settings("this server", here, [_FLUSH]))
    found = [*_of_server("this server", here, lag_seconds)]
    if peer_fault:
        remedy = "Look whether it runs and can be reached; what is written here reaches it when it is back"
        found.append(Trouble("peer away", f"the other server does not answer: {peer_fault}", remedy))
    if peer is not None:
        found += _of_server("the other server", peer, lag_seconds)
        found += _of_both(here, peer)
    return sorted(found, key=lambda trouble: not trouble.is_error)


def gtid_position(text: str) -> dict[str, int]:
    """ "1-1-100,2-2-50" → the last transaction's number of each domain. What cannot be read is left out."""
    found = {}
    for part in text.replace("\n", "").split(","):
        domain, _, rest = part.strip().partition("-")
        number = rest.rpartition("-")[2]
        if domain.isdigit() and number.isdigit():
            found[domain] = int(number)
    return found


def still_to_come(source: ServerLook, receiver: ServerLook) -> int | None:
    """How many of the transactions that one server wrote itself the other has not applied; None where it is untold."""
    written, applied = gtid_position(source.written), gtid_position(receiver.applied)
    if source.domain not in written:
        return 0 if written else None  # what it has is the other's alone: it has written nothing itself yet
    return max(0, written[source.domain] - applied.get(source.domain, 0))


def _of_server(name: str, look: ServerLook, lag_seconds: float) -> Iterator[Trouble]:
    if look.denied:
        found = f"{name} does not say how its replication is"
        yield Trouble(f"denied {name}", found, f"Let its user ask: {look.denied}", is_error=False)
    elif not look.directions:
        yield Trouble(
            f"none {name}",
            f"{name} receives nothing from another one",
            "Set up its direction: docs/two-primaries.md; if there is to be one server only, take peer_url away",
        )
    for direction in look.directions:
        yield from _of_direction(name, direction, lag_seconds)
    yield from _of_settings(name, look, SETTINGS)


def _of_settings(name: str, look: ServerLook, settings: Iterable[_Setting]) -> Iterator[Trouble]:
    for setting in settings:
        value = look.variables.get(setting.name)
        if value is not None and value.upper() not in setting.wanted:
            yield Trouble(
                f"{setting.name} {name}",
                f"{name} has {setting.name} = {value}: {setting.why}",
                f"Set {setting.name} = {setting.wanted[0]} in its configuration and start it again",
                setting.is_error,
            )


def _of_direction(name: str, direction: Direction, lag_seconds: float) -> Iterator[Trouble]:
    source = direction.source
    if direction.reader is not ReaderState.RUNNING:
        said = f" (error {direction.reader_error}: {direction.reader_words})" if direction.reader_error else ""
        # A link that is cut gives now one number, now another: that is one trouble.
        number = direction.reader_error if direction.reader is ReaderState.STOPPED else 0
        yield Trouble(
            f"reader {number} {name} {source}",
            f"{name} gets nothing from {source}{said}",
            reader_remedy(direction.reader_error, direction.reader is ReaderState.STOPPED),
        )
    if not direction.is_applying:
        said = f" (error {direction.applier_error}: {direction.applier_words})" if direction.applier_error else ""
        yield Trouble(
            f"applier {direction.applier_error} {name} {source}",
            f"{name} does not apply what it gets from {source}{said}",
            applier_remedy(direction.applier_error),
        )
    elif direction.lag_seconds is not None and direction.lag_seconds > lag_seconds:
        yield Trouble(
            f"lag {name} {source}",
            f"{name} is {direction.lag_seconds} s behind {source}",
            "It catches up by itself; if it does not, look at its disk and its load",
            is_error=False,
        )
    if direction.gtid_mode == "No":
        yield Trouble(
            f"gtid {name} {source}",
            f"{name} follows {source} by places in files, not by GTIDs",
            "STOP SLAVE; CHANGE MASTER TO MASTER_USE_GTID = slave_pos; START SLAVE, on it",
        )
    if direction.filters:
        yield Trouble(
            f"filters {name} {source}",
            f"{name} leaves out some of what {source} writes ({', '.join(direction.filters)})",
            "Take the filters away, or see that they touch nothing of the catalog's database",
            is_error=False,
        )


def _of_both(here: ServerLook, peer: ServerLook) -> Iterator[Trouble]:
    for name in IDENTITIES:
        mine, other = here.variables.get(name), peer.variables.get(name)
        if mine is not None and mine == other:
            yield Trouble(
                f"{name} of both",
                f"both servers have {name} = {mine}: neither can tell whose a row is",
                f"Give one of them another {name} and start it again",
            )


def changed(standing: Sequence[str], found: Sequence[Trouble]) -> tuple[list[Trouble], bool]:
    """The troubles that were not told yet, and whether all that were are over."""
    return [trouble for trouble in found if trouble.key not in standing], bool(standing) and not found
