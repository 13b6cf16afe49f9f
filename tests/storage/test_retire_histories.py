"""Random histories of copies, damage, stores that go away, holds, kills, clocks and clearing: nothing is lost by it.

Whatever happens, no copy is moved or removed while fewer whole copies than the rule wants lie on other stores, and none
without these having been confirmed in the same pass; and clearing comes to an end.
"""

# ruff: noqa: D102  # a rule's name says what happens

from __future__ import annotations

import hashlib
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coldchain.catalog import holds, replicas, retirement
from coldchain.model.files import DataFile, ReplicaState
from coldchain.model.session import Session, SessionState
from tests.storage.clearing_givens import Facility, quick_catalog
from tests.storage.clearing_givens import rule as retire_rule

STORES = st.sampled_from(["live", "tape", "cloud"])


class Killed(BaseException):
    """The process was killed here."""


class Histories(RuleBasedStateMachine):
    """A facility to which things happen."""

    @initialize(
        copies=st.integers(1, 2),
        warn_days=st.sampled_from([0.0, 2.0]),
        grace_days=st.sampled_from([0.0, 3.0]),
        places=st.sampled_from([("live",), ("live", "archive"), ("live", "archive", "cloud")]),
    )
    def begin(self, copies: int, warn_days: float, grace_days: float, places: tuple[str, ...]) -> None:
        self.until_the_end = ExitStack()
        self.catalog = self.until_the_end.enter_context(quick_catalog())
        camera = Path(self.until_the_end.enter_context(tempfile.TemporaryDirectory()))
        self.copies = copies
        self.facility = Facility(
            self.catalog,
            camera,
            [retire_rule(copies=copies, warn_days=warn_days, grace_days=grace_days, places=places)],
        )
        self.kill_at = -1
        for store in self.facility.stores.values():
            store.before = self.watch
        self.sessions: list[Session] = [self.facility.session(f"s{number}") for number in range(2)]
        self.files: list[tuple[DataFile, bytes]] = []
        self.in_pass = False
        self.add(0, {"live", "tape", "cloud"})

    def watch(self, store: str, what: str, stored_as: str) -> None:
        """Before anything is moved or removed: there are enough others, and they were confirmed in this pass."""
        if not self.in_pass:
            return
        self.kill_at -= 1
        if self.kill_at == 0:
            raise Killed
        content = self.facility.stores[store].content.get(stored_as)
        forward = what == "remove" or (what == "move" and not stored_as.startswith(".coldchain-trash/"))
        if not forward or content is None:
            return
        confirmed = {where for where, done, _ in self.facility.log if done == "confirmed"}
        whole = {
            name
            for name, other in self.facility.stores.items()
            if name != store and any(c == content and not n.startswith(".") for n, c in other.content.items())
        }
        assert len(whole & confirmed) >= self.copies, (store, what, stored_as)

    @rule(which=st.integers(0, 1), on=st.sets(STORES))
    @precondition(lambda self: len(self.files) < 5)
    def add(self, which: int, on: set[str]) -> None:
        content = f"file {len(self.files)}".encode()
        wanted = tuple(name for name in ("live", "tape", "cloud") if name not in on)
        file = self.facility.add(
            self.sessions[which], f"{len(self.files)}.tiff", content, on=tuple(sorted(on)), wanted=wanted
        )
        self.files.append((file, content))

    @rule()
    def copier_works(self) -> None:
        for file, content in self.files:
            for copy in replicas.of_file(self.catalog, file.id):
                lacking = copy.state in (ReplicaState.WANTED, ReplicaState.FAILED, ReplicaState.DAMAGED)
                if lacking and not self.facility.stores[copy.store].away:
                    self.facility.make(file, copy.id, copy.store, content)

    @rule(store=STORES, number=st.integers(0, 9), lost=st.booleans())
    def damage(self, store: str, number: int, lost: bool) -> None:
        content = self.facility.stores[store].content
        if content:
            name = sorted(content)[number % len(content)]
            if lost:
                del content[name]
            else:
                content[name] = b"x" + content[name][1:]

    @rule(store=STORES)
    def goes_or_comes(self, store: str) -> None:
        self.facility.stores[store].away ^= True

    @rule(which=st.integers(0, 1))
    def hold_or_lift(self, which: int) -> None:
        session = self.sessions[which]
        if not holds.lift(self.catalog, session.id, by="ada"):
            holds.hold(self.catalog, session.id, reason="why", by="ada")

    @rule(which=st.integers(0, 1), state=st.sampled_from(SessionState))
    def session_moves(self, which: int, state: SessionState) -> None:
        self.facility.set_state(self.sessions[which], state)

    @rule(hours=st.sampled_from([24.0, 80.0, -1.0, 24.0 * 365]))
    def time_goes(self, hours: float) -> None:
        self.facility.later(hours=hours)

    @rule()
    def clears(self) -> None:
        self.work()

    @rule(at=st.integers(1, 60))
    def clears_and_is_killed(self, at: int) -> None:
        self.kill_at = at
        with suppress(Killed):
            self.work()
        self.kill_at = -1

    @rule(which=st.integers(0, 1))
    def restores(self, which: int) -> None:
        made = self.facility.retirement()
        made.look()
        life = retirement.life_of(self.catalog, self.sessions[which].id)
        made.emptying.restore(life, ["live", "tape", "cloud"])

    def work(self) -> None:
        self.facility.log.clear()
        self.in_pass = True
        try:
            self.facility.pass_once()
        finally:
            self.in_pass = False

    @invariant()
    def what_is_called_removed_is_not_there(self) -> None:
        if not hasattr(self, "files"):
            return
        for file, _ in self.files:
            for store in self.facility.stores.values():
                copy = self.facility.maybe(file, store.name)
                if copy is not None and copy.state is ReplicaState.REMOVED:
                    assert copy.trashed_as not in store.content

    def teardown(self) -> None:
        if not hasattr(self, "files"):
            return
        try:
            self.comes_to_an_end()
        finally:
            self.until_the_end.close()

    def comes_to_an_end(self) -> None:
        """Once all is well, clearing again and again does nothing new, and each copy is where the catalog says."""
        for store in self.facility.stores.values():
            store.away = False
        for _ in range(3):
            self.work()
            self.copier_works()
        self.work()
        self.facility.log.clear()
        self.work()
        assert not [line for line in self.facility.log if line[1] in ("move", "remove")]
        for file, _ in self.files:
            for name, store in self.facility.stores.items():
                copy = self.facility.maybe(file, name)
                assert copy is not None and copy.state is not ReplicaState.RETIRING
                if copy.state is ReplicaState.TRASHED and not copy.detail:
                    assert copy.trashed_as in store.content
                elif copy.state is ReplicaState.TRASHED:
                    assert hashlib.sha256(store.content[copy.trashed_as or ""]).hexdigest() != file.sha256


class ManyHistories(Histories):
    """Longer ones, and a hundred of them."""


Histories.TestCase.settings = settings(max_examples=6, stateful_step_count=16, deadline=None, derandomize=True)
ManyHistories.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None, derandomize=True)
TestHistories = Histories.TestCase
TestManyHistories = pytest.mark.timeout(1800)(pytest.mark.chaos(ManyHistories.TestCase))
