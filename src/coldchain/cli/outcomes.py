"""What commands that take many files share: where results go, and saying what became of each file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from coldchain.cli.console import errors, output, print_json
from coldchain.errors import StorageError, UsageError, printable
from coldchain.preprocess.report import Failed

Told = TypeVar("Told")


@contextmanager
def results_folder(folder: Path) -> Iterator[None]:
    """Make the folder of `--out`. Where nothing came to lie in it, it is taken away again, with those made above it."""
    made = make_folder(folder)
    try:
        yield
    finally:
        with suppress(OSError):  # it is not empty
            for each in made:
                each.rmdir()


def make_folder(folder: Path) -> tuple[Path, ...]:
    """Make the folder of `--out`; those that were made, the innermost first.

    Raises UsageError where something else has its name, StorageError where it cannot be made.
    """
    try:
        made = tuple(each for each in (folder, *folder.parents) if not each.exists())
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError("--out is no folder", remedy="Name one that is there, or a new one", path=folder) from error
    except OSError as error:
        raise StorageError(
            f"the folder of --out cannot be made: {error.strerror or error}", remedy="Name another", path=folder
        ) from error
    return made


def refuse_equal_names(paths: Sequence[Path], what: str) -> None:
    """Raise UsageError where two inputs' results would have one name; `what` they are, in the plural."""
    found = Counter(path.stem for path in paths).most_common(1)
    if found and found[0][1] > 1:
        stem, count = found[0]
        raise UsageError(
            f"{count} of the {what} are called {printable(stem)}, and so would be their results",
            remedy="Name them in calls of their own, each with an --out of its own",
        )


def tell_as_json(outcomes: Iterable[Told | Failed], key: str, *, what: str = "files", count: int | None = None) -> bool:
    """Print one array when all are through, or the command is ended; whether all went well. A failure has `key`, which
    names it, and `error`."""
    told: list[Told | Failed] = []
    try:
        with _how_far(told, what, count):
            for outcome in outcomes:
                told.append(outcome)  # noqa: PERF402  # those before an end are to be kept
    finally:
        print_json([{key: each.path, "error": str(each.error)} if isinstance(each, Failed) else each for each in told])
    return not any(isinstance(each, Failed) for each in told)


def tell_as_lines(
    outcomes: Iterable[Told | Failed], lines: Callable[[Told], Iterable[str]], *, what: str, count: int
) -> bool:
    """Say what became of each file as soon as it is known; whether all went well. What is told after so many (`count`)
    is of no file, but of a list of them all."""
    failures, went_well = 0, True
    told: list[Told | Failed] = []
    with _how_far(told, what, count), _bar(what, count) as advance:
        for number, outcome in enumerate(outcomes):
            if isinstance(outcome, Failed):
                went_well = False
                failures += number < count
                _print(errors, f"coldchain: {outcome.error}")
            else:
                for line in lines(outcome):
                    _print(output, printable(line))
            told.append(outcome)
            advance()
    if failures and count > 1:
        _print(errors, f"{failures} of {count} {what} failed.")
    return went_well


@contextmanager
def _how_far(told: Sized, what: str, count: int | None) -> Iterator[None]:
    """Say how many are through where Ctrl-C or SIGTERM ends a command."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if count is not None:
            _print(errors, f"Ended after {len(told)} of {count} {what}.")
        raise


def _print(console: Console, line: str) -> None:
    """As it stands: a file's name may look like markup, or like a picture's (`:x:`)."""
    console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)


@contextmanager
def _bar(what: str, count: int) -> Iterator[Callable[[], None]]:
    """A bar where somebody looks; gives what moves it on by one."""
    if not output.is_terminal:
        yield lambda: None
        return
    from rich.progress import Progress  # as long to import as a small movie to write

    with Progress(console=output, transient=True) as bars:
        task = bars.add_task(what, total=count)
        yield lambda: bars.advance(task)
