"""What all parts of one S3 store share: its bucket and prefix, its words, and whether it is still the store."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import PurePosixPath
from threading import Lock
from uuid import UUID

from coldchain.errors import StorageError
from coldchain.model.identity import is_safe_relative
from coldchain.storage.identity_file import LIMIT_BYTES, identity_of
from coldchain.storage.s3.bucket import Bucket
from coldchain.storage.s3.notes import PROOFS_FOLDER, RECORD_LIMIT_BYTES, Record, record_name, record_of
from coldchain.storage.s3.sealed import Keys
from coldchain.storage.s3.settings import S3Settings
from coldchain.storage.s3.sums import Sums
from coldchain.storage.s3.upload import Lanes
from coldchain.storage.s3.words import S3Words
from coldchain.storage.store import IDENTITY_NAME, TRASH_FOLDER, wrong_store

OWN_NAMES = frozenset({IDENTITY_NAME, TRASH_FOLDER, PROOFS_FOLDER})

# Asking before every request would double what a small file costs; nobody mounts another disk under a bucket's name.
_IDENTITY_SECONDS = 10.0
_KEY_LIMIT_BYTES = 1024
_OWN = frozenset({(IDENTITY_NAME,), (PROOFS_FOLDER,)})


class S3Place:
    """The objects of the store `name`. `proves` says whether the server's answers prove what it got: None until the
    first told."""

    def __init__(self, name: str, settings: S3Settings, identity: UUID | None) -> None:
        self.name = name
        self.settings = settings
        self.identity = identity
        self.bucket = Bucket(settings)
        self.keys = Keys(settings.recipients, settings.identity_file)
        self.sums = Sums(settings.checksum)
        self.lanes = Lanes(settings.concurrency)
        self.prefix = f"{settings.prefix}/" if settings.prefix else ""
        beneath = "/".join(part for part in (settings.bucket, settings.prefix) if part)
        self.words = S3Words(name, beneath, settings.endpoint_url or "Amazon S3")
        self.proves: bool | None = None
        self._lock = Lock()
        self._seen_at: float | None = None
        self._seen_identity: UUID | None = None
        self._in_hand: Counter[str] = Counter()

    def key_of(self, stored_as: str) -> str:
        """The key of an object, in the trash too. StorageError where the name is no copy's, or cannot be one."""
        path = PurePosixPath(stored_as)
        if path.parts[:1] in _OWN:
            raise StorageError(
                "this name is one of the store's own", remedy="Rename the file at its source", path=stored_as
            )
        if not is_safe_relative(path) or "\0" in stored_as or str(path) != stored_as:
            raise StorageError(
                "this name leads out of the store", expected="a relative path without `..`", path=stored_as
            )
        key = self.prefix + stored_as
        try:
            length = len(key.encode("utf-8"))
        except UnicodeEncodeError:
            length = _KEY_LIMIT_BYTES + 1
        if length > _KEY_LIMIT_BYTES:
            raise StorageError(
                "this name cannot be an object's key",
                expected=f"UTF-8 of at most {_KEY_LIMIT_BYTES} bytes",
                path=stored_as,
            )
        return key

    def require(self, *, anew: bool = False) -> None:
        """Raise StorageError unless the bucket answers and bears the store's identity; asked again after seconds."""
        with self._lock:
            known = self._seen_at is not None and time.monotonic() - self._seen_at < _IDENTITY_SECONDS
            if known and not anew and self._seen_identity == self.identity:
                return
        found = self.mark()
        if self.identity is not None and found != self.identity:
            raise wrong_store(self.name, self.identity, found)
        with self._lock:
            self._seen_at, self._seen_identity = time.monotonic(), self.identity

    def mark(self) -> UUID | None:
        """The identity that the store bears. StorageError where the bucket does not answer."""
        with self.words.stating("asking for its identity", IDENTITY_NAME):
            content = self.bucket.get_own(self.prefix + IDENTITY_NAME, LIMIT_BYTES + 1)
            if content is None:
                self.bucket.require()  # some servers say of a missing bucket that the object is missing
                return None
        return identity_of(content)

    def learn(self) -> None:
        """Have the server receive a few bytes, unless it is known already whether its answers prove what it got: as the
        part of an upload that is given up, so that there is never an object. Raises botocore's errors."""
        if self.proves is not None:
            return
        body, key = bytearray(b"Does the answer prove what was received?"), f"{self.prefix}{PROOFS_FOLDER}/question"
        digest = self.sums.new()
        digest.update(body)
        upload = self.bucket.begin(key, self.sums.announced(), {})
        try:
            part = self.bucket.send(key, upload, 1, body, self.sums.sent(digest.digest()))
        finally:
            self.bucket.abort(key, upload)
        self.proves = self.sums.agrees(part, digest.digest()) is True

    def record(self, stored_as: str) -> Record | None:
        """The record of an object in parts. Raises botocore's errors."""
        return record_of(self.bucket.get_own(self.prefix + record_name(stored_as), RECORD_LIMIT_BYTES), stored_as)

    def set_record(self, stored_as: str, record: Record) -> None:
        """Write down what is known of an object in parts. Raises botocore's errors."""
        self.bucket.put_own(self.prefix + record_name(stored_as), record.to_bytes(stored_as))

    def drop_record(self, stored_as: str) -> None:
        """Forget what was known of an object. Raises botocore's errors."""
        self.bucket.remove(self.prefix + record_name(stored_as))

    def take_in_hand(self, key: str) -> bool:
        """Whether nobody else in this process is sending that object; it is in hand from now on."""
        with self._lock:
            self._in_hand[key] += 1
            return self._in_hand[key] == 1

    def let_go(self, key: str) -> None:
        """One who had it in hand has it no more."""
        with self._lock:
            self._in_hand[key] -= 1
            if not self._in_hand[key]:
                del self._in_hand[key]

    def is_in_hand(self, key: str) -> bool:
        """Whether somebody in this process is sending that object."""
        with self._lock:
            return key in self._in_hand


def aside_name(stored_as: str, sha256: str | None, number: int) -> str:
    """What other content of that name is called when it is kept aside."""
    ending = f".replaced-{sha256[:8] if sha256 else 'unreadable'}"
    return stored_as + (ending if number == 1 else f"{ending}-{number}")
