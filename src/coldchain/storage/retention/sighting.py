"""How a copy that was read is known again after it was moved: under its name something else may stand by then."""

from __future__ import annotations

from dataclasses import dataclass

from coldchain.errors import VerificationError
from coldchain.model.files import VerificationLevel
from coldchain.model.policy import SOURCE
from coldchain.model.retention import FileOnStores
from coldchain.storage.ring import Ring
from coldchain.storage.store import FileFacts, Store


@dataclass(frozen=True, slots=True)
class Sighting:
    """A file's copy as it was just before it was read. `facts` is None where it is known by its digest: its store
    compares that for next to nothing, or nobody has looked before."""

    file: FileOnStores
    facts: FileFacts | None = None

    @property
    def is_as_catalogued(self) -> bool:
        """Whether it has the size and the time with which the file was taken in."""
        wanted = (self.file.size_bytes, self.file.modified_ns)
        return self.facts is not None and _size_and_time(self.facts) == wanted


def see(shelf: Store, store: str, location: str, file: FileOnStores) -> Sighting:
    """Look at a file's copy before it is read. Raises StorageError."""
    copy = None if store == SOURCE else file.on(store)
    if copy is not None and copy.level is VerificationLevel.SERVER:
        return Sighting(file)
    return Sighting(file, _facts(shelf, location))


def why_other(shelf: Store, store: str, location: str, seen: Sighting, ring: Ring) -> str:
    """What else lies there than the copy that was seen, "" where it is that. Raises StorageError.

    At the source size and time must be those that were catalogued: whoever has changed them is still at work.
    """
    now = None
    if store == SOURCE or seen.facts is not None:
        now = _facts(shelf, location)
    if store == SOURCE and not Sighting(seen.file, now).is_as_catalogued:
        return "it was written to since it was taken in"
    if now is not None and seen.facts is not None and _size_and_time(now) == _size_and_time(seen.facts):
        return ""
    return why_other_bytes(shelf, location, seen.file, ring)


def why_other_bytes(shelf: Store, location: str, file: FileOnStores, ring: Ring) -> str:
    """What else lies there than a file's content, "" where it is that. Raises StorageError."""
    assert file.sha256 is not None  # nothing else is cleared
    try:
        shelf.confirm(location, file.sha256, file.size_bytes, ring)
    except VerificationError as error:
        return error.found
    return ""


def _facts(shelf: Store, location: str) -> FileFacts:
    with shelf.reading(location) as opened:
        return opened.facts


def _size_and_time(facts: FileFacts) -> tuple[int, int]:
    return facts.size_bytes, facts.modified_ns
