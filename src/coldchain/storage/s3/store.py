"""A store that is a bucket of an S3 server, or what begins with a prefix in it.

An object appears under its name only when all of it has arrived and the server has said what it got: larger files come
in parts, which are compared one by one by the server's checksum of each, and one request then makes an object of them.
Its level is `server`; what that proves, and what it does not, is in decision 14. A killed upload is gone on with.

Nothing that stands in a store is overwritten: other content of the same name is copied aside on the server first, as
`NAME.replaced-<8 hex of its digest>`. One service owns a store.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

from botocore.exceptions import ClientError

from coldchain.errors import StorageError, VerificationError
from coldchain.storage.identity_file import identity_bytes
from coldchain.storage.portable_names import NameRules, stored_name
from coldchain.storage.readback import ReadBack
from coldchain.storage.ring import Ring
from coldchain.storage.s3 import reading as s3_reading
from coldchain.storage.s3.bucket import Stood
from coldchain.storage.s3.incoming import S3Incoming
from coldchain.storage.s3.notes import note_of, with_digest
from coldchain.storage.s3.place import OWN_NAMES, S3Place
from coldchain.storage.s3.reading import S3Reading
from coldchain.storage.s3.settings import S3Settings
from coldchain.storage.s3.words import code_of, is_of_the_store
from coldchain.storage.store import IDENTITY_NAME, TRASH_FOLDER, FileFacts, Found, Space, wrong_store

# Answers of servers that keep no list of unfinished uploads.
_NO_LIST = frozenset({"NotImplemented", "501", "MethodNotAllowed", "405"})


class S3Store:
    """The store `name`, whose objects `settings` place. `identity`, where set, is what it has to bear."""

    batches = False
    near = False

    def __init__(self, name: str, settings: S3Settings, identity: UUID | None = None) -> None:
        self.name = name
        self._place = S3Place(name, settings, identity)

    @property
    def identity(self) -> UUID | None:
        """The identity that the store has to bear; None: any."""
        return self._place.identity

    @identity.setter
    def identity(self, identity: UUID | None) -> None:
        self._place.identity = identity

    def mark(self) -> UUID | None:
        """The identity that the store bears; None where it bears none. StorageError where it does not answer."""
        return self._place.mark()

    def set_mark(self, identity: UUID) -> None:
        """Have the store bear this identity; refused where it bears another."""
        found = self.mark()
        if found is not None and found != identity:
            raise wrong_store(self.name, identity, found)
        if found is None:
            with self._place.words.stating("giving it its identity", IDENTITY_NAME):
                self._place.bucket.put_own(self._place.prefix + IDENTITY_NAME, identity_bytes(identity, self.name))

    def space(self) -> Space | None:
        """None: a bucket has no end, or does not tell."""
        self._place.require()
        return None

    def stored_name(self, relative: str) -> str:
        """The object's name below the prefix (decision 17)."""
        return stored_name(relative, NameRules.S3)

    def size_of(self, stored_as: str) -> int | None:
        """Size in bytes of the plain content of an object; None where there is none."""
        stood = self._stood(stored_as)
        return None if stood is None else note_of(stood).facts.size_bytes

    def receive(self, relative: str, facts: FileFacts) -> AbstractContextManager[S3Incoming]:
        """Begin a copy of `relative`. Unless it was published, leaving keeps the parts that have arrived for the next
        try of the same size, time and mode; not so where the source changed, or where it is encrypted."""
        stored_as = self.stored_name(relative)
        if stored_as.split("/", 1)[0] == TRASH_FOLDER:
            raise self._failure("this name is one of the store's own", "Rename the file at its source", stored_as)
        self._place.require()
        return self._receiving(relative, stored_as, facts)

    @contextmanager
    def _receiving(self, relative: str, stored_as: str, facts: FileFacts) -> Iterator[S3Incoming]:
        key = self._place.key_of(stored_as)
        alone = self._place.take_in_hand(key)
        try:
            with S3Incoming(self._place, relative, stored_as, facts, alone=alone) as incoming:
                yield incoming
        finally:
            self._place.let_go(key)

    def flush(self) -> None:
        """Nothing to do: what a server acknowledged is durable."""
        self._place.require()

    def read_back(self, stored_as: str, ring: Ring) -> ReadBack:
        """Read an object in full, and decrypt it where it is encrypted: `server` where the server's own checksum agrees
        with what arrived, else `cache`."""
        self._place.require()
        return s3_reading.read_back(self._place, stored_as, ring)

    def confirm(self, stored_as: str, sha256: str, size_bytes: int, ring: Ring) -> ReadBack:
        """See that an object is the one that was proved to be `sha256`: by one or two small requests, or by reading it
        in full where the server does not tell. VerificationError where it is not."""
        self._place.require()
        return s3_reading.confirm(self._place, stored_as, sha256, size_bytes, ring)

    @contextmanager
    def reading(self, stored_as: str) -> Iterator[S3Reading]:
        """Open an object to be read; decrypted where it is encrypted."""
        self._place.require()
        with s3_reading.reading(self._place, stored_as) as opened:
            yield opened

    def move(self, stored_as: str, to: str) -> None:
        """Copy an object on the server, see that the copy is whole, and remove the object; never over one that is
        there."""
        source, target = self._place.key_of(stored_as), self._place.key_of(to)
        self._place.require()
        stood = self._stood(stored_as)
        if stood is None:
            raise self._failure("moving it failed: there is no such object", "See who removed it", stored_as)
        if self._stood(to) is not None:
            raise self._failure("something has that name already", "Move it out of the way", to)
        with self._place.words.stating("moving it", stored_as):
            record = self._place.record(stored_as)
            proved = record.sha256 if record is not None and record.etag == stood.etag else None
            self._place.bucket.copy(source, target, stood.size_bytes, with_digest(stood.metadata, proved or None))
            copied = self._place.bucket.head(target)
            if copied is None or not _same(stood, copied, by_etag=self._place.proves is True):
                self._place.bucket.remove(target)
                raise VerificationError(
                    f"store {self.name!r}: the server's copy of an object is not that object",
                    remedy="See the server's log; nothing was removed",
                    path=self._place.words.path_of(stored_as),
                )
            self._place.bucket.remove(source)
            if record is not None:
                self._place.drop_record(stored_as)

    def remove(self, stored_as: str) -> bool:
        """Remove an object for good, as far as the bucket does that: one with versions keeps them. Whether it was
        there."""
        stood = self._stood(stored_as)
        if stood is None:
            return False
        with self._place.words.stating("removing it", stored_as):
            self._place.bucket.remove(self._place.key_of(stored_as))
            if note_of(stood).sha256 is None:
                self._place.drop_record(stored_as)
        return True

    def walk(self) -> Iterator[Found]:
        """Every object of the store but its own. Sizes are those that are stored: encrypted, a little larger."""
        self._place.require()
        with self._place.words.stating("listing it"):
            for key, size_bytes in self._place.bucket.listing(self._place.prefix):
                stored_as = key.removeprefix(self._place.prefix)
                # Consoles make empty objects that end in a slash, to show a folder.
                if stored_as.split("/", 1)[0] not in OWN_NAMES and not stored_as.endswith("/"):
                    yield Found(stored_as=stored_as, size_bytes=size_bytes)

    def remove_partials(self) -> int:
        """Abort the uploads that were begun longer ago than killed ones are kept to be gone on with, and say how many
        there were. On servers that keep no list of them there are none."""
        self._place.require()
        bucket, aborted = self._place.bucket, 0
        latest = datetime.now(UTC) - timedelta(days=self._place.settings.abandoned_days)
        with self._place.words.stating("looking for unfinished uploads"):
            try:
                for key, upload, begun in bucket.uploads(self._place.prefix):
                    if begun < latest and not self._place.is_in_hand(key):
                        bucket.abort(key, upload)
                        self._forget(key.removeprefix(self._place.prefix), upload)
                        aborted += 1
            except ClientError as error:
                if code_of(error) not in _NO_LIST:
                    raise
        return aborted

    def is_at_fault(self, error: StorageError) -> bool:
        """Whether an error of this store is the whole store's: it cannot be reached, is busy or full, or refuses the
        access key. Of anything else, which may be one object's, the store is asked."""
        if isinstance(error, VerificationError):
            return False
        if is_of_the_store(error):
            return True
        try:
            self._place.require(anew=True)
        except StorageError:
            return True
        return False

    def _stood(self, stored_as: str) -> Stood | None:
        key = self._place.key_of(stored_as)
        self._place.require()
        with self._place.words.stating("looking at it", stored_as):
            return self._place.bucket.head(key)

    def _forget(self, stored_as: str, upload: str) -> None:
        record = self._place.record(stored_as)
        if record is not None and record.upload == upload:
            self._place.drop_record(stored_as)

    def _failure(self, found: str, remedy: str, stored_as: str) -> StorageError:
        return StorageError(f"store {self.name!r}: {found}", remedy=remedy, path=self._place.words.path_of(stored_as))


def _same(stood: Stood, copied: Stood, *, by_etag: bool) -> bool:
    """Whether a copy is the object, as far as the server's answers tell: an object of parts that is copied in one piece
    has another ETag."""
    alike = copied.etag == stood.etag or "-" in stood.etag + copied.etag or not by_etag
    return copied.size_bytes == stood.size_bytes and alike
