"""What an S3 store is told: where its bucket is, who asks, and how its objects are sent. Secrets are never shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from coldchain.errors import ConfigError

Secret = str | Callable[[], str]
"""A secret, or what reads it from where it is kept when it is needed."""

MEBIBYTE = 1 << 20
_LEAST_PART_BYTES = 5 * MEBIBYTE
_MOST_PART_BYTES = 1024 * MEBIBYTE
_PREFIX_LIMIT_BYTES = 64
"""Keys have 1,024 bytes; stored names leave 128 of them for this, the trash and what is kept aside."""


class Checksum(StrEnum):
    """What is sent with every part and compared with the server's answer."""

    MD5 = "md5"  # Content-MD5; the answer is the part's ETag. Every server knows it
    SHA256 = "sha256"  # x-amz-checksum-sha256; where ETags are no MD5 (KMS); takes the processor longer


@dataclass(frozen=True, slots=True)
class S3Settings:
    """Where a store's objects lie and how they are sent. Raises ConfigError where that cannot be.

    Parameters
    ----------
    bucket, prefix : objects are called `<prefix>/<stored name>`; the prefix has no slash at its ends.
    endpoint_url : the server; None: Amazon's of `region`.
    storage_class : as the server calls it ("STANDARD_IA"); None: the bucket's own.
    access_key_id, secret_access_key : both or none; none: what botocore finds (environment, ~/.aws, the host's role).
    recipients : age recipients (`age1…`); with any, everything is encrypted for all of them before it leaves.
    identity_file : file with the age identities that open it again; without recipients, it is encrypted for them.
    part_bytes : files up to this size are sent in one request, larger ones in parts of at least this size.
    concurrency : parts that are sent at the same time; twice as many are in memory at most.
    certificates : file of certificates by which the server is known; None: the system's.
    attempts : how often one request is sent, in all, while the server is busy or does not answer.
    abandoned_days : unfinished uploads that are older are aborted by `remove_partials`.
    """

    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    storage_class: str | None = None
    access_key_id: Secret | None = field(default=None, repr=False)
    secret_access_key: Secret | None = field(default=None, repr=False)
    recipients: tuple[str, ...] = ()
    identity_file: Path | None = None
    checksum: Checksum = Checksum.MD5
    part_bytes: int = 16 * MEBIBYTE
    concurrency: int = 4
    certificates: Path | None = None
    attempts: int = 4
    connect_timeout_seconds: float = 10.0
    answer_timeout_seconds: float = 60.0
    abandoned_days: float = 7.0

    def __post_init__(self) -> None:
        if not self.bucket or "/" in self.bucket:
            raise ConfigError(f"the bucket is called {self.bucket!r}", expected="s3://BUCKET/PREFIX")
        parts = self.prefix.split("/")
        if self.prefix and {"", ".", ".."}.intersection(parts):
            raise ConfigError(
                f"the prefix is {self.prefix!r}", expected="names with single slashes between them", remedy="Correct it"
            )
        if len(self.prefix.encode("utf-8", "replace")) > _PREFIX_LIMIT_BYTES:
            raise ConfigError("the prefix is too long", expected=f"at most {_PREFIX_LIMIT_BYTES} bytes")
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ConfigError(
                "of the access key only one half is given",
                expected="both its id and its secret, or none of them",
                remedy="Give the other half, too",
            )
        _require_within("part_bytes", self.part_bytes, _LEAST_PART_BYTES, _MOST_PART_BYTES)
        _require_within("concurrency", self.concurrency, 1, 64)
        _require_within("attempts", self.attempts, 1, 20)
        if self.endpoint_url is not None:
            _require_url(self.endpoint_url)


def _require_within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ConfigError(f"{name} is {value:,}", expected=f"{least:,} to {most:,}")


def _require_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError("the endpoint is no address of a server", expected="https://HOST or https://HOST:PORT")
    if parts.username or parts.password:
        raise ConfigError(
            "the endpoint's address holds a user's name or password",
            remedy="Take them out, and give the access key by a file or the environment",
        )
