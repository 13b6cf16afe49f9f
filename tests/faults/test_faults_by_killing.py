"""The copier is killed at any moment, and started again."""

from __future__ import annotations

import random
import time

import pytest

from tests.faults.bench import BIG, SMALL, Bench, wait_until
from tests.faults.tried import Outcome, tried

STORES = ("raid", "archive")
FILES_A_TURN = 20


@tried(
    "`kill -9` at random moments (200 of them with `make chaos`)",
    made="a copier of two stores killed while it copies batches of small files, and big ones; started again",
    on="folders",
    outcome=(Outcome.AFTER_RESTART,),
)
@pytest.mark.parametrize(
    ("kills", "seed"),
    [
        pytest.param(6, 0, id="6 kills"),
        *(pytest.param(10, seed, id=f"10 kills, {seed}", marks=pytest.mark.chaos) for seed in range(1, 21)),
    ],
)
def test_the_copier_is_killed_at_random_moments(bench: Bench, kills: int, seed: int) -> None:
    """After each kill a final name holds whole content, and verified means whole; a restart completes everything."""
    chance = random.Random(seed)
    for name in STORES:
        bench.add_folder(name)
    for turn in range(kills):
        for n in range(FILES_A_TURN):
            bench.arrive(f"{turn}/{n}.xml", SMALL + n)
        bench.arrive(f"{turn}/movie.tiff", BIG // 2 + turn)
        standing = _named(bench)
        bench.start()
        # A moment between two copies, or before the first, chosen by chance; then a little later, in the middle.
        moment = chance.randint(standing, standing + len(STORES) * (FILES_A_TURN + 1) - 1)
        wait_until(lambda moment=moment: _named(bench) >= moment, every_seconds=0.002)  # type: ignore[misc]
        time.sleep(chance.uniform(0.0, 0.04))
        bench.kill()
        _assert_whole_by_name(bench, turn)
        bench.assert_sound()
    bench.start()
    bench.healed()
    bench.stop()
    for name in STORES:
        assert len(bench.named(name)) == kills * (FILES_A_TURN + 1)


def _named(bench: Bench) -> int:
    return sum(len(bench.named(name)) for name in STORES)


def _assert_whole_by_name(bench: Bench, turn: int) -> None:
    """Whatever has its name is whole, also where the catalog does not know of it yet."""
    for name in STORES:
        for path in bench.where(name, str(turn)).glob("*"):
            if not path.name.startswith("."):
                assert path.read_bytes() == (bench.camera / "visit" / str(turn) / path.name).read_bytes()
