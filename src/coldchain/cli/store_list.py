"""`coldchain store list`: how each store is, how full, and when it will be."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.table import Column, Table

from coldchain import config
from coldchain.catalog import store_alerts, stores
from coldchain.catalog.engine import open_catalog
from coldchain.cli.console import DEFAULT_CONFIG, ConfigOption, JsonOption, output, plain, print_json
from coldchain.errors import printable
from coldchain.model.retention import counted
from coldchain.model.stores import StoreState
from coldchain.storage.capacity.alerts import days_ahead, in_words
from coldchain.storage.capacity.book import CapacityBook, StoreCapacity
from coldchain.storage.one_device import together
from coldchain.units import byte_size

_NOTHING = "–"
_STALE_SECONDS = 120.0


def list_stores(json: JsonOption = False, config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """List the stores: how each is, how full, how much is still wanted on it, and when it will be full.

    It shows what the service wrote down when it last looked, every ten seconds while it runs, and says how old that is.

    Example: coldchain store list
    """
    settings = config.load(config_file)
    catalog = open_catalog(settings.catalog.url, settings.facility.site, settings.facility.name)
    try:
        found = CapacityBook(catalog).of(stores.all_stores(catalog))
        alerts = store_alerts.standing(catalog)
    finally:
        catalog.close()
    ours = {store.name for store in settings.store}
    known = {one.state.name for one in found if one.state.site == settings.facility.site}
    if json:
        print_json([_as_json(one, datetime.now(UTC)) for one in found])
        return
    table = Table(Column("store", overflow="fold"), "tier", Column("where", overflow="fold"), "state")
    for name in ("used", "free", "wanted", "full in"):
        table.add_column(name, justify="right")
    for one in found:
        _add(table, one, is_listed=one.state.site != settings.facility.site or one.state.name in ours)
    for store in settings.store:
        if store.name not in known:
            table.add_row(plain(store.name), store.tier, plain(store.url), "never seen: start `coldchain run` once")
    output.print(table)
    for one in found:
        if one.state.trouble:
            output.print(f"{printable(one.state.name)}: {printable(one.state.trouble)}", markup=False, highlight=False)
    for words in settings.copy_plan().gaps():
        output.print(words, markup=False, highlight=False)
    for words in together(settings.store):
        output.print(printable(words), markup=False, highlight=False)
    for alert in alerts:
        output.print(alert.words, markup=False, highlight=False)


def _add(table: Table, one: StoreCapacity, *, is_listed: bool) -> None:
    state, now = one.state, datetime.now(UTC)
    ahead = days_ahead(one.foretold, now)
    table.add_row(
        plain(state.name),
        state.tier,
        plain(state.url),
        plain(_condition(state, now) if is_listed else "not in facility.toml"),
        _NOTHING if one.used_bytes is None else f"{byte_size(one.used_bytes)} ({100 * (state.used_share or 0):.0f} %)",
        _NOTHING if state.free_bytes is None else byte_size(state.free_bytes),
        _backlog(state),
        plain(_NOTHING if ahead is None else in_words(ahead)),
    )


def _condition(state: StoreState, now: datetime) -> str:
    if state.trouble:
        return "in trouble"
    if state.seen_at is None:
        return "never looked at: start `coldchain run`"
    age = (now - state.seen_at).total_seconds()
    return "well" if abs(age) < _STALE_SECONDS else f"well when last looked at, {_age(age)} ago"


def _age(seconds: float) -> str:
    for unit, length in (("days", 86_400.0), ("hours", 3600.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return counted(round(seconds / 60), "minute")


def _backlog(state: StoreState) -> str:
    """Bytes, and hours at the pace of late, which says nothing while the store is away."""
    if not state.backlog_files:
        return "nothing"
    if state.trouble:
        return f"{byte_size(state.backlog_bytes)} (for how long is unknown while it is away)"
    hours = state.backlog_hours
    return byte_size(state.backlog_bytes) + ("" if hours is None else f" ({_hours(hours)})")


def _hours(hours: float) -> str:
    return f"{hours:,.0f} h" if hours >= 10 else f"{hours:.1f} h"


def _as_json(one: StoreCapacity, now: datetime) -> dict[str, object]:
    state = one.state
    return {
        "store": state,
        "used_bytes": one.used_bytes,
        "others_bytes": one.others_bytes,
        "usage": one.usage,
        "backlog_hours": state.backlog_hours,
        "oldest_wanted": one.oldest_wanted,
        "days_until_full": days_ahead(one.foretold, now),
        "arriving_bytes_per_day": one.foretold.arriving,
        "growing_bytes_per_day": one.foretold.growing,
        "days_seen": one.foretold.days_seen,
        "why_not": one.foretold.why_not,
    }
