"""Reading an object: its plain content, what the server says of it, and whether the two agree.

An object that is read in full is summed as it arrives. Where the server's own checksum of what it once received is
that of the bytes that came now, the level is `server`; else it is `cache`: nothing proves where they came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from coldchain.errors import VerificationError
from coldchain.model.files import VerificationLevel
from coldchain.storage.digests import new_digest
from coldchain.storage.readback import ReadBack
from coldchain.storage.ring import Ring, stream
from coldchain.storage.s3.bucket import Stood
from coldchain.storage.s3.notes import Note, note_of
from coldchain.storage.s3.place import S3Place
from coldchain.storage.s3.sealed import HEAD_BYTES, Opener, Source, plain_size
from coldchain.storage.s3.sums import Summer
from coldchain.storage.s3.upload import part_bytes_for
from coldchain.storage.store import FileFacts


class _Plain(Protocol):
    """What gives an object's plain content."""

    def fill(self, view: memoryview) -> int: ...

    def close(self) -> None: ...


class S3Reading:
    """An object that is read from its beginning. Made by `reading`."""

    def __init__(self, place: S3Place, stored_as: str, note: Note, plain: _Plain) -> None:
        self._place = place
        self._stored_as = stored_as
        self._note = note
        self._plain = plain

    @property
    def facts(self) -> FileFacts:
        """The plain content's size, time and mode."""
        return self._note.facts

    def fill(self, view: memoryview) -> int:
        """Read on into the view; how many bytes, 0 at the end. VerificationError where sealed content was changed."""
        with self._place.words.stating("reading it", self._stored_as):
            return self._plain.fill(view)


@contextmanager
def reading(place: S3Place, stored_as: str, *, summer: Summer | None = None) -> Iterator[S3Reading]:
    """Open an object to be read; what arrives is summed as it does."""
    with place.words.stating("opening it", stored_as):
        stood, body = place.bucket.get(place.key_of(stored_as))
    arriving = _Arriving(body, summer)
    try:
        with place.words.stating("reading it", stored_as):
            note = _as_read(place, stood, arriving)
        plain = Opener(arriving, place.keys.identities()) if note.sealed else arriving
        try:
            yield S3Reading(place, stored_as, note, plain)
        finally:
            plain.close()
    finally:
        arriving.close()


def _as_read(place: S3Place, stood: Stood, arriving: _Arriving) -> Note:
    """What is said of an object that is read. Where a server has lost that, encrypted content is still known by its
    beginning: nobody shall get it for the plain one."""
    note = note_of(stood)
    if note.known or not place.keys.is_sealing:
        return note
    size_bytes = plain_size(arriving.peek(HEAD_BYTES), stood.size_bytes)
    return note if size_bytes is None else replace(note, sealed=True, facts=replace(note.facts, size_bytes=size_bytes))


def read_back(place: S3Place, stored_as: str, ring: Ring) -> ReadBack:
    """Read an object in full, and compare what arrives with the server's own checksum."""
    with place.words.stating("looking at it", stored_as):
        stood = place.bucket.head(place.key_of(stored_as))
        record = None if stood is None else place.record(stored_as) if "-" in stood.etag else None
    usual = 0 if stood is None else part_bytes_for(stood.size_bytes, place.settings.part_bytes)
    summer = None
    if stood is not None:
        summer = Summer(place.sums, place.sums.cut(stood, record.part_bytes if record else usual))
    digest = new_digest(stood.size_bytes if stood is not None else 0)
    with reading(place, stored_as, summer=summer) as opened:
        # One byte more than it should have: a longer one is not taken for whole.
        size_bytes = stream(opened.fill, opened.facts.size_bytes + 1, [digest.update], ring)
    agrees = stood is not None and summer is not None and place.sums.object_agrees(stood, summer.digests()) is True
    level = VerificationLevel.SERVER if agrees else VerificationLevel.CACHE
    return ReadBack(sha256=digest.hexdigest(), size_bytes=size_bytes, level=level)


def confirm(place: S3Place, stored_as: str, sha256: str, size_bytes: int, ring: Ring) -> ReadBack:
    """See that an object is the one that was proved: by what the server says of it, or, where that does not tell, by
    reading it in full. VerificationError where it is another, or gone."""
    with place.words.stating("asking for it", stored_as):
        stood = place.bucket.head(place.key_of(stored_as))
        if stood is None:
            place.require(anew=True)  # of a bucket that is gone, some servers say that the object is missing
            raise _is_not(place, stored_as, "there is no such object", sha256)
        proved = _proved(place, stored_as, stood)
    if note_of(stood).facts.size_bytes != size_bytes:
        raise _is_not(place, stored_as, f"the object has {note_of(stood).facts.size_bytes:,} bytes", sha256)
    if proved == sha256:
        return ReadBack(sha256=sha256, size_bytes=size_bytes, level=VerificationLevel.SERVER)
    found = read_back(place, stored_as, ring)
    if found.sha256 != sha256:
        raise _is_not(place, stored_as, f"the object has {found.size_bytes:,} bytes of SHA-256 {found.sha256}", sha256)
    return found


def _proved(place: S3Place, stored_as: str, stood: Stood) -> str | None:
    """The SHA-256 that was proved of exactly this object; None where nothing tells."""
    note = note_of(stood)
    if note.sha256 is not None and (note.etag in ("", stood.etag) or place.proves is False):
        return note.sha256
    record = place.record(stored_as)
    return record.sha256 if record is not None and record.etag == stood.etag and record.sha256 else None


def _is_not(place: S3Place, stored_as: str, found: str, sha256: str) -> VerificationError:
    return VerificationError(
        f"store {place.name!r}: {found}",
        expected=f"SHA-256 {sha256}",
        remedy="Mend the copy from another one",
        path=place.words.path_of(stored_as),
    )


class _Arriving:
    """The bytes of an object as they arrive, and their sums."""

    def __init__(self, body: Source, summer: Summer | None) -> None:
        self._body = body
        self._summer = summer
        self._ahead = b""

    def peek(self, amount: int) -> bytes:
        self._ahead += self._from_server(amount - len(self._ahead))
        return self._ahead

    def read(self, amount: int) -> bytes:
        if self._ahead:
            data, self._ahead = self._ahead[:amount], self._ahead[amount:]
            return data
        return self._from_server(amount)

    def _from_server(self, amount: int) -> bytes:
        data = self._body.read(amount)
        if self._summer is not None:
            self._summer.update(data)
        return data

    def fill(self, view: memoryview) -> int:
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._body.close()
