"""A copy on its way into an S3 store."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from coldchain.errors import SourceChangedError, StorageError, VerificationError
from coldchain.model.files import KeptAside, VerificationLevel
from coldchain.storage.readback import ReadBack
from coldchain.storage.ring import Ring
from coldchain.storage.s3.notes import Record, metadata_of, note_of, with_digest
from coldchain.storage.s3.place import S3Place, aside_name
from coldchain.storage.s3.reading import read_back
from coldchain.storage.s3.sealed import Sealer, sealed_limit
from coldchain.storage.s3.upload import InParts, Whole, part_bytes_for
from coldchain.storage.store import FileFacts


class S3Incoming:
    """Takes the bytes of `relative`, to become the object `stored_as`. Made by `S3Store.receive`; to be entered.

    `alone` says whether nobody else in this process is sending an object of that name: only then an earlier try is
    gone on with.
    """

    skip_bytes = 0

    def __init__(self, place: S3Place, relative: str, stored_as: str, facts: FileFacts, *, alone: bool) -> None:
        self.stored_as = stored_as
        self.kept: KeptAside | None = None
        self._place = place
        self._relative = relative
        self._facts = facts
        self._key = place.key_of(stored_as)
        self._alone = alone
        self._count_bytes = 0
        self._proved = False
        self._published = False
        self._differs = False
        self._record: Record | None = None
        self._sealed = place.keys.is_sealing
        recipients = place.keys.recipients() if self._sealed else []
        with self._stating("beginning the copy"):
            self._sending = self._begun()
        self._sealer = Sealer(recipients, self._sending.write) if self._sealed else None

    @property
    def found_bytes(self) -> int:
        """How much the server had got from an earlier try, as far as is written."""
        return self._sending.found_bytes if isinstance(self._sending, InParts) else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._published:
            return
        if self._sealer is not None:
            self._sealer.abandon()
        if isinstance(self._sending, InParts):
            changed = self._differs or isinstance(error, SourceChangedError | VerificationError)
            self._sending.stop(keep=not (changed or self._sealed))

    def write(self, view: memoryview) -> None:
        """Take these bytes. Raises StoreFullError and StorageError, also of what was sent before."""
        with self._stating("sending the copy"):
            self._count_bytes += len(view)
            if self._sealer is None:
                self._sending.write(view)
            else:
                self._sealer.write(view)

    def seal(self, *, durable: bool = True) -> None:  # noqa: ARG002  # what a server acknowledged is durable
        """All is written: wait until the server has it, of a small file until it is published."""
        with self._stating("sending the copy"):
            if self._sealer is not None:
                self._sealer.close()
                self._sealer = None
            if isinstance(self._sending, InParts):
                self._proved = self._sending.settle()
                self._place.proves = self._proved
            else:
                self._proved = self._place.proves is True

    def prove(self, sha256: str, ring: Ring) -> ReadBack:  # noqa: ARG002  # read in full only once it is an object
        """What the server's answers prove of the parts; of a small file, what they are known to prove, compared when it
        is published. VerificationError where what was sent is not `sha256`, as far as is seen here."""
        if isinstance(self._sending, Whole) and not self._sealed:
            found = hashlib.sha256(self._sending.body).hexdigest()
            if found != sha256:
                raise self._is_not(f"what is to be sent has SHA-256 {found}", sha256)
        level = VerificationLevel.SERVER if self._proved else VerificationLevel.CACHE
        return ReadBack(sha256=sha256, size_bytes=self._count_bytes, level=level)

    def publish(self, sha256: str, ring: Ring, *, durable: bool = True) -> None:  # noqa: ARG002  # as for `seal`
        """Make it an object, and see that it is what was sent: by the server's answer or, where that does not tell, by
        reading it in full. VerificationError, and no object, where it is not."""
        self._place.require()
        self._keep_aside(sha256, ring)
        with self._stating("giving the copy its name"):
            if isinstance(self._sending, Whole):
                self._finish_whole(self._sending, sha256, ring)
            else:
                self._finish_parts(self._sending, sha256, ring)
        self._published = True

    def _begun(self) -> Whole | InParts:
        size_bytes = sealed_limit(self._facts.size_bytes) if self._sealed else self._facts.size_bytes
        part_bytes = part_bytes_for(size_bytes, self._place.settings.part_bytes)
        if size_bytes <= part_bytes or not self._facts.size_bytes:
            self._place.learn()
            return Whole(self._place.bucket, self._key, self._place.sums)
        return self._begun_in_parts(part_bytes)

    def _begun_in_parts(self, part_bytes: int) -> InParts:
        place, bucket = self._place, self._place.bucket
        wanted = Record(self._facts, self._sealed, part_bytes)
        earlier = place.record(self.stored_as) if self._alone else None
        upload = earlier.upload if earlier is not None else ""
        there = {}
        if upload and earlier == wanted.of(upload) and not self._sealed:
            there = bucket.parts(self._key, upload)
        if not there:
            if upload:
                bucket.abort(self._key, upload)
            metadata = metadata_of(self._relative, self._facts, sealed=self._sealed)
            upload = bucket.begin(self._key, place.sums.announced(), metadata)
            if self._alone:
                place.set_record(self.stored_as, wanted.of(upload))
        self._record = wanted.of(upload)
        return InParts(bucket, self._key, place.sums, place.lanes, part_bytes, upload, there)

    def _finish_whole(self, sending: Whole, sha256: str, ring: Ring) -> None:
        metadata = metadata_of(self._relative, self._facts, sealed=self._sealed, sha256=sha256, etag=sending.etag)
        try:
            proved = self._place.proves = sending.finish(metadata)
        except VerificationError as error:
            raise self._withdrawn(error.found, error.expected) from error
        if not (proved and self._proved):
            self._read_in_full(sha256, ring)

    def _finish_parts(self, sending: InParts, sha256: str, ring: Ring) -> None:
        etag = sending.finish()
        stood = self._place.bucket.head(self._key)
        if stood is None or stood.size_bytes != sending.size_bytes:
            found = "no object" if stood is None else f"an object of {stood.size_bytes:,} bytes"
            raise self._withdrawn(f"the server has {found}", f"{sending.size_bytes:,} bytes")
        agrees = self._place.sums.object_agrees(stood, sending.digests, etag)
        if agrees is False:
            raise self._withdrawn("the server's checksum of the object is another", "that of what was sent")
        if not (self._proved and agrees):
            self._read_in_full(sha256, ring)
        if self._record is not None:
            self._place.set_record(self.stored_as, self._record.proved(sha256, stood.etag))

    def _read_in_full(self, sha256: str, ring: Ring) -> None:
        try:
            found = read_back(self._place, self.stored_as, ring)
        except VerificationError as error:
            raise self._withdrawn(error.found, error.expected) from error
        if found.sha256 != sha256:
            raise self._withdrawn(f"the server gave back {found.size_bytes:,} bytes of SHA-256 {found.sha256}", sha256)

    def _withdrawn(self, found: str, expected: str) -> VerificationError:
        """The error of an object that has become of what was sent and is not that; it is removed."""
        with self._stating("removing a copy that is not whole"):
            self._place.bucket.remove(self._key)
        return self._is_not(found, expected)

    def _keep_aside(self, sha256: str, ring: Ring) -> None:
        bucket = self._place.bucket
        with self._stating("looking for what has its name"):
            stood = bucket.head(self._key)
        if stood is None:
            return
        try:
            found = read_back(self._place, self.stored_as, ring).sha256
        except StorageError:
            found = None  # its bytes may still be wanted by somebody with better tools
        if found == sha256:
            return
        with self._stating("keeping aside what has its name"):
            number = 1
            while (there := bucket.head(self._place.key_of(aside_name(self.stored_as, found, number)))) is not None:
                # A publication that was killed had kept it already.
                if found is not None and note_of(there).sha256 == found and there.size_bytes == stood.size_bytes:
                    break
                number += 1
            aside = aside_name(self.stored_as, found, number)
            if there is None:
                bucket.copy(self._key, self._place.key_of(aside), stood.size_bytes, with_digest(stood.metadata, found))
                there = bucket.head(self._place.key_of(aside))
        if there is None or there.size_bytes != stood.size_bytes:
            raise self._is_not("the server's copy of what was to be kept aside is not whole", "a whole one")
        self.kept = KeptAside(path=aside, sha256=found)

    def _is_not(self, found: str, expected: str) -> VerificationError:
        self._differs = True
        return VerificationError(
            f"store {self._place.name!r}: {found}",
            expected=expected,
            remedy="The copy is made again; if this comes back, test the network, the server and this machine's memory",
            path=self._place.words.path_of(self.stored_as),
        )

    def _stating(self, doing: str) -> AbstractContextManager[None]:
        return self._place.words.stating(doing, self.stored_as)
