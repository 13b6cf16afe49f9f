"""What RELION's lists leave out for its name or kind: counted, and said once when all files are through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import typer

from coldchain.cli.console import output
from coldchain.cli.outcomes import tell_as_json, tell_as_lines
from coldchain.preprocess.relion_names import unlisted
from coldchain.preprocess.report import Failed

Told = TypeVar("Told")


class Unlisted:
    """Counts the files of one call that are not in the list of this name."""

    def __init__(self, list_name: str) -> None:
        self._list_name = list_name
        self._words = unlisted(list_name)
        self._count = 0

    def others(self, warnings: Iterable[str]) -> Iterator[str]:
        """A file's warnings without the one that is told at the end."""
        for warning in warnings:
            if warning in self._words:
                self._count += 1
            else:
                yield warning

    def tell(self, what: str, count: int) -> None:
        """Say how many were left out of so many, if any were; `what` they are, in the plural."""
        if self._count:
            which = f"{self._count} of {count} {what}"
            words = f"{which} not in {self._list_name}: RELION cannot read files of this name or kind."
            output.print(words, markup=False, highlight=False, emoji=False, soft_wrap=True)


def tell_all(
    outcomes: Iterable[Told | Failed],
    lines: Callable[[Told, Unlisted], Iterable[str]],
    *,
    list_name: str,
    what: str,
    count: int,
    json: bool,
) -> None:
    """Say what became of each of so many (`count`) files, and at the end what the list leaves out; status 1 where one
    failed."""
    left_out = Unlisted(list_name)
    if json:
        went_well = tell_as_json(outcomes, "file", what=what, count=count)
    else:
        went_well = tell_as_lines(outcomes, lambda each: lines(each, left_out), what=what, count=count)
        left_out.tell(what, count)
    if not went_well:
        raise typer.Exit(1)
