"""Commands run in their order, a bounded number at a time, and none of them can spoil the others."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coldchain.collect import command_queue
from coldchain.collect.command_queue import MOST_OUTPUT_BYTES, CommandQueue, Order, Outcome


class Running:
    """A queue with everything that it has told."""

    def __init__(self, **options: object) -> None:
        self.outcomes: list[Outcome] = []
        self.queue = CommandQueue(self.outcomes.append, **options)  # type: ignore[arg-type]
        self.queue.start()

    def run(self, *lines: str, key: str = "") -> list[Outcome]:
        """Order lines, each of a key of its own where none is given; their outcomes in the order of their ends."""
        before = len(self.outcomes)
        for number, line in enumerate(lines):
            self.queue.put(Order(line, key or f"{line} {number}"))
        self.until(lambda: self.queue.is_idle())
        return self.outcomes[before:]

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait."""
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, self.outcomes
            time.sleep(0.005)


@pytest.fixture
def queue() -> Iterator[Callable[..., Running]]:
    """Make queues, which are stopped at the end."""
    made: list[Running] = []

    def make(**options: object) -> Running:
        made.append(Running(**options))
        return made[-1]

    yield make
    for running in made:
        if running.queue._thread.is_alive():
            running.queue.stop(0)


def test_status_and_output_come_back(queue: Callable[..., Running]) -> None:
    """What it printed on both streams, its exit status, or the signal that ended it."""
    running = queue()
    good, bad, killed = running.run("echo a; echo b >&2", "printf x; exit 3", "kill -9 $$")
    assert (good.status, good.output, good.is_good) == (0, b"a\nb\n", True)
    assert (bad.status, bad.output, bad.is_good) == (3, b"x", False)
    assert killed.status == -9


def test_any_bytes_reach_the_shell(queue: Callable[..., Running]) -> None:
    """A line is bytes: names that are no UTF-8 come through."""
    (outcome,) = queue().run(f"printf '%s' '{os.fsdecode(bytes(range(128, 256)))}'")
    assert outcome.output == bytes(range(128, 256))


def test_what_is_missing_or_cannot_be_begun_is_stated(queue: Callable[..., Running]) -> None:
    """An unknown command is the shell's 127; a line too long for the kernel is not begun; the next one runs."""
    missing, long, after = queue().run("no-such-command-anywhere", ": " + "x" * (1 << 20), "echo ok")
    assert missing.status == 127
    assert b"not found" in missing.output
    assert (long.status, long.trouble) == (None, "it cannot be begun: Argument list too long")
    assert after.output == b"ok\n"


def test_only_the_beginning_of_endless_output_is_kept(queue: Callable[..., Running]) -> None:
    """300 MB are counted, 64 KiB are kept, and a neighbour is not held up."""
    running = queue(jobs=2)
    outcomes = running.run("head -c 300000000 /dev/zero", "echo hello")
    much = next(outcome for outcome in outcomes if outcome.output_bytes > 100)
    assert (much.output_bytes, len(much.output), much.status) == (300_000_000, MOST_OUTPUT_BYTES, 0)


def test_one_that_hangs_is_ended_with_all_that_it_started(
    queue: Callable[..., Running], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the timeout its whole group is ended, by force where it does not listen, and the next one runs."""
    monkeypatch.setattr(command_queue, "_KILL_SECONDS", 0.2)
    running = queue(timeout_seconds=0.3)
    pids = tmp_path / "pids"
    hung, deaf, after = running.run(
        f"sleep 100 & echo $! > {pids}; wait", "trap '' TERM; while :; do sleep 100; done", "echo ok"
    )
    assert "had not ended after 0.3 s" in hung.trouble
    assert deaf.status == -9
    assert after.output == b"ok\n"
    running.until(lambda: not alive(int(pids.read_text())))


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return "(sleep) Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_what_goes_on_in_the_background_holds_up_nothing(queue: Callable[..., Running], tmp_path: Path) -> None:
    """`… &` goes on after its shell has ended, may print, and others run meanwhile."""
    running = queue()
    after = f"(sleep 0.4; echo x; echo y; touch {tmp_path}/done) &"
    first, second = running.run(after, "echo z")
    assert (first.status, second.output) == (0, b"z\n")
    running.until((tmp_path / "done").exists)
    running.until(lambda: not running.queue._background)


def test_so_many_at_a_time_and_no_more(queue: Callable[..., Running], tmp_path: Path) -> None:
    """With three jobs, three run at once and never four."""
    line = f"touch {tmp_path}/$$; ls {tmp_path} | wc -l; sleep 0.05; rm {tmp_path}/$$"
    counts = [int(outcome.output) for outcome in queue(jobs=3).run(*[line] * 30)]
    assert max(counts) <= 3
    assert max(counts) > 1


def test_commands_of_one_file_keep_their_order(queue: Callable[..., Running]) -> None:
    """However many may run at once; the first ones being slower changes nothing."""
    running = queue(jobs=8)
    lines = [f"sleep 0.0{9 - number}; echo {number}" for number in range(10)]
    assert [outcome.output for outcome in running.run(*lines, key="f")] == [b"%d\n" % n for n in range(10)]


def test_a_failure_is_tried_again_as_often_as_wanted(
    queue: Callable[..., Running], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two more attempts; the next of the same file waits for the last of them; a success ends it."""
    monkeypatch.setattr(command_queue, "_LONGEST_WAIT_SECONDS", 0.01)
    running = queue(retries=2)
    outcomes = running.run("exit 5", "echo next", key="f")
    assert [(outcome.attempt, outcome.status) for outcome in outcomes] == [(1, 5), (2, 5), (3, 5), (1, 0)]
    assert [outcome.next_try_seconds is None for outcome in outcomes] == [False, False, True, True]
    again = running.run(f"test -e {tmp_path}/x || {{ touch {tmp_path}/x; exit 1; }}")
    assert [outcome.status for outcome in again] == [1, 0]


def test_stopping_ends_what_runs_and_says_what_was_not_run(queue: Callable[..., Running]) -> None:
    """After its patience: groups are ended, and nothing that waits is passed over in silence."""
    running = queue()
    for number in range(4):
        running.queue.put(Order("sleep 100 & echo $!; sleep 100", str(number)))
    running.until(lambda: any(r.output for r in list(running.queue._running)))
    running.queue.stop(0)
    assert len(running.outcomes) == 4
    assert "was ended" in running.outcomes[0].trouble
    assert all("was not run" in outcome.trouble for outcome in running.outcomes[1:])
    pid = int(running.outcomes[0].output)
    running.until(lambda: not alive(pid))


def test_stopping_lets_what_waits_come_to_its_end(queue: Callable[..., Running]) -> None:
    """Within the patience everything is still run."""
    running = queue()
    for number in range(20):
        running.queue.put(Order("exit 0", str(number)))
    running.queue.stop(60)
    assert [outcome.is_good for outcome in running.outcomes] == [True] * 20


def test_orders_from_many_threads_all_run(queue: Callable[..., Running]) -> None:
    """Whoever orders never waits, and nothing is lost between threads; also where the kernel knows no pidfd."""
    running = queue(jobs=2)

    def order(name: int) -> None:
        for number in range(50):
            running.queue.put(Order(":", f"{name} {number}"))

    threads = [threading.Thread(target=order, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    running.until(running.queue.is_idle)
    assert len(running.outcomes) == 200
    assert running.queue.waiting() == 0


@pytest.mark.parametrize("is_before", [True, False])
def test_an_order_that_comes_while_the_queue_wakes_stops_nothing(
    queue: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, is_before: bool
) -> None:
    """Just before or just after the call to wake is taken: it is run, and so is one that comes much later."""
    running = queue()
    read = os.eventfd_read

    def read_meanwhile(descriptor: int) -> int:
        value = 0 if is_before else read(descriptor)
        if not any(outcome.order.key == "between" for outcome in running.outcomes):
            running.queue.put(Order("echo between", "between"))
        return read(descriptor) if is_before else value

    monkeypatch.setattr(os, "eventfd_read", read_meanwhile)
    running.queue.put(Order("echo first", "first"))
    running.until(lambda: len(running.outcomes) >= 2 and running.queue.is_idle())
    monkeypatch.setattr(os, "eventfd_read", read)
    time.sleep(0.05)
    running.run("echo last")
    assert running.outcomes[-1].output == b"last\n"


def test_older_kernels_will_do(queue: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pidfd_open, ends are noticed all the same."""

    def refuse(pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert [outcome.output for outcome in queue().run("echo a", "sleep 0.1; echo b")] == [b"a\n", b"b\n"]
