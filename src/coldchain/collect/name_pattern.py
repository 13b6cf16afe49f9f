"""Regular expressions that a person wrote for names, in Perl's dialect, and a bound on what one may cost.

A pattern such as `(x|xx)+y` may take longer than the universe on a name of 255 letters. Each match is broken off after
`MATCH_SECONDS`; what it would have said is then unknown, and the caller decides what that means. A pattern for which
that happens again and again is no longer tried on names of such a length: all of them together must not take for ever
either.
"""

from __future__ import annotations

import regex

from coldchain.errors import UsageError

MATCH_SECONDS = 0.1
MOST_UNDECIDED = 20
"""How many names may take too long until others of their length are not tried any more."""

_LONGEST_PATTERN = 10_000


class NamePattern:
    """A pattern that is searched anywhere in a name, as Perl's `=~` does.

    Raises UsageError where the pattern does not compile.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._undecided = 0
        self._shortest = 0
        if len(source) > _LONGEST_PATTERN:
            raise UsageError(
                f"the regular expression has {len(source):,} characters", expected=f"at most {_LONGEST_PATTERN:,}"
            )
        try:
            self._compiled = regex.compile(source)
        except (regex.error, OverflowError, RecursionError, ValueError) as error:
            raise UsageError(
                f"the regular expression {source!r} does not compile: {error}", remedy="Mend it"
            ) from error

    def found_in(self, name: str) -> bool | None:
        """Whether it is found in the name; None where that takes longer than `MATCH_SECONDS`, or is known to."""
        if self._undecided >= MOST_UNDECIDED and len(name) >= self._shortest:
            return None
        try:
            return self._compiled.search(name, timeout=MATCH_SECONDS) is not None
        except TimeoutError:
            self._shortest = min(self._shortest, len(name)) if self._undecided else len(name)
            self._undecided += 1
            return None

    @property
    def groups(self) -> frozenset[str]:
        """The names of its groups."""
        return frozenset(self._compiled.groupindex)

    def spans(self, name: str) -> dict[str, tuple[int, int]] | None:
        """Where its named groups lie in a name that it matches as a whole; None where it does not match.

        Groups that took no part are left out. Raises TimeoutError where it takes longer than `MATCH_SECONDS`.
        """
        found = self._compiled.fullmatch(name, timeout=MATCH_SECONDS)
        if found is None:
            return None
        spans = {group: found.span(group) for group in self._compiled.groupindex}
        return {group: span for group, span in spans.items() if span[0] >= 0}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NamePattern) and other.source == self.source

    def __hash__(self) -> int:
        return hash(self.source)
