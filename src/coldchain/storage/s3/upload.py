"""How the bytes of one copy go to an S3 server: in one request, or in parts while they still come in.

Nothing is visible under the object's name before `finish`: an upload in parts is made an object by one request, and a
small one is sent by that request itself. A part is sent only if the server has not got it from an earlier try: what is
there is compared by checksum with what comes in. The parts of all uploads of a store share its threads and its memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from threading import BoundedSemaphore

from botocore.exceptions import BotoCoreError, ClientError

from coldchain.errors import VerificationError
from coldchain.storage.s3.bucket import Bucket, Part
from coldchain.storage.s3.settings import MEBIBYTE, Checksum
from coldchain.storage.s3.sums import Summer, Sums
from coldchain.storage.s3.words import NO_UPLOAD, code_of

_MOST_PARTS = 10_000
# As many parts wait as are being sent, so that the source is read on meanwhile.
_WAITING = 2


def part_bytes_for(size_bytes: int, least_bytes: int) -> int:
    """How large the parts of an object are: `least_bytes`, or what gives no more parts than a server takes."""
    needed = -(-size_bytes // (_MOST_PARTS - 1))
    return max(least_bytes, -(-needed // MEBIBYTE) * MEBIBYTE)


class Lanes:
    """The threads that send a store's parts, and a bound on the parts that are in memory."""

    def __init__(self, concurrency: int) -> None:
        self.pool = ThreadPoolExecutor(concurrency, thread_name_prefix="s3")
        self.places = BoundedSemaphore(_WAITING * concurrency)


class Whole:
    """A small object, sent in one request."""

    def __init__(self, bucket: Bucket, key: str, sums: Sums) -> None:
        self._bucket = bucket
        self._key = key
        self._sums = sums
        self._digest = sums.new()
        self.body = bytearray()

    @property
    def etag(self) -> str:
        """The ETag that the object is to have, where the server's ETags are MD5s."""
        return self._digest.hexdigest() if self._sums.kind is Checksum.MD5 else ""

    def write(self, data: bytes | memoryview) -> None:
        """Take these bytes."""
        self._digest.update(data)
        self.body += data

    def finish(self, metadata: Mapping[str, str]) -> bool:
        """Make it an object; whether the server's answer proves it. VerificationError where it got something else."""
        digest = self._digest.digest()
        answer = self._bucket.put(self._key, self.body, self._sums.sent(digest), metadata)
        agrees = self._sums.agrees(answer, digest)
        if agrees is False:
            raise _differs(answer)
        return agrees is True


class InParts:
    """An object sent in parts. `there` are those that the server has got from an earlier try, by number."""

    def __init__(
        self,
        bucket: Bucket,
        key: str,
        sums: Sums,
        lanes: Lanes,
        part_bytes: int,
        upload: str,
        there: Mapping[int, Part],
    ) -> None:
        self.upload = upload
        self.size_bytes = 0
        self.found_bytes = 0
        self._bucket = bucket
        self._key = key
        self._sums = sums
        self._lanes = lanes
        self._part_bytes = part_bytes
        self._there = there
        self._sent: list[Future[Part]] = []
        self.digests: list[bytes] = []
        self._filled = 0
        self._body: bytearray | None = None
        self._summer = Summer(sums, part_bytes)
        self._failure: Exception | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Take these bytes. Raises what sending an earlier part raised."""
        view = memoryview(data)
        while view:
            if self._failure is not None:
                raise self._failure
            if self._body is None:
                self._lanes.places.acquire()
                self._body = bytearray(self._part_bytes)
            piece = view[: self._part_bytes - self._filled]
            self._summer.update(piece)
            self._body[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            view = view[len(piece) :]
            if self._filled == self._part_bytes:
                self._ship(self._body)

    def settle(self) -> bool:
        """All is written: wait for the server; whether its answers prove every part.

        Raises what sending a part raised, VerificationError where the server got something else.
        """
        if self._body is not None:
            self._ship(self._body)
        parts = [future.result() for future in self._sent]
        return all(self._sums.agrees(part, digest) for part, digest in zip(parts, self.digests, strict=True))

    def finish(self) -> str:
        """Make it an object, and return its ETag, "" where the server did not tell."""
        parts = [future.result() for future in self._sent]
        try:
            return self._bucket.complete(self._key, self.upload, parts)
        except (ClientError, BotoCoreError) as error:
            # An answer that was lost, and the request sent again: the upload is gone because it is done.
            if isinstance(error, ClientError) and code_of(error) != NO_UPLOAD:
                raise
            stood = self._bucket.head(self._key)
            if stood is None or not self._sums.object_agrees(stood, self.digests):
                raise
            return stood.etag

    def stop(self, *, keep: bool) -> None:
        """Send no more. The server keeps what it has, to be found by the next try, or is told to drop it."""
        for future in self._sent:
            if future.cancel():
                self._lanes.places.release()
        wait(self._sent)
        if self._body is not None:
            self._body = None
            self._lanes.places.release()
        if not keep:
            with suppress(ClientError, BotoCoreError, OSError):  # it is aborted when it is old
                self._bucket.abort(self._key, self.upload)

    def _ship(self, body: bytearray) -> None:
        del body[self._filled :]
        digest = self._summer.digests()[-1]
        self._summer = Summer(self._sums, self._part_bytes)
        number = len(self._sent) + 1
        self.digests.append(digest)
        self.size_bytes += self._filled
        self._body, self._filled = None, 0
        there = self._there.get(number)
        if there is not None and there.size_bytes == len(body) and self._sums.agrees(there, digest):
            self._lanes.places.release()
            self.found_bytes += len(body)
            done: Future[Part] = Future()
            done.set_result(there)
            self._sent.append(done)
        else:
            self._sent.append(self._lanes.pool.submit(self._send, number, body, digest))

    def _send(self, number: int, body: bytearray, digest: bytes) -> Part:
        try:
            part = self._bucket.send(self._key, self.upload, number, body, self._sums.sent(digest))
        except Exception as error:
            self._failure = error
            raise
        finally:
            self._lanes.places.release()
        if self._sums.agrees(part, digest) is False:
            self._failure = _differs(part)
            raise self._failure
        return part


def _differs(part: Part) -> VerificationError:
    return VerificationError(
        f"the server got {part.size_bytes:,} bytes of which it says {part.sha256 or part.etag}",
        expected="the checksum that was sent with them",
        remedy="The copy is made again; if this comes back, test the network, or set `checksum` to `sha256` where this "
        "server's ETags are no MD5",
    )
