"""What an S3 store writes down about an object: its facts, with the object; and, for one that came in parts, a record.

An object in parts gets its metadata before its digest is known, and nothing can be added later. So each has a record, a
small object of JSON under `.coldchain-proofs/`: first which upload will make it and what it is a copy of, by which a
killed upload is found again; then which SHA-256 was proved, and the ETag of the object of which that is true.

All of it comes back from a server that may be anything, and is read so.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace

from coldchain.storage.s3.bucket import Stood
from coldchain.storage.store import FileFacts

PROOFS_FOLDER = ".coldchain-proofs"
RECORD_LIMIT_BYTES = 16 << 10

_MODIFIED, _MODE, _SIZE = "coldchain-modified-ns", "coldchain-mode", "coldchain-size"
_PATH, _SEALED, _SHA256, _ETAG = "coldchain-path", "coldchain-sealed", "coldchain-sha256", "coldchain-etag"
# A server takes 2 KB of metadata in all.
_PATH_LIMIT = 1200
_ENCODED = "base64:"
_PLAIN = re.compile(r"(?!base64:)[!-~](?:[ -~]*[!-~])?")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_INTEGER = re.compile(r"-?\d{1,19}")
_OWNER_READS = stat.S_IRUSR
_PLAIN_MODE = 0o644
_SEALED_BY = "age"


@dataclass(frozen=True, slots=True)
class Note:
    """What an object's metadata says of it. `facts` are those of the plain content; `sha256` is None where it is in
    the record, or nowhere; `etag` is what the server's should be, "" where that is not said. `known` says whether
    there is any metadata of ours: some servers lose it."""

    facts: FileFacts
    sealed: bool
    sha256: str | None
    etag: str
    known: bool


def metadata_of(
    relative: str, facts: FileFacts, *, sealed: bool, sha256: str | None = None, etag: str = ""
) -> dict[str, str]:
    """The metadata of a copy of `relative`."""
    found = {
        _MODIFIED: str(facts.modified_ns),
        _MODE: format(facts.mode & 0o777 | _OWNER_READS, "o"),
        _SIZE: str(facts.size_bytes),
    }
    path = _encoded(relative)
    if len(path) <= _PATH_LIMIT:
        found[_PATH] = path
    if sealed:
        found[_SEALED] = _SEALED_BY
    if sha256 is not None:
        found[_SHA256] = sha256
    if etag:
        found[_ETAG] = etag
    return found


def with_digest(metadata: Mapping[str, str], sha256: str | None) -> dict[str, str]:
    """An object's metadata for a copy of it, with its digest."""
    kept = {key: value for key, value in metadata.items() if key.startswith("coldchain-")}
    return kept if sha256 is None else {**kept, _SHA256: sha256}


def note_of(stood: Stood) -> Note:
    """What an object's metadata says; of one that was put there by others, what the server says."""
    metadata = stood.metadata
    sealed = metadata.get(_SEALED) == _SEALED_BY
    size_bytes = _integer(metadata.get(_SIZE), stood.size_bytes) if sealed else stood.size_bytes
    mode = metadata.get(_MODE, "")
    facts = FileFacts(
        size_bytes=max(0, size_bytes),
        modified_ns=_integer(metadata.get(_MODIFIED), int(stood.modified.timestamp()) * 1_000_000_000),
        mode=int(mode, 8) if re.fullmatch(r"[0-7]{3}", mode) else _PLAIN_MODE,
    )
    sha256 = metadata.get(_SHA256, "")
    known = sha256 if _DIGEST.fullmatch(sha256) else None
    return Note(facts=facts, sealed=sealed, sha256=known, etag=metadata.get(_ETAG, ""), known=_SIZE in metadata)


def path_of(metadata: Mapping[str, str]) -> str | None:
    """The relative path of which an object is a copy, as its metadata says; None where it does not."""
    text = metadata.get(_PATH)
    if text is None or not text.startswith(_ENCODED):
        return text
    try:
        return os.fsdecode(base64.b64decode(text.removeprefix(_ENCODED), validate=True))
    except binascii.Error:
        return None


@dataclass(frozen=True, slots=True)
class Record:
    """The record of an object in parts. `sha256` and `etag` are "" until it is proved, `upload` is "" from then on."""

    facts: FileFacts
    sealed: bool
    part_bytes: int
    upload: str = ""
    sha256: str = ""
    etag: str = ""

    def of(self, upload: str) -> Record:
        """The record of an object that this upload is to become."""
        return replace(self, upload=upload)

    def proved(self, sha256: str, etag: str) -> Record:
        """The record of the object that the upload has become."""
        return replace(self, upload="", sha256=sha256, etag=etag)

    def to_bytes(self, stored_as: str) -> bytes:
        """As it is stored."""
        stated = {
            "object": stored_as,
            "size_bytes": self.facts.size_bytes,
            "modified_ns": self.facts.modified_ns,
            "mode": self.facts.mode,
            "sealed": self.sealed,
            "part_bytes": self.part_bytes,
            "upload": self.upload,
            "sha256": self.sha256,
            "etag": self.etag,
        }
        return json.dumps(stated).encode("ascii") + b"\n"


def record_of(content: bytes | None, stored_as: str) -> Record | None:
    """The record that such content is of this object; None where it is none."""
    try:
        stated = json.loads(content or b"")
        if not isinstance(stated, dict) or stated.get("object") != stored_as:
            return None
        numbers = [stated[key] for key in ("size_bytes", "modified_ns", "mode", "part_bytes")]
        texts = [stated[key] for key in ("upload", "sha256", "etag")]
    except (ValueError, KeyError, RecursionError):
        return None
    if not all(type(one) is int for one in numbers) or not all(type(one) is str for one in texts):
        return None
    if numbers[3] < 1:
        return None
    return Record(FileFacts(*numbers[:3]), stated.get("sealed") is True, numbers[3], *texts)


def record_name(stored_as: str) -> str:
    """The stored name of an object's record: one of the store's own."""
    return f"{PROOFS_FOLDER}/{hashlib.sha256(os.fsencode(stored_as)).hexdigest()[:32]}"


def _encoded(relative: str) -> str:
    if _PLAIN.fullmatch(relative):
        return relative
    return _ENCODED + base64.b64encode(os.fsencode(relative)).decode("ascii")


def _integer(text: str | None, otherwise: int) -> int:
    return int(text) if text is not None and _INTEGER.fullmatch(text) else otherwise
