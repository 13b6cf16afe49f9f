"""The page `/stores`, and the same as JSON: how full stores are and will be, what is wanted on them, whose they are.

What lies on a store is summed from an index, at most every ten seconds; whose it is takes longer on a large catalog and
is asked for by the page's script, so that the page does not wait for it (`storage.capacity_book`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import Response

from coldchain.catalog import capacity, sessions, store_alerts, stores
from coldchain.catalog.capacity import Usage, UsageLine
from coldchain.catalog.engine import Catalog
from coldchain.model.identity import digest_of
from coldchain.model.session import Session
from coldchain.model.stores import StoreAlert, StoreState
from coldchain.storage.capacity.alerts import days_ahead, in_words
from coldchain.storage.capacity.book import CapacityBook, StoreCapacity
from coldchain.web.api import stamped
from coldchain.web.encoding import PlainResponse
from coldchain.web.site import Site

POINTS_LIMIT = 400
USAGE_LIMIT = 100


class By(StrEnum):
    """What usage is added up by."""

    SESSION = "session"
    PROJECT = "project"
    KIND = "kind"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a store's bar: its name, its colour's, and how many of how many bytes."""

    name: str
    tone: str
    size_bytes: int
    whole_bytes: int

    @property
    def percent(self) -> float:
        """Its width."""
        return 100 * min(1.0, self.size_bytes / self.whole_bytes) if self.whole_bytes else 0.0


@dataclass(frozen=True, slots=True)
class StoreCard:
    """A store on the page. `parts` is empty where it does not tell how large it is."""

    capacity: StoreCapacity
    alerts: tuple[StoreAlert, ...]
    parts: tuple[Part, ...]
    full: str

    @property
    def state(self) -> StoreState:
        """How it is."""
        return self.capacity.state

    @property
    def key(self) -> str:
        """What its elements on the page are called by."""
        return f"{self.state.site}-{self.state.name}"


def stores_router(site: Site) -> APIRouter:
    """The routes of the stores."""
    router = APIRouter()
    catalog, book = site.catalog, CapacityBook(site.catalog)

    @router.get("/stores")
    def store_page() -> Response:
        stamp = stores_stamp(catalog)
        cards = store_cards(catalog, book)
        return site.page(
            "stores.html",
            here="stores",
            changes_url="/api/stores/changes",
            stamp=stamp,
            cards=cards,
            has_sites=len({card.state.site for card in cards}) > 1,
            kinds=list(By),
        )

    @router.get("/api/stores")
    def store_list() -> Response:
        return PlainResponse([_as_json(card) for card in store_cards(catalog, book)])

    @router.get("/api/stores/changes")
    def changes(request: Request) -> Response:
        return stamped(request, stores_stamp(catalog))

    @router.get("/api/stores/usage")
    def usage(by: By = By.SESSION) -> Response:
        return PlainResponse(usage_rows(by, book.lines(), sessions.list_all(catalog))[:USAGE_LIMIT])

    return router


def store_cards(catalog: Catalog, book: CapacityBook) -> list[StoreCard]:
    """Every site's stores as the page shows them."""
    alerts = store_alerts.standing(catalog)
    now = datetime.now(UTC)
    return [
        StoreCard(
            capacity=one,
            alerts=tuple(a for a in alerts if (a.site, a.store) == (one.state.site, one.state.name)),
            parts=bar(one),
            full=full_words(one, now),
        )
        for one in book.of(stores.all_stores(catalog))
    ]


def bar(one: StoreCapacity) -> tuple[Part, ...]:
    """What takes how much of a store, what is free left out. No part is wider than what is in use."""
    total, used = one.state.total_bytes, one.used_bytes
    if not total or used is None:
        return ()
    usage, left, parts = one.usage, used, []
    others = one.others_bytes or 0
    for name, tone, size_bytes in (
        ("verified copies", "good", usage.size_bytes),
        ("damaged copies", "bad", usage.damaged_bytes),
        ("in the trash", "warn", usage.trash_bytes),
        ("not known to the catalog", "calm", others),
    ):
        part = min(left, size_bytes)  # a copy may take less than its size: file systems compress
        if part or name == "verified copies":
            parts.append(Part(name, tone, part, total))
        left -= part
    return tuple(parts)


def full_words(one: StoreCapacity, now: datetime) -> str:
    """When it is full, or why that is not foretold."""
    ahead = days_ahead(one.foretold, now)
    if ahead is None:
        return f"Not foretold: {one.foretold.why_not}."
    if ahead.middle == 0:
        return "Full with what is wanted on it."
    return f"Full in {in_words(ahead)}."


def stores_stamp(catalog: Catalog) -> str:
    """A text that changes whenever a store, what is said of it, or its samples do."""
    states = stores.all_stores(catalog)
    parts: dict[str, object] = {
        "states": [repr(replace(state, seen_at=None)) for state in states],
        "alerts": [str(alert.id) for alert in store_alerts.standing(catalog)],
        "samples": [str(capacity.newest_sample_at(catalog, (state.site, state.name))) for state in states],
    }
    return digest_of(parts)[:20]


def usage_rows(by: By, lines: Sequence[UsageLine], known: Sequence[Session]) -> list[dict[str, object]]:
    """Usage by what was asked, what takes most first, each with its stores."""
    of = {session.id: session for session in known}
    name_of: dict[By, Callable[[UsageLine], tuple[str, UUID | None]]] = {
        By.SESSION: lambda line: (of[line.session_id].name if line.session_id in of else "", line.session_id),
        By.PROJECT: lambda line: (_project(of.get(line.session_id)), None),
        By.KIND: lambda line: (line.kind, None),
    }
    found: defaultdict[tuple[str, UUID | None], dict[str, Usage]] = defaultdict(dict)
    for line in lines:
        by_store = found[name_of[by](line)]
        by_store[line.store] = by_store.get(line.store, Usage()) + line.usage
    rows: list[tuple[int, dict[str, object]]] = []
    for (name, session_id), by_store in found.items():
        all_bytes = sum(usage.all_bytes for usage in by_store.values())
        rows.append((all_bytes, {"name": name, "session_id": session_id, "all_bytes": all_bytes, "by_store": by_store}))
    return [row for _, row in sorted(rows, key=lambda pair: (-pair[0], str(pair[1]["name"])))]


def _project(session: Session | None) -> str:
    return "" if session is None or session.project is None else session.project.name


def _as_json(card: StoreCard) -> dict[str, object]:
    one = card.capacity
    return {
        "store": one.state,
        "backlog_hours": one.state.backlog_hours,
        "used_bytes": one.used_bytes,
        "others_bytes": one.others_bytes,
        "usage": one.usage,
        "oldest_wanted": one.oldest_wanted,
        "alerts": card.alerts,
        "full": card.full,
        "days_until_full": days_ahead(one.foretold, datetime.now(UTC)),
        "arriving_bytes_per_day": one.foretold.arriving,
        "growing_bytes_per_day": one.foretold.growing,
        "days_seen": one.foretold.days_seen,
        "why_not": one.foretold.why_not,
        "history": _history(one),
        "course": _course(one),
    }


def _history(one: StoreCapacity) -> dict[str, object]:
    """Bytes in use over time, as columns: every so many samples, and the newest."""
    told = [sample for sample in one.samples if sample.total_bytes is not None and sample.free_bytes is not None]
    step = max(1, len(told) // POINTS_LIMIT)
    shown = told[::-1][::step][::-1]
    return {
        "time": [sample.at for sample in shown],
        "used_bytes": [(sample.total_bytes or 0) - (sample.free_bytes or 0) for sample in shown],
        "total_bytes": [sample.total_bytes for sample in shown],
    }


def _course(one: StoreCapacity) -> dict[str, object] | None:
    """Bytes in use as foretold, as columns."""
    course, at = one.foretold.course, one.foretold.at
    if course is None or at is None:
        return None
    return {
        "time": [at + timedelta(days=day) for day in course.days],
        "low": course.low,
        "middle": course.middle,
        "high": course.high,
    }
