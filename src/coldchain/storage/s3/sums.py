"""The checksums that go with what is sent to an S3 server, and what the server's answers prove.

A part's checksum is compared with the server's own of what it received; an object's is that of its parts' checksums,
one after the other, with their number behind. Both are made of the very bytes that the caller hashes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from coldchain.storage.s3.bucket import Part, Stood
from coldchain.storage.s3.settings import Checksum

if TYPE_CHECKING:
    from hashlib import _Hash

_MD5 = re.compile(r"[0-9a-f]{32}")
_MD5_OF_PARTS = re.compile(r"([0-9a-f]{32})-\d+")
# However else a server encrypts, its ETag is no MD5 of the content.
_BY_SERVER = frozenset({"", "AES256"})


class Sums:
    """One kind of checksum, as it is sent and as it is answered."""

    def __init__(self, kind: Checksum) -> None:
        self.kind = kind

    def new(self) -> _Hash:
        """An empty one."""
        if self.kind is Checksum.MD5:
            return hashlib.md5(usedforsecurity=False)
        return hashlib.sha256()

    def announced(self) -> Mapping[str, str]:
        """What beginning an upload is told of it."""
        return {} if self.kind is Checksum.MD5 else {"ChecksumAlgorithm": "SHA256"}

    def sent(self, digest: bytes) -> Mapping[str, str]:
        """What goes with a body: the server refuses a body that is another."""
        if self.kind is Checksum.MD5:
            return {"ContentMD5": _base64(digest)}
        return {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": _base64(digest)}

    def agrees(self, part: Part, digest: bytes) -> bool | None:
        """Whether the server received what has this digest; None where its answer does not tell."""
        if self.kind is Checksum.SHA256:
            return part.sha256 == _base64(digest) if part.sha256 else None
        if part.encrypted not in _BY_SERVER or not _MD5.fullmatch(part.etag):
            return None
        return part.etag == digest.hex()

    def etag_of(self, digests: Sequence[bytes]) -> str:
        """The ETag of an object of parts with these digests, where the kind is MD5."""
        return f"{self._of_parts(digests).hex()}-{len(digests)}"

    def object_agrees(self, stood: Stood, digests: Sequence[bytes], etag: str = "") -> bool | None:
        """Whether the server's checksum of an object is that of parts with these digests, or of one alone; None where
        it does not tell. `etag` is what completing it answered: some servers make another of it later."""
        alone = digests[0] if len(digests) == 1 else None
        if self.kind is Checksum.SHA256:
            wanted = {_base64(one) for one in (self._of_parts(digests), alone) if one is not None}
            return stood.sha256.partition("-")[0] in wanted if stood.sha256 else None
        found = {stood.etag, etag}
        return True if self.etag_of(digests) in found or (alone is not None and alone.hex() in found) else None

    def cut(self, stood: Stood, part_bytes: int) -> int:
        """In pieces of how many bytes an object is to be summed, whose parts had `part_bytes`, to be compared."""
        if self.kind is Checksum.MD5 and not _MD5_OF_PARTS.fullmatch(stood.etag):
            return max(1, stood.size_bytes)
        return part_bytes

    def _of_parts(self, digests: Sequence[bytes]) -> bytes:
        whole = self.new()
        whole.update(b"".join(digests))
        return whole.digest()


class Summer:
    """Sums a stream of bytes in pieces of `part_bytes`; the last may be shorter."""

    def __init__(self, sums: Sums, part_bytes: int) -> None:
        self._sums = sums
        self._part_bytes = part_bytes
        self._done: list[bytes] = []
        self._current = sums.new()
        self._count = 0

    def update(self, data: bytes | memoryview) -> None:
        """Go on with these bytes."""
        view = memoryview(data)
        while view:
            if self._count == self._part_bytes:
                self._turn()
            piece = view[: self._part_bytes - self._count]
            self._current.update(piece)
            self._count += len(piece)
            view = view[len(piece) :]

    def digests(self) -> list[bytes]:
        """Those of the pieces so far; of one empty piece where there was nothing."""
        return [*self._done, self._current.digest()]

    def _turn(self) -> None:
        self._done.append(self._current.digest())
        self._current = self._sums.new()
        self._count = 0


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")
