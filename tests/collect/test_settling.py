"""How long files that nobody saw closing have stood unchanged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coldchain.collect.settling import Settling

_MOVES = st.lists(st.tuples(st.sampled_from("wsfd"), st.sampled_from("abc"), st.integers(1, 3), st.integers(0, 3)))


@given(_MOVES)
def test_what_is_due_has_stood_for_long_enough(moves: list[tuple[str, str, int, int]]) -> None:
    """Any order of finding, writing, forgetting and asking: due is exactly what nothing has happened to for so long."""
    settling, now = Settling(5), 0.0
    planted: dict[str, tuple[int, float]] = {}
    for move, path, value, pause in moves:
        now += pause
        if move == "w":
            settling.wait(path, value, now)
            if planted.get(path, (0, 0.0))[0] != value:
                planted[path] = (value, now)
        elif move == "s":
            settling.stir(path, now)
            if path in planted:
                planted[path] = (planted[path][0], now)
        elif move == "f":
            settling.forget(path)
            planted.pop(path, None)
        else:
            due = settling.take_due(now, 100)
            expected = {(its, known) for its, (known, since) in planted.items() if now - since >= 5}
            assert set(due) == expected
            planted = {its: known for its, known in planted.items() if (its, known[0]) not in expected}


def test_many_that_are_due_come_in_parts() -> None:
    """Never more at once than were asked for; those that have waited longest first; none twice."""
    settling = Settling(1)
    for number in range(10):
        settling.wait(str(number), 1, number)
    parts = [settling.take_due(100, 4) for _ in range(4)]
    assert [[path for path, _ in part] for part in parts] == [list("0123"), list("4567"), ["8", "9"], []]


def test_a_folder_takes_what_is_waited_for_with_it() -> None:
    """What lies beneath a path, and nothing beside it."""
    settling = Settling(1)
    for number, path in enumerate(("a", "a/b", "ab", "c")):
        settling.wait(path, number + 1, 0)
    assert settling.take_inside("a") == {"a": 1, "a/b": 2}
    assert settling.take_due(5, 9) == [("ab", 3), ("c", 4)]
