"""What RELION's lists leave out for its name or kind: counted, and said once when all files are through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from coldchain.cli.console import output
from coldchain.preprocess.relion_names import unlisted


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
