"""What went wrong with an S3 server, in the house's words: no secret, and nothing that a server says of itself, is in
them but its error's code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    SSLError,
)

from coldchain.errors import StorageError, StoreFullError

MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
"""What a server answers where there is no such object."""

NO_UPLOAD = "NoSuchUpload"

_KEYS = "Compare the access key's id and secret with the server's, and this machine's clock with its"
_RIGHTS = "Give the access key the right to list, read, write and delete in this bucket and prefix"
_BUSY = "Nothing to do: it is tried again; if this comes back, see the server's limits or lower the concurrency"
_REMEDIES = {
    "NoSuchBucket": "Make the bucket, or correct the store's URL in facility.toml",
    "InvalidAccessKeyId": _KEYS,
    "SignatureDoesNotMatch": _KEYS,
    "AuthorizationHeaderMalformed": "Correct the store's region in facility.toml",
    "PermanentRedirect": "Correct the store's region or endpoint in facility.toml",
    "301": "Correct the store's region or endpoint in facility.toml",
    "RequestTimeTooSkewed": "Set this machine's clock",
    "ExpiredToken": "Renew the access key",
    "AccessDenied": _RIGHTS,
    "AllAccessDisabled": _RIGHTS,
    "403": f"{_KEYS}; then {_RIGHTS[0].lower()}{_RIGHTS[1:]}",
    "SlowDown": _BUSY,
    "ServiceUnavailable": _BUSY,
    "503": _BUSY,
    "RequestTimeout": _BUSY,
    "InternalError": "Nothing to do: it is tried again; if this comes back, see the server's log",
    "500": "Nothing to do: it is tried again; if this comes back, see the server's log",
    "InvalidObjectState": "The object lies in an archive class: restore it first, and use another storage class",
    "InvalidStorageClass": "Use a storage class that this server has",
    "BadDigest": "Nothing to do: it is sent again; if this comes back, test the network and this machine's memory",
    "XAmzContentChecksumMismatch": "Nothing to do: it is sent again; if this comes back, test the network",
    "KeyTooLongError": "Shorten the store's prefix",
    "NoSuchKey": "See who removed it",
    "404": "See who removed it",
}
_FULL = frozenset(
    {"QuotaExceeded", "InsufficientStorage", "507", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
)
# What the whole store answers with, whatever object it was asked for. A denial may be one object's (a lock, a policy).
_OF_THE_STORE = frozenset(
    {
        *("NoSuchBucket", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed", "301"),
        *("PermanentRedirect", "RequestTimeTooSkewed", "ExpiredToken", "AllAccessDisabled", "SlowDown", "503"),
        *("ServiceUnavailable", "InvalidStorageClass"),
    }
)
_OF_THE_KEY = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "AccessDenied", "403"})
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class S3Words:
    """States the errors of the store `name`, whose objects lie `beneath` a bucket and prefix of a `server`."""

    def __init__(self, name: str, beneath: str, server: str) -> None:
        self.name = name
        self._beneath = beneath
        self._server = server

    def path_of(self, stored_as: str) -> str:
        """What an object is called in messages."""
        return f"{self._beneath}/{stored_as}"

    @contextmanager
    def stating(self, doing: str, stored_as: str = "") -> Iterator[None]:
        """State botocore's errors as having come of `doing`."""
        try:
            yield
        except (ClientError, BotoCoreError, OSError) as error:
            raise self.stated(error, doing, stored_as) from error

    def stated(self, error: Exception, doing: str, stored_as: str = "") -> StorageError:
        """One of botocore's errors in the house's words."""
        path = self.path_of(stored_as)
        if isinstance(error, ClientError):
            code = code_of(error)
            if code in _FULL:
                return StoreFullError(
                    f"store {self.name!r} is full: the server answers {code}",
                    remedy="Raise the bucket's quota or free space in it; the copy is tried again by itself",
                    path=path,
                )
            remedy = _REMEDIES.get(code, "See the server's documentation for this answer")
            return StorageError(
                f"store {self.name!r}: {doing} failed: the server answers {code}", remedy=remedy, path=path
            )
        what, remedy = self._of_the_way(error)
        return StorageError(f"store {self.name!r}: {doing} failed: {what}", remedy=remedy, path=path)

    def _of_the_way(self, error: Exception) -> tuple[str, str]:
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return "there is no access key", "Name the files or variables that hold its id and secret in facility.toml"
        if isinstance(error, SSLError):
            return (
                f"the certificate of {self._server} is not accepted",
                "Name the file of the server's certificates in facility.toml",
            )
        if isinstance(error, ReadTimeoutError | ConnectTimeoutError | TimeoutError):
            return f"{self._server} does not answer in time", "See that the server is well and the way to it is free"
        if isinstance(error, EndpointConnectionError):
            return (
                f"{self._server} cannot be reached",
                "Start the server, or correct the store's endpoint in facility.toml",
            )
        return (
            f"the connection to {self._server} broke ({type(error).__name__})",
            "Nothing to do: it is tried again; if this comes back, see the server's log",
        )


def code_of(error: ClientError) -> str:
    """The code that a server answered with: its word, or the HTTP status where it has none."""
    answer: Mapping[str, object] = error.response.get("Error", {})
    code = str(answer.get("Code", ""))
    return code if _CODE.fullmatch(code) else "something that is no code"


def is_missing(error: ClientError) -> bool:
    """Whether it says that there is no such object."""
    return code_of(error) in MISSING


def is_of_the_key(error: ClientError) -> bool:
    """Whether it is the access key that was refused."""
    return code_of(error) in _OF_THE_KEY


def is_of_the_store(error: StorageError) -> bool:
    """Whether an error that was stated here is the whole store's for certain."""
    cause = error.__cause__
    if isinstance(error, StoreFullError):
        return True
    if isinstance(cause, ClientError):
        return code_of(cause) in _OF_THE_STORE
    return isinstance(cause, BotoCoreError | OSError)
