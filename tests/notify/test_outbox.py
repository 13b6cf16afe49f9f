"""When a receiver is told what: rules, digests, limits, retries and what is dropped."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.model.events import Severity
from coldchain.notify import outbox as outbox_module
from coldchain.notify.message import Batch
from coldchain.notify.outbox import HOUR_SECONDS, MOST_WAITING, Outbox
from coldchain.notify.rules import Pace, Rule
from tests.notify.notify_givens import notice

NIL = UUID(int=0)
ALL = Rule("all", minimum=Severity.INFO)
AT_ONCE = Pace(digest_seconds=0)


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (Rule("r"), True),
        (Rule("r", kinds=("alert.*",)), True),
        (Rule("r", kinds=("file.*", "alert.raised")), True),
        (Rule("r", kinds=("alert",)), False),
        (Rule("r", kinds=("Alert.*",)), False),
        (Rule("r", minimum=Severity.ERROR), False),
        (Rule("r", sessions=("vis*",)), True),
        (Rule("r", sessions=("other",)), False),
        (Rule("r", instruments=("glacios", "k*")), True),
        (Rule("r", instruments=("glacios",), sessions=("visit",)), False),
    ],
)
def test_a_rule_chooses_by_kind_severity_session_and_instrument(rule: Rule, wanted: bool) -> None:
    """Every condition must hold; of several patterns one."""
    assert rule.wants(notice()) is wanted


def test_what_belongs_to_no_session_is_not_told_to_those_who_want_some() -> None:
    """`*` of sessions means those that there are."""
    lonely = notice(session="", instrument="")
    assert Rule("r").wants(lonely)
    assert not Rule("r", sessions=("*",)).wants(lonely)


def test_several_within_the_window_are_one_message() -> None:
    """The window opens with the first; what comes until its end goes together, and the next opens a new one."""
    box = Outbox(ALL, Pace(digest_seconds=60), NIL)
    for number, at in ((1, 0.0), (2, 30.0), (3, 59.0)):
        box.offer(notice(number), at)
    assert (box.due(), box.take(59.9)) == (60.0, None)
    taken = box.take(60.0)
    assert taken is not None
    assert [n.event.id.int for n in taken.notices] == [1, 2, 3]
    box.offer(notice(4), 60.0)
    box.sent(61.0)
    assert box.due() == 120.0


def test_without_a_window_each_has_its_own_message_until_the_hour_is_full() -> None:
    """Single messages while the limit allows one each; what is more waits for the hour's end."""
    box = Outbox(ALL, Pace(digest_seconds=0, most_per_hour=3), NIL)
    for number in (1, 2, 3):
        box.offer(notice(number), 0.0)
    sizes = []
    for _ in range(3):
        taken = box.take(10.0)
        assert taken is not None
        sizes.append(len(taken.notices))
        box.sent(10.0)
    assert sizes == [1, 1, 1]
    for number in (4, 5):
        box.offer(notice(number), 20.0)
    assert box.take(20.0) is None
    assert box.due() == 10.0 + HOUR_SECONDS
    taken = box.take(10.0 + HOUR_SECONDS)
    assert taken is not None
    assert len(taken.notices) == 1, "the hour allows each its own again"


def test_a_failure_is_tried_again_with_growing_pauses_and_an_end() -> None:
    """The pauses double up to the longest; what is too old is dropped, counted, and told of with the next message."""
    box = Outbox(ALL, Pace(digest_seconds=0, give_up_seconds=3600), NIL)
    box.offer(notice(1), 0.0)
    now, pauses = 0.0, []
    while (due := box.due()) is not None:
        pauses.append(due - now)
        now = due
        assert box.take(now) is not None
        assert box.cursor == NIL
        box.failed(now, retry=True)
    assert pauses[:9] == [0, 2, 4, 8, 16, 32, 64, 128, 256]
    assert set(pauses[9:]) == {300.0}
    assert 3600 <= now < 3900
    assert box.dropped() == {"alert.raised": 1}
    assert box.dropped() == {}
    box.offer(notice(2), now + 300)
    taken = box.take(now + 300)
    assert taken is not None
    assert taken.lost == {"alert.raised": 1}
    box.sent(now)
    box.offer(notice(3), now + 400)
    taken = box.take(now + 400)
    assert taken is not None
    assert taken.lost == {}


@pytest.mark.parametrize(("asked", "kept"), [(30.0, 30.0), (1.0, 2.0), (1e9, 3600.0), (float("inf"), 3600.0)])
def test_a_pause_that_the_receiver_asks_for_is_kept(asked: float, kept: float) -> None:
    """Where it is longer than one's own; an hour at most."""
    box = Outbox(ALL, AT_ONCE, NIL)
    box.offer(notice(1), 0.0)
    box.take(0.0)
    box.failed(0.0, retry=True, pause_seconds=asked)
    assert box.due() == kept


def test_an_event_that_comes_late_goes_first() -> None:
    """It waits in its place, also beside a message that failed meanwhile, and the cursor goes back to it."""
    box = Outbox(ALL, Pace(), NIL)
    for number in (10, 20):
        box.offer(notice(number), 0.0)
    box.take(60.0)
    box.offer(notice(5), 60.0, age_seconds=60)
    box.offer(notice(15), 60.0)
    assert box.cursor.int == 4
    box.failed(60.0, retry=True)
    taken = box.take(100.0)
    assert taken is not None
    assert [n.event.id.int for n in taken.notices] == [5, 10, 15, 20]
    box.sent(100.0)
    assert box.cursor.int == 20
    assert sorted(each.int for each in box.told) == [5, 10, 15, 20]


def test_what_was_told_before_is_not_told_again() -> None:
    """Neither what lies up to the beginning, nor what is named after it."""
    box = Outbox(ALL, Pace(), UUID(int=3), told=[UUID(int=5)])
    for number in range(1, 7):
        box.offer(notice(number), 0.0)
    taken = box.take(60.0)
    assert taken is not None
    assert [n.event.id.int for n in taken.notices] == [4, 6]


@given(
    ages=st.lists(st.floats(0, 2 * HOUR_SECONDS), max_size=30),
    most=st.integers(1, 8),
    bundles=st.booleans(),
)
def test_the_hour_s_messages_survive_a_restart(ages: list[float], most: int, bundles: bool) -> None:
    """What is recorded of them makes none earlier than it was, forgets none of the hour, and counts what is being
    sent."""
    times = sorted(-age for age in ages)[-most:]
    box = Outbox(ALL, Pace(digest_seconds=0, most_per_hour=most, bundles=bundles), NIL, sends=times)
    box.offer(notice(1), 0.0)
    flying = box.take(0.0) is not None
    recorded = [-age for age, count in box.sends(0.0) for _ in range(count)]
    hour = [at for at in times if at > -HOUR_SECONDS] + [0.0] * flying
    assert len(recorded) == len(hour) <= most
    assert all(then <= later < then + 60 for then, later in zip(hour, sorted(recorded), strict=True))


def test_a_message_that_is_refused_does_not_stand_in_the_way() -> None:
    """What no retry can help is dropped at once, and the next goes on without a pause."""
    box = Outbox(ALL, AT_ONCE, NIL)
    for number in (1, 2):
        box.offer(notice(number), 0.0)
    box.take(0.0)
    box.failed(0.0, retry=False)
    assert box.dropped() == {"alert.raised": 1}
    taken = box.take(0.0)
    assert taken is not None
    assert taken.notices[0].event.id.int == 2


def test_where_too_many_wait_the_oldest_of_the_least_severe_go() -> None:
    """An error is kept although a flood of warnings came after it."""
    box = Outbox(ALL, Pace(), NIL)
    box.offer(notice(1, severity=Severity.ERROR, kind="exposure.quarantined"), 0.0)
    for number in range(2, MOST_WAITING + 12):
        box.offer(notice(number), 0.0)
    assert len(box) == MOST_WAITING
    assert box.dropped() == {"alert.raised": 11}
    taken = box.take(60.0)
    assert taken is not None
    assert [n.event.id.int for n in taken.notices[:2]] == [1, 13]
    assert taken.lost == {"alert.raised": 11}


def test_what_is_too_old_at_its_arrival_is_dropped() -> None:
    """An event of the day before yesterday is no news; what is younger is told at once where its window is over."""
    box = Outbox(ALL, Pace(), NIL)
    box.offer(notice(1), 100.0, age_seconds=86_400.0)
    assert box.dropped() == {"alert.raised": 1}
    box.offer(notice(2), 100.0, age_seconds=3000.0)
    assert box.take(100.0) is not None


def test_a_line_of_a_log_is_one_event_and_counts_as_one() -> None:
    """Where a message cannot hold several, the limit counts events, and nothing waits for a window."""
    box = Outbox(ALL, Pace(bundles=False, most_per_hour=3), NIL)
    for number in range(1, 6):
        box.offer(notice(number), 0.0)
    taken = box.take(0.0)
    assert taken is not None
    assert len(taken.notices) == 3
    box.sent(0.0)
    assert box.take(HOUR_SECONDS - 1) is None
    taken = box.take(HOUR_SECONDS)
    assert taken is not None
    assert len(taken.notices) == 2


PACES = st.builds(
    Pace,
    digest_seconds=st.sampled_from([0.0, 10.0, 60.0]),
    most_per_hour=st.none() | st.integers(1, 4),
    give_up_seconds=st.sampled_from([50.0, 5000.0, 86_400.0]),
    bundles=st.booleans(),
)
# (seconds that pass, events that come, how many of them errors, what becomes of a message: told, failed, refused)
TURNS = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, 30.0, 400.0, 4000.0]), st.integers(0, 6), st.sampled_from("tttfr")),
    max_size=40,
)


class Story:
    """An outbox under random events, and what a bystander writes down."""

    def __init__(self, pace: Pace, bound: int) -> None:
        self.box = Outbox(ALL, pace, NIL)
        self.pace, self.bound = pace, bound
        self.now, self.offered = 0.0, 0
        self.told: list[tuple[float, tuple[int, ...]]] = []
        self.dropped: Counter[str] = Counter()

    def turn(self, seconds: float, events: int, fate: str) -> None:
        """Time passes, events come, and what is due has its fate."""
        self.now += seconds
        for _ in range(events):
            self.offered += 1
            severity = Severity.ERROR if self.offered % 5 == 0 else Severity.WARNING
            self.box.offer(notice(self.offered, severity=severity), self.now)
        while (taken := self.box.take(self.now)) is not None:
            assert self.box.take(self.now) is None, "one at a time"
            self.end(taken, fate)
        assert len(self.box) <= self.bound
        self.dropped += self.box.dropped()

    def end(self, taken: Batch, fate: str) -> None:
        """What becomes of a message."""
        ids = tuple(n.event.id.int for n in taken.notices)
        assert ids
        assert list(ids) == sorted(ids)
        assert self.box.cursor.int < ids[0], "a restart would lose it"
        if fate == "t":
            self.told.append((self.now, ids))
            self.box.sent(self.now)
        else:
            self.box.failed(self.now, retry=fate == "f")


@given(pace=PACES, turns=TURNS, bound=st.sampled_from([3, MOST_WAITING]))
def test_whatever_happens_each_event_is_told_once_or_counted_as_dropped(
    pace: Pace, turns: list[tuple[float, int, str]], bound: int
) -> None:
    """Nothing is told twice, nothing vanishes, no hour has more messages than it may, and everything ends."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(outbox_module, "MOST_WAITING", bound)
        story = Story(pace, bound)
        for turn in turns:
            story.turn(*turn)
        while (due := story.box.due()) is not None:
            story.turn(max(due - story.now, 0.0), 0, "t")
    told = [number for _, ids in story.told for number in ids]
    assert len(told) == len(set(told))
    assert len(told) + story.dropped.total() == story.offered
    assert story.box.cursor.int == story.offered
    if pace.most_per_hour is not None:
        times = [at for at, ids in story.told for _ in (ids if not pace.bundles else (0,))]
        gaps = zip(times, times[pace.most_per_hour :], strict=False)
        assert all(later - earlier >= HOUR_SECONDS for earlier, later in gaps)


@given(turns=TURNS, stop_at=st.integers(0, 40))
def test_a_restart_at_any_moment_goes_on_at_the_cursor(turns: list[tuple[float, int, str]], stop_at: int) -> None:
    """A new outbox that begins at the old one's cursor, and reads the journal again, tells what was not told yet."""
    story = Story(Pace(give_up_seconds=1e9), MOST_WAITING)
    for seconds, events, fate in turns[:stop_at]:
        story.turn(seconds, events, "f" if fate == "r" else fate)
    told = {number for _, ids in story.told for number in ids}
    again = Outbox(ALL, Pace(), story.box.cursor)
    for number in range(1, story.offered + 1):
        again.offer(notice(number), story.now)
    rest = again.take(story.now + 60)
    left = {n.event.id.int for n in rest.notices} if rest else set()
    assert left == set(range(1, story.offered + 1)) - told
    assert len(again) == 0
