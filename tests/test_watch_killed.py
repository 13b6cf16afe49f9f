"""`kill -9` at random: a watcher that is started again with `--initial` misses nothing that is there.

The short runs are among all tests; `make chaos` has the long ones.
"""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_SHELL = 'i={first}; while [ $i -lt {end} ]; do mkdir -p "$i/b/c" && echo x > "$i/b/c/f"; i=$((i+1)); done'
_PYTHON = (
    "import os, pathlib\n"
    "for i in range({first}, {end}): os.makedirs(f'{{i}}/b/c'); pathlib.Path(f'{{i}}/b/c/f').write_text('x')"
)
_BURST = "import os\nfor i in range({first}, {end}): os.close(os.open(f'{{i}}', os.O_CREAT | os.O_WRONLY))"
_TREES = """
import os, pathlib
for i in range({first}, {end}, {size}):
    for k in range(i, i + {size}):
        path = pathlib.Path(f"../tree{{i}}/{{k // 10}}")
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{{k}}").write_text("x")
    os.rename(f"../tree{{i}}", f"tree{{i}}")
"""
# How they are made, and what is to be reported of number i, where a tree has so many files.
MAKERS: dict[str, tuple[list[str], Callable[[int, int], str]]] = {
    "folders by a shell": (["sh", "-c", _SHELL], lambda i, _: f"{i}/b/c/f"),
    "folders by Python": ([sys.executable, "-c", _PYTHON], lambda i, _: f"{i}/b/c/f"),
    "a burst": ([sys.executable, "-c", _BURST], lambda i, _: str(i)),
    "trees moved in": ([sys.executable, "-c", _TREES], lambda i, size: f"tree{i // size * size}/{i // 10}/{i}"),
}
_RULE = """
[[watch]]
name = "r"
path = "{root}"
initial = true
settle_seconds = 0.5
jobs = 2
exec = ["sh", "-c", 'echo "IN_CLOSE_WRITE $1" >> "$2"', "sh", "{{path}}", "{log}"]
"""


class Killed:
    """A watcher that is killed and started again. `words` are its command line."""

    def __init__(self, folder: Path, *, by_config: bool) -> None:
        self.root, self.log = folder / "root", folder / "log"
        self.root.mkdir()
        self.log.touch()
        (folder / "facility.toml").write_text(_RULE.format(root=self.root, log=self.log))
        options = ["--initial", "--settle", "0.5", "--jobs", "2", "-r", "-e", "close_write"]
        words = [*options, "-c", f"echo %e %f >> {self.log}", str(self.root)]
        self._words = ["--config", str(folder / "facility.toml")] if by_config else words
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Once more."""
        nothing = subprocess.DEVNULL
        self._process = subprocess.Popen(
            [sys.executable, "-m", "coldchain", "watch", *self._words], stdout=nothing, stderr=nothing
        )

    def kill(self) -> None:
        """By -9: nothing can be tidied up."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def missed(self, expected: list[str]) -> list[str]:
        """What no command has been run for."""
        lines = set(self.log.read_text().splitlines())
        return [path for path in expected if f"IN_CLOSE_WRITE {self.root}/{path}" not in lines]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Killed]]:
    """Make watchers, which are killed for good at the end."""
    made: list[Killed] = []

    def make(*, by_config: bool = False) -> Killed:
        made.append(Killed(tmp_path, by_config=by_config))
        return made[-1]

    yield make
    for watcher in made:
        watcher.kill()


def kill_while_making(watcher: Killed, maker: str, count: int, kills: int, patience_seconds: float) -> list[str]:
    """Make so many in as many parts as there are kills, each kill at a random moment of one; what was missed."""
    words, name = MAKERS[maker]
    size = min(1000, count // kills)
    rng = random.Random(count)
    watcher.start()
    bounds = [count * part // kills for part in range(kills + 1)]
    for first, end in itertools.pairwise(bounds):
        time.sleep(rng.uniform(0.0, 2.0))  # from before it watches to when it runs commands
        script = words[-1].format(first=first, end=end, size=size)
        with subprocess.Popen([*words[:-1], script], cwd=watcher.root) as making:
            time.sleep(rng.uniform(0.0, 0.3))
            watcher.kill()
            time.sleep(rng.uniform(0.0, 0.2))
            watcher.start()
            assert making.wait() == 0
    expected = [name(number, size) for number in range(count)]
    until = time.monotonic() + patience_seconds
    while watcher.missed(expected) and time.monotonic() < until:
        time.sleep(0.2)
    return watcher.missed(expected)


@pytest.mark.parametrize("maker", ["folders by a shell", "trees moved in"])
def test_nothing_that_is_there_is_missed(begin: Callable[..., Killed], maker: str) -> None:
    """Killed three times while 120 files come in new folders or in trees."""
    assert kill_while_making(begin(), maker, 120, 3, patience_seconds=60) == []


def test_rules_of_a_facility_miss_nothing_either(begin: Callable[..., Killed]) -> None:
    """With `initial`, killed twice during a burst of 120 files."""
    assert kill_while_making(begin(by_config=True), "a burst", 120, 2, patience_seconds=60) == []


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("by_config", [False, True])
@pytest.mark.parametrize(
    ("maker", "count"),
    [("folders by a shell", 1000), ("folders by Python", 1000), ("a burst", 20_000), ("trees moved in", 10_000)],
)
def test_nothing_is_missed_by_ten_kills(begin: Callable[..., Killed], maker: str, count: int, by_config: bool) -> None:
    """1,000 new folders, a burst of 20,000 files, 100 trees: every file has its command at least once."""
    assert kill_while_making(begin(by_config=by_config), maker, count, 10, patience_seconds=1200) == []
