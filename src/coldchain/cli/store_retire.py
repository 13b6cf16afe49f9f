"""`coldchain store retire`, `restore`, `hold`, `release` and `unknown`: what may go, and what must not."""

from __future__ import annotations

import dataclasses
import getpass
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from itertools import starmap
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from coldchain import config
from coldchain.catalog import events, holds, retirement, sessions
from coldchain.catalog.engine import Catalog, open_catalog
from coldchain.cli.console import DEFAULT_CONFIG, ConfigOption, JsonOption, errors, output, plain, print_json
from coldchain.cli.signals import stop_on_signals
from coldchain.config import Settings
from coldchain.errors import ColdchainError, UsageError, printable
from coldchain.model.policy import SOURCE, RetireRule
from coldchain.model.retention import Action, Amount, Decision, Kept, SessionLife, counted, total
from coldchain.service import open_stores
from coldchain.storage.posix.store import PosixStore
from coldchain.storage.retention.clearing import Clearing, Report
from coldchain.storage.retention.retire import LOCK_NAME, Done, Planned, Retirement, Scope
from coldchain.storage.retention.rules import ripe_at
from coldchain.storage.retention.shelves import Shelves
from coldchain.storage.retention.trash import clearing_alone
from coldchain.storage.unknown import unknown_files
from coldchain.units import byte_size

StoreArgument = Annotated[str, typer.Argument(help="The store's name in facility.toml.")]
SessionArgument = Annotated[str, typer.Argument(help="The session's name, or its id.")]
StoreOption = Annotated[str | None, typer.Option("--store", help="Only this store, or `source`; default: all.")]

_REMOVE = "remove for good"
_GRACE_IS_OVER = "its grace time in the trash is over"
_MOST_REASONS = 4
_LONG_AGO = timedelta(days=30)


def retire(
    rule: Annotated[str | None, typer.Option("--rule", help="Only this rule; default: all.")] = None,
    store: StoreOption = None,
    session: Annotated[str | None, typer.Option("--session", help="Only this session; default: all.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it, and do nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config_file: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Show what the rules of facility.toml would clear, and why the rest stays; then, when told so, clear it.

    What is due goes to its store's trash; what is to be announced first is announced. A running service does this by
    itself. Exit status 1 where something that was due could not go.

    Example: coldchain store retire --store live --dry-run
    """
    with _opened(config_file) as (settings, catalog), stop_on_signals() as stopping:
        scope = _scope(settings, catalog, rule, store, session)
        work = _retirement(settings, catalog, stopping)
        with nullcontext() if dry_run else clearing_alone(catalog, settings.origin.parent / LOCK_NAME):
            work.look(finishes=not dry_run)
            plan, trash = work.plan(scope), work.due_in_trash(scope) if rule is None else []
            if not as_json:
                _show_plan(plan, trash)
                _doubt(catalog)
            todo = [each for each in plan if each.decision.action is not Action.KEEP]
            agreed = not dry_run and _agreed(bool(todo or trash), yes=yes, as_json=as_json)
            done = _carry_out(work, scope, todo, shows=not as_json) if agreed else None
    if as_json:
        print_json({"plan": [*map(_as_json, plan), *starmap(_trash_as_json, trash)], "done": done})
    elif done is not None:
        _show_done(done)
    elif not todo and not trash and plan:
        _show_nothing_due(plan, settings.retire_rules())
    elif (todo or trash) and not dry_run:
        errors.print("coldchain: nothing was done; --yes does it.", markup=False, highlight=False)
        raise typer.Exit(1)
    if done is not None and done.kept:
        raise typer.Exit(1)


def restore(
    name: SessionArgument,
    store: StoreOption = None,
    config_file: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Bring a session's files back from the trash, each read and proved, and hold the session so that they stay.

    Exit status 1 where one could not be brought back: something else has its place, it is not whole, or not there.

    Example: coldchain store restore visit42 --store live
    """
    with _opened(config_file) as (settings, catalog), stop_on_signals() as stopping:
        wanted = sessions.by_name(catalog, name)
        _check_store(settings, store)
        with clearing_alone(catalog, settings.origin.parent / LOCK_NAME):
            # Held first: what comes back must not go again before somebody has seen it.
            if not holds.standing(catalog, wanted.id):
                holds.hold(catalog, wanted.id, reason="brought back from the trash", by=_who())
            work = _retirement(settings, catalog, stopping)
            work.look()
            names = work.names if store is None else [store]
            with _bar("restoring", None, shows=not as_json) as work.clearing.tell:
                reports = work.emptying.restore(retirement.life_of(catalog, wanted.id), names)
    if as_json:
        print_json(
            [
                {"store": each, "restored": r.back, "kept": r.kept, "removed_before": r.lost}
                for each, r in reports.items()
            ]
        )
    else:
        _show_restored(wanted.name, wanted.shell_word, reports)
    is_lost = any(report.lost.files for report in reports.values())
    if any(report.kept for report in reports.values()) or (is_lost and not any(r.back.files for r in reports.values())):
        raise typer.Exit(1)


def hold(
    name: SessionArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why, for whoever asks later.")],
    config_file: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Keep everything of a session where it is, in the trash as well, until it is released.

    Example: coldchain store hold visit42 --reason "paper in review"
    """
    if not reason.strip():
        raise UsageError("--reason is empty", expected="words that somebody understands in a year")
    with _opened(config_file) as (_, catalog):
        session = sessions.by_name(catalog, name)
        holds.hold(catalog, session.id, reason=reason, by=_who())
    _say(f"Session {session.name} is held. `coldchain store release {session.shell_word}` lifts it.")


def release(name: SessionArgument, config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Lift what holds a session: the rules count for it again. What they announced before is announced anew.

    Example: coldchain store release visit42
    """
    with _opened(config_file) as (_, catalog):
        session = sessions.by_name(catalog, name)
        lifted = holds.lift(catalog, session.id, by=_who())
    if not lifted:
        raise ColdchainError(f"session {session.name} is not held", remedy="Nothing was changed")
    _say(f"Session {session.name} is no longer held ({'; '.join(each.reason for each in lifted)}).")


def unknown(
    name: StoreArgument,
    config_file: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """List a store's files that the catalog does not know. Nothing is touched.

    Example: coldchain store unknown archive
    """
    with _opened(config_file) as (settings, catalog):
        stores = open_stores(catalog, settings)
        if name not in stores:
            raise _no_store(settings, name)
        found = Amount()
        with _bar("looking", None, shows=not as_json) as tell:
            files = unknown_files(catalog, stores[name], tell=lambda count: tell(Amount(count)))
            for number, each in enumerate(files):
                found += Amount(1, each.size_bytes)
                if as_json:
                    typer.echo("[" if number == 0 else ",")
                    print_json(each)
                else:
                    _say(f"{byte_size(each.size_bytes):>9}  {each.stored_as}")
        if as_json:
            typer.echo("]" if found.files else "[]")
        else:
            _say(f"{found} on {name} that the catalog does not know.")


# -- what the commands share -----------------------------------------------------------------------------------------


@contextmanager
def _opened(config_file: Path) -> Iterator[tuple[Settings, Catalog]]:
    settings = config.load(config_file)
    catalog = open_catalog(settings.catalog.url, settings.facility.site, settings.facility.name)
    try:
        yield settings, catalog
    finally:
        catalog.close()


def _retirement(settings: Settings, catalog: Catalog, stopping: threading.Event) -> Retirement:
    stores = open_stores(catalog, settings)
    shelves = Shelves(catalog, stores, settings.copy_plan().places, lambda root: PosixStore(SOURCE, root))
    return Retirement(Clearing(catalog, shelves, stopping=stopping), settings.retire_rules())


def _scope(settings: Settings, catalog: Catalog, rule: str | None, store: str | None, session: str | None) -> Scope:
    names = [each.name for each in settings.retire_rules()]
    if not names:
        raise UsageError("facility.toml has no rule that clears anything", remedy="Add a [[retire]]")
    if rule is not None and rule not in names:
        raise UsageError(f"there is no rule {rule!r}", expected=f"one of: {', '.join(names)}")
    _check_store(settings, store)
    return Scope(rule, store, None if session is None else sessions.by_name(catalog, session).id)


def _check_store(settings: Settings, store: str | None) -> None:
    if store not in (None, SOURCE, *(each.name for each in settings.store)):
        raise _no_store(settings, str(store))


def _no_store(settings: Settings, name: str) -> UsageError:
    known = ", ".join(store.name for store in settings.store)
    return UsageError(f"there is no store {name!r}", expected=f"one of: {known}")


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return "somebody"


def _agreed(some: bool, *, yes: bool, as_json: bool) -> bool:
    """Whether it is to be done, where there is something: nothing is done without a word that says so."""
    if yes or not some:
        return some
    if as_json or not output.is_terminal:
        return False
    return typer.confirm("Do this?", default=False)


def _carry_out(work: Retirement, scope: Scope, todo: list[Planned], *, shows: bool) -> Done:
    due = total(each.decision.amount for each in todo if each.decision.action is Action.RETIRE)
    with _bar("confirming and clearing", due.size_bytes, shows=shows) as work.clearing.tell:
        done = work.empty_trash(scope) if scope.rule is None else Done()
        return work.carry_out(scope, done=done)


@contextmanager
def _bar(what: str, size_bytes: int | None, *, shows: bool) -> Iterator[Callable[[Amount], None]]:
    """A bar where somebody looks; without a size it counts files."""
    if not (shows and output.is_terminal):
        yield lambda _: None
        return
    from rich.progress import Progress  # as long to import as a small session to list

    with Progress(console=errors, transient=True) as bars:
        task = bars.add_task(what, total=size_bytes)
        yield lambda amount: bars.advance(task, amount.files if size_bytes is None else amount.size_bytes)


# -- what is shown ---------------------------------------------------------------------------------------------------


def _show_plan(plan: list[Planned], trash: list[tuple[str, SessionLife, Amount]]) -> None:
    table = Table("session", "from", "rule", "what", "files", "bytes", Column("why", overflow="fold"))
    for each in plan:
        decision = each.decision
        if decision.action is Action.KEEP and not decision.amount.files:
            continue
        on = "" if decision.due_at is None else f" on {decision.due_at:%Y-%m-%d %H:%M} UTC"
        table.add_row(
            plain(decision.session.name),
            plain(decision.store),
            plain(decision.rule),
            decision.action + on,
            f"{decision.amount.files:,}",
            byte_size(decision.amount.size_bytes),
            plain(decision.reason),
        )
    for store, session, amount in trash:
        size = byte_size(amount.size_bytes)
        table.add_row(plain(session.name), plain(store), "", _REMOVE, f"{amount.files:,}", size, _GRACE_IS_OVER)
    if table.row_count:
        output.print(table)
    kept: Counter[tuple[str, str]] = Counter()
    names: defaultdict[tuple[str, str], Kept] = defaultdict(Kept)
    for each in plan:
        for reason, count in each.kept.items():
            kept[each.decision.store, reason] += count
            names[each.decision.store, reason].merge(each.kept.only(reason))
    for (store, reason), count in kept.most_common():
        few = names[store, reason].names(reason)
        _say(f"{counted(count, 'file stays', 'files stay')} on {store}: {reason} ({few}).")
    whole = Counter((p.decision.store, p.decision.reason) for p in plan if _stays_whole(p))
    for (store, reason), count in whole.most_common():
        _say(f"{counted(count, 'session stays', 'sessions stay')} on {store}: {reason}.")
    if not plan and not trash:
        _say("No rule has anything to clear.")


def _stays_whole(planned: Planned) -> bool:
    return planned.decision.action is Action.KEEP and not planned.decision.amount.files


def _doubt(catalog: Catalog) -> None:
    newest = events.newest_own(catalog)
    if newest is not None and abs(datetime.now(UTC) - newest.at) > _LONG_AGO:
        errors.print(f"The newest event is of {newest.at:%Y-%m-%d}: is this machine's clock right?", soft_wrap=True)


def _show_done(done: Done) -> None:
    if done.removed.files:
        _say(f"{done.removed} {_are(done.removed)} removed for good.")
    if done.trashed.files:
        _say(f"{done.trashed} {_were(done.trashed)} moved to the trash.")
    if done.announced:
        _say(f"{done.announced:,} announced.")
    if not (done.removed.files or done.trashed.files or done.announced):
        _say("Nothing was moved or removed.")
    _show_kept(done.kept, "")


def _show_kept(kept: Kept, where: str) -> None:
    """On standard error, why files stay, and which."""
    reasons = kept.most_common()
    for reason, count in reasons[:_MOST_REASONS]:
        line = f"{counted(count, 'file stays', 'files stay')}{where}: {printable(reason)} ({kept.names(reason)})"
        errors.print(line, markup=False, highlight=False, soft_wrap=True)
    if rest := sum(count for _, count in reasons[_MOST_REASONS:]):
        line = f"{counted(rest, 'file stays', 'files stay')}{where} for other reasons; --json has them all"
        errors.print(line, markup=False, highlight=False, soft_wrap=True)


def _are(amount: Amount) -> str:
    return "is" if amount.files == 1 else "are"


def _were(amount: Amount) -> str:
    return "was" if amount.files == 1 else "were"


def _show_nothing_due(plan: list[Planned], rules: Sequence[RetireRule]) -> None:
    """Say that nothing is due, and what will be next."""
    _say("Nothing is due now.")
    by_name = {rule.name: rule for rule in rules}
    coming: list[tuple[datetime, Decision]] = []
    for each in plan:
        decision = each.decision
        at = decision.due_at or ripe_at(by_name[decision.rule], decision.session, decision.store)
        if at is not None and decision.action is Action.KEEP:
            coming.append((at, decision))
    if coming:
        at, decision = min(coming, key=lambda pair: pair[0])
        what = "what is announced of" if decision.due_at else "what may go of"
        _say(f"Next: {what} session {decision.session.name} on {decision.store}, from {at:%Y-%m-%d %H:%M} UTC on.")


def _show_restored(name: str, shell_word: str, reports: dict[str, Report]) -> None:
    back = total(report.back for report in reports.values())
    if back.files:
        _say(f"{back} of {name} {_are(back)} back, whole.")
    else:
        _say(f"Nothing of {name} came back from a trash.")
    for store, report in reports.items():
        for reason, count in report.kept.items():
            line = f"{counted(count, 'file')} on {store} did not come back: {printable(reason)}"
            errors.print(f"{line} ({report.kept.names(reason)})", markup=False, highlight=False, soft_wrap=True)
        if report.lost.files:
            _say(f"{report.lost} {_were(report.lost)} removed from {store} before, and cannot come back from there.")
    _say(f"The session is held: `coldchain store release {shell_word}` lets the rules clear it again.")


def _as_json(planned: Planned) -> dict[str, object]:
    decision = planned.decision
    return {
        "session": decision.session.name,
        "session_id": decision.session.id,
        **{key: getattr(decision, key) for key in ("store", "rule", "action", "reason", "due_at")},
        **dataclasses.asdict(decision.amount),
        "kept": dict(planned.kept),
    }


def _trash_as_json(store: str, session: SessionLife, amount: Amount) -> dict[str, object]:
    return {
        "session": session.name,
        "session_id": session.id,
        "store": store,
        "action": _REMOVE,
        "reason": _GRACE_IS_OVER,
        **dataclasses.asdict(amount),
    }


def _say(text: str) -> None:
    output.print(printable(text), markup=False, highlight=False, soft_wrap=True)
