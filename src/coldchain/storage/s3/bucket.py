"""One bucket of an S3 server, and the only place that speaks to botocore.

A request is tried again by botocore itself while the server is busy or does not answer, some times. What else goes
wrong is raised as botocore states it; `words` says it to people. Bodies are not signed, as is usual over https; the
checksum that goes with each is.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from threading import Lock
from typing import Any

from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.session import Session

from coldchain.errors import ColdchainError, StorageError
from coldchain.storage.s3.sealed import Source
from coldchain.storage.s3.settings import S3Settings, Secret
from coldchain.storage.s3.words import NO_UPLOAD, code_of, is_missing, is_of_the_key

# botocore makes its methods from a description of the service when it runs; what they answer are plain dictionaries.
_Answer = dict[str, Any]

COPY_LIMIT_BYTES = 5 << 30
"""What is larger is not copied by one request."""

_COPIED_PART_BYTES = 1 << 30
# More connections than parts at a time: requests about other objects go on meanwhile.
_CONNECTIONS_BESIDE = 8
_ANY_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Stood:
    """An object as the server describes it. `size_bytes` is what is stored; `etag` has no quotes; `metadata` has
    lower-case keys; `sha256` is the server's own checksum of the parts' checksums, where it has one."""

    size_bytes: int
    etag: str
    metadata: Mapping[str, str]
    modified: datetime
    sha256: str


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an upload as the server answers it. `encrypted` is how the server encrypts it, "" where it does not."""

    number: int
    size_bytes: int
    etag: str
    sha256: str
    encrypted: str = ""


class Bucket:
    """The objects of one bucket. Keys are whole: with the store's prefix."""

    def __init__(self, settings: S3Settings) -> None:
        self.name = settings.bucket
        self._settings = settings
        self._lock = Lock()
        self._made: Any = None

    def head(self, key: str) -> Stood | None:
        """What the server says of an object; None where there is none."""
        try:
            found = self._call("head_object", Key=key, ChecksumMode="ENABLED")
        except ClientError as error:
            if is_missing(error):
                return None
            raise
        return _stood(found)

    def get(self, key: str) -> tuple[Stood, Source]:
        """An object and its content, to be read to its end or dropped."""
        found = self._call("get_object", Key=key, ChecksumMode="ENABLED")
        return _stood(found), found["Body"]

    def put(self, key: str, body: bytes | bytearray, sent: Mapping[str, str], metadata: Mapping[str, str]) -> Part:
        """Store an object in one request; `sent` are its checksum's parameters."""
        answer = self._call(
            "put_object",
            Key=key,
            Body=body,
            Metadata=metadata,
            **self._class(),
            **sent,
        )
        return _part(1, len(body), answer)

    def put_own(self, key: str, body: bytes) -> None:
        """Store one of the store's own small objects, in the bucket's own storage class."""
        digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode("ascii")
        self._call("put_object", Key=key, Body=body, ContentMD5=digest)

    def get_own(self, key: str, limit_bytes: int) -> bytes | None:
        """The first bytes of one of the store's own objects; None where there is none."""
        try:
            body = self._call("get_object", Key=key)["Body"]
        except ClientError as error:
            if is_missing(error):
                return None
            raise
        try:
            content: bytes = body.read(limit_bytes)
            return content
        finally:
            body.close()

    def remove(self, key: str) -> None:
        """Remove an object, if it is there."""
        self._call("delete_object", Key=key)

    def require(self) -> None:
        """Ask for anything at all in the bucket: raises what makes it unusable."""
        self._call("list_objects_v2", MaxKeys=1)

    def listing(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Keys and sizes of all objects whose key begins so."""
        for page in self._pages("list_objects_v2", Prefix=prefix):
            for found in page.get("Contents", ()):
                yield found["Key"], found["Size"]

    def copy(self, key: str, to: str, size_bytes: int, metadata: Mapping[str, str]) -> None:
        """Copy an object within the bucket, on the server."""
        if size_bytes <= COPY_LIMIT_BYTES:
            self._call(
                "copy_object",
                Key=to,
                CopySource={"Bucket": self.name, "Key": key},
                MetadataDirective="REPLACE",
                Metadata=metadata,
                **self._class(),
            )
        else:
            self._copy_parts(key, to, size_bytes, metadata)

    def begin(self, key: str, checksum: Mapping[str, str], metadata: Mapping[str, str]) -> str:
        """Begin an upload in parts, and return its id."""
        answer = self._call(
            "create_multipart_upload",
            Key=key,
            Metadata=metadata,
            **self._class(),
            **checksum,
        )
        return str(answer["UploadId"])

    def send(self, key: str, upload: str, number: int, body: bytearray, sent: Mapping[str, str]) -> Part:
        """Send one part; `sent` are its checksum's parameters."""
        answer = self._call(
            "upload_part",
            Key=key,
            UploadId=upload,
            PartNumber=number,
            Body=body,
            **sent,
        )
        return _part(number, len(body), answer)

    def complete(self, key: str, upload: str, parts: list[Part]) -> str:
        """Make an object of the parts, and return its ETag."""
        listed: list[dict[str, object]] = []
        for part in parts:
            one: dict[str, object] = {"PartNumber": part.number, "ETag": f'"{part.etag}"'}
            if part.sha256:
                one["ChecksumSHA256"] = part.sha256
            listed.append(one)
        answer = self._call("complete_multipart_upload", Key=key, UploadId=upload, MultipartUpload={"Parts": listed})
        return str(answer.get("ETag", "")).strip('"')

    def abort(self, key: str, upload: str) -> None:
        """Give up an upload, if it is there."""
        try:
            self._call("abort_multipart_upload", Key=key, UploadId=upload)
        except ClientError as error:
            if code_of(error) != NO_UPLOAD and not is_missing(error):
                raise

    def parts(self, key: str, upload: str) -> dict[int, Part]:
        """The parts that an upload has, by their number; none where there is no such upload."""
        found: dict[int, Part] = {}
        try:
            pages = self._pages("list_parts", Key=key, UploadId=upload)
            for page in pages:
                for part in page.get("Parts", ()):
                    described = _part(part["PartNumber"], part["Size"], part)
                    found[described.number] = described
        except ClientError as error:
            if code_of(error) != NO_UPLOAD and not is_missing(error):
                raise
            return {}
        return found

    def uploads(self, prefix: str) -> Iterator[tuple[str, str, datetime]]:
        """Key, id and time of beginning of every unfinished upload whose key begins so."""
        for page in self._pages("list_multipart_uploads", Prefix=prefix):
            for found in page.get("Uploads", ()):
                yield found["Key"], found["UploadId"], found["Initiated"]

    def _copy_parts(self, key: str, to: str, size_bytes: int, metadata: Mapping[str, str]) -> None:
        upload = self.begin(to, {}, metadata)
        try:
            parts = []
            for number, start in enumerate(range(0, size_bytes, _COPIED_PART_BYTES), start=1):
                end = min(start + _COPIED_PART_BYTES, size_bytes)
                answer = self._call(
                    "upload_part_copy",
                    Key=to,
                    UploadId=upload,
                    PartNumber=number,
                    CopySource={"Bucket": self.name, "Key": key},
                    CopySourceRange=f"bytes={start}-{end - 1}",
                )
                parts.append(_part(number, end - start, answer["CopyPartResult"]))
            self.complete(to, upload, parts)
        except BaseException:
            self.abort(to, upload)
            raise

    def _class(self) -> dict[str, str]:
        return {} if self._settings.storage_class is None else {"StorageClass": self._settings.storage_class}

    def _call(self, method: str, **parameters: object) -> _Answer:
        try:
            answer: _Answer = getattr(self._client(), method)(Bucket=self.name, **parameters)
        except ClientError as error:
            if is_of_the_key(error):
                self._made = None  # so that a key that was changed where it is kept counts at once
            raise
        return answer

    def _pages(self, method: str, **parameters: object) -> Iterator[_Answer]:
        yield from self._client().get_paginator(method).paginate(Bucket=self.name, **parameters)

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = _made(self._settings)
            return self._made


# It reads a description of the whole service, once.
_session = cache(Session)
_ONE_AT_A_TIME = Lock()


def _made(settings: S3Settings) -> Any:
    config = Config(
        retries={"mode": "standard", "total_max_attempts": settings.attempts},
        connect_timeout=settings.connect_timeout_seconds,
        read_timeout=settings.answer_timeout_seconds,
        max_pool_connections=settings.concurrency + _CONNECTIONS_BESIDE,
        s3={
            # Not every server has a name for every bucket.
            "addressing_style": "auto" if settings.endpoint_url is None else "path",
            "payload_signing_enabled": False,
        },
        # The checksums that we want are stated with each request; servers other than Amazon's know no further ones.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    with _ONE_AT_A_TIME:
        return _client_of(settings, config)


def _client_of(settings: S3Settings, config: Config) -> Any:
    return _session().create_client(
        "s3",
        endpoint_url=settings.endpoint_url,
        region_name=settings.region or (None if settings.endpoint_url is None else _ANY_REGION),
        aws_access_key_id=_told(settings.access_key_id),
        aws_secret_access_key=_told(settings.secret_access_key),
        verify=None if settings.certificates is None else str(settings.certificates),
        config=config,
    )


def _told(secret: Secret | None) -> str | None:
    """The secret itself. Raises StorageError where what reads it cannot."""
    if not callable(secret):
        return secret
    try:
        return secret()
    except StorageError:
        raise
    except ColdchainError as error:
        raise StorageError(error.found, expected=error.expected, remedy=error.remedy) from None


def _stood(found: _Answer) -> Stood:
    return Stood(
        size_bytes=found.get("ContentLength", 0),
        etag=found.get("ETag", "").strip('"'),
        metadata={key.lower(): value for key, value in found.get("Metadata", {}).items()},
        modified=found["LastModified"],
        sha256=found.get("ChecksumSHA256", ""),
    )


def _part(number: int, size_bytes: int, answer: _Answer) -> Part:
    customer = "a customer's key" if answer.get("SSECustomerAlgorithm") else ""
    return Part(
        number=number,
        size_bytes=size_bytes,
        etag=answer.get("ETag", "").strip('"'),
        sha256=answer.get("ChecksumSHA256", ""),
        encrypted=customer or answer.get("ServerSideEncryption", ""),
    )
