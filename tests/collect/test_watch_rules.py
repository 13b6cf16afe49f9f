"""Rules choose events as iwatch's do, but for what iwatch gets wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from coldchain.collect.event_names import DEFAULT, EVENTS, event_words
from coldchain.collect.file_event import FileEvent
from coldchain.collect.iwatch_config import PathRule, WatchConfig
from coldchain.collect.name_pattern import NamePattern
from coldchain.collect.watch_rules import Exceptions, Happening, RuleKeeper, spelled
from coldchain.collect.watch_service import WatchService

CREATE, CLOSED = EVENTS["create"], EVENTS["close_write"]


def exceptions(*paths: str, patterns: tuple[str, ...] = ()) -> Exceptions:
    """Exceptions of which nothing is said."""
    config = WatchConfig((), paths, tuple(map(NamePattern, patterns)))
    return Exceptions(config, lambda _: None)


def judged(rule: PathRule, *events: FileEvent) -> list[str]:
    """The paths that a rule acts on."""
    keeper = RuleKeeper(rule, lambda _: None)
    found = [keeper.judge(event, exceptions()) for event in events]
    return [happening.path for happening in found if happening is not None]


def test_an_exception_hides_whole_components_only() -> None:
    """`/w/skip` hides itself and all beneath, not `/w/skipper`; a relative one counts from where one stands."""
    except_skip = exceptions("/w/skip", "rel")
    for path in ("/w/skip", "/w/skip/a/b", str(Path.cwd() / "rel/x"), "rel"):
        assert except_skip.hide(path)
        assert except_skip.keep_out_of(path)
    assert not except_skip.hide("/w/skipper")
    assert not except_skip.keep_out_of("/w")
    assert exceptions("/").hide("/anything")


def test_a_pattern_hides_names_and_keeps_out_of_paths() -> None:
    """As in iwatch: of what happens the name is compared, of folders the whole path."""
    hidden = exceptions(patterns=(r"\.tmp$", r"^/w/priv"))
    assert hidden.hide("/w/a.tmp")
    assert not hidden.hide("/w/private")
    assert hidden.keep_out_of("/w/private/x")
    assert hidden.keep_out_of("/w/x.tmp")
    assert not hidden.keep_out_of("/w/x")


def test_a_filter_chooses_names() -> None:
    """Of files and folders alike, without their folder's name."""
    rule = PathRule("/w", True, CREATE, filter=NamePattern(r"\.mrc$"))
    events = [FileEvent(CREATE, path) for path in ("a.mrc", "x.mrc/b.txt", "x.mrc/c.mrc")]
    assert judged(rule, *events) == ["/w/a.mrc", "/w/x.mrc/c.mrc"]
    assert judged(replace(rule, path="/w/a.mrc"), FileEvent(CREATE, "")) == ["/w/a.mrc"]


def test_a_filter_that_does_not_end_hides_nothing() -> None:
    """It is said once, and the names that it leaves open are reported; as an exception it hides nothing either."""
    said: list[str] = []
    endless = NamePattern("(x|xx)+y")
    keeper = RuleKeeper(PathRule("/w", True, CREATE, filter=endless), said.append)
    assert keeper.judge(FileEvent(CREATE, "x" * 255), exceptions()) is not None
    assert "not decided" in said[0]
    assert not Exceptions(WatchConfig((), (), (endless,)), said.append).hide("/w/" + "x" * 255)


def test_events_are_chosen_by_their_kind() -> None:
    """Flags beside it choose nothing."""
    rule = PathRule("/w", True, CLOSED | EVENTS["isdir"])
    assert judged(rule, FileEvent(CREATE | EVENTS["isdir"], "d"), FileEvent(CLOSED, "f")) == ["/w/f"]
    assert judged(PathRule("/w", True, EVENTS["q_overflow"]), FileEvent(EVENTS["q_overflow"], "")) == ["/w"]


def test_oneshot_reports_one_event_a_folder() -> None:
    """As the kernel's watch does, which ends with its first event; what a filter hides does not count."""
    rule = PathRule("/w", True, CREATE | EVENTS["oneshot"], filter=NamePattern("b"))
    events = [FileEvent(CREATE, path) for path in ("a", "b", "b2", "d/b", "d/b2")]
    assert judged(rule, *events) == ["/w/b", "/w/d/b"]


def test_what_was_found_is_an_arrival_for_whoever_asks_for_arrivals() -> None:
    """A rule of moves alone is told of what a listing found; one that is told of closing anyway is not told twice."""
    found = FileEvent(CREATE, "f", is_found=True)
    assert judged(PathRule("/w", True, EVENTS["moved_to"]), found) == ["/w/f"]
    assert judged(PathRule("/w", True, EVENTS["moved_to"] | CLOSED), found) == []
    assert judged(PathRule("/w", True, EVENTS["moved_to"]), found._replace(is_found=False)) == []


def test_paths_are_spelled_as_the_rule_does() -> None:
    """Relative ones stay relative, and none looks like an option."""
    assert spelled("/", "etc/x") == "/etc/x"
    assert spelled("w", "") == "w"
    assert spelled("-w", "f") == "./-w/f"


class Serving:
    """A service with all that has happened."""

    def __init__(self, config: WatchConfig, **options: object) -> None:
        self.service = WatchService(config, settle_seconds=0.05, **options)  # type: ignore[arg-type]
        self.happenings: list[Happening] = []
        self.until(lambda: self.service.is_ready)

    def until(self, condition: Callable[[], bool]) -> None:
        """Poll until the condition holds."""
        end = time.monotonic() + 60
        while True:
            self.happenings += self.service.poll(0.01)
            if condition():
                return
            assert time.monotonic() < end, "waited in vain"

    def told(self) -> list[tuple[str, str]]:
        """The kinds and paths, in order."""
        return [(event_words(happening.mask), happening.path) for happening in self.happenings]


@pytest.fixture
def serve() -> Iterator[Callable[..., Serving]]:
    """Begin services, which are closed at the end."""
    made: list[Serving] = []

    def begin(config: WatchConfig, **options: object) -> Serving:
        made.append(Serving(config, **options))
        return made[-1]

    yield begin
    for serving in made:
        serving.service.close()


def test_each_rule_of_a_path_holds_by_itself(root: Path, serve: Callable[..., Serving]) -> None:
    """Two rules of one path, and one of a path inside it, all act."""
    (root / "a").mkdir()
    rules = (
        PathRule(str(root), True, CREATE, title="one"),
        PathRule(str(root), True, CLOSED, title="two"),
        PathRule(str(root / "a"), False, CLOSED, title="three"),
    )
    serving = serve(WatchConfig(rules))
    (root / "a/f").write_text("x")
    serving.until(lambda: len(serving.happenings) == 3)
    assert sorted(happening.rule.title for happening in serving.happenings) == ["one", "three", "two"]


def test_other_rules_take_over_without_a_gap(root: Path, serve: Callable[..., Serving]) -> None:
    """New kinds, new paths and new exceptions hold from then on; what stays misses nothing."""
    for name in ("a", "skip", "other"):
        (root / name).mkdir()
    rule = PathRule(str(root / "a"), True, CREATE)
    serving = serve(WatchConfig((rule,), (str(root / "a/skip"),)))
    (root / "a/skip").mkdir()
    (root / "a/1").write_text("x")
    serving.service.change(WatchConfig((replace(rule, events=CLOSED), PathRule(str(root / "other"), False))))
    (root / "a/2").write_text("x")
    serving.until(lambda: ("IN_CLOSE_WRITE", f"{root}/a/2") in serving.told())
    (root / "a/skip/3").write_text("x")
    (root / "other/4").write_text("x")
    serving.until(lambda: len(serving.happenings) >= 4)
    assert ("IN_CLOSE_WRITE", f"{root}/a/skip/3") in serving.told()
    assert [words for words, path in serving.told() if path.endswith("4")] == ["IN_CREATE", "IN_CLOSE_WRITE"]


def test_moves_tell_where_from(root: Path, serve: Callable[..., Serving]) -> None:
    """The old path, also for a rule that asks only for what is moved in; both halves have one cookie."""
    serving = serve(WatchConfig((PathRule(str(root), True, EVENTS["moved_to"]), PathRule(str(root), True, DEFAULT))))
    (root / "old").write_text("x")
    (root / "old").rename(root / "new")
    serving.until(lambda: len(serving.happenings) >= 5)
    moved = [happening for happening in serving.happenings if happening.path.endswith("new")]
    assert {happening.old_path for happening in moved} == {f"{root}/old"}
    assert len(moved) == 2
    assert moved[0].cookie
