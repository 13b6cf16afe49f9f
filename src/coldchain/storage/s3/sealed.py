"""Content that is encrypted before it leaves and decrypted after it came back: the age format (age-encryption.org/v1).

The library pulls from one file and pushes to another; here that runs in a thread of its own, with a pipe to whoever
writes plain bytes or reads them, so that memory stays bounded whatever the size. The key is the facility's: recipients
encrypt, only an identity opens again. What was changed anywhere, cut short or is not for these identities is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, cast

import pyrage
from pyrage import x25519

from coldchain.errors import ConfigError, StorageError, VerificationError

HEAD_BYTES = 4096
"""How much of the beginning of encrypted content tells what it is."""

_MAGIC = b"age-encryption.org/v1\n"
_HEADER_END = re.compile(rb"\n--- [^\n]*\n")
_NONCE_BYTES = 16
_BUFFER_BYTES = 1 << 20
_HEADER_LIMIT_BYTES = 64 << 10
_CHUNK_BYTES = 64 << 10
_TAG_BYTES = 16
_SECRET_LINE = "AGE-SECRET-KEY-1"  # noqa: S105  # how a line with a secret begins


class Readable(Protocol):
    """What encrypted bytes are read from."""

    def read(self, amount: int, /) -> bytes:
        """At most so many bytes; none at the end."""


class Source(Readable, Protocol):
    """What can be dropped before its end."""

    def close(self) -> object:
        """Read no more."""


class Keys:
    """Who may open what is encrypted here: recipients, and the file with the identities that open it.

    The file is read when it is needed first, so that a host that only writes need not have it.
    """

    def __init__(self, recipients: Sequence[str], identity_file: Path | None) -> None:
        self._identity_file = identity_file
        self._recipients = [_recipient(text) for text in recipients]

    @property
    def is_sealing(self) -> bool:
        """Whether what is written shall be encrypted."""
        return bool(self._recipients) or self._identity_file is not None

    def recipients(self) -> Sequence[x25519.Recipient]:
        """For whom to encrypt. Raises StorageError where the identity file, of which they are taken, cannot be read."""
        return self._recipients or [identity.to_public() for identity in self.identities()]

    def identities(self) -> Sequence[x25519.Identity]:
        """What opens again. Raises StorageError where there is none."""
        if self._identity_file is None:
            raise StorageError(
                "this content is encrypted, and no identity is known that opens it",
                remedy="Name the age identity file in facility.toml; reading needs it, writing does not",
            )
        try:
            text = self._identity_file.read_text(encoding="ascii")
            lines = [line.strip() for line in text.splitlines()]
            found = [x25519.Identity.from_str(line) for line in lines if line.startswith(_SECRET_LINE)]
        except OSError as error:
            raise StorageError(
                f"the age identity file cannot be read: {error.strerror or error}",
                remedy="Put it back, readable for the service's user alone; without it nothing encrypted can be read",
                path=self._identity_file,
            ) from error
        except (pyrage.IdentityError, UnicodeDecodeError):
            found = []
        if not found:
            # Without the library's own error: nothing of the file's content shall get into a log.
            raise StorageError(
                "the age identity file holds no identity",
                expected=f"a line {_SECRET_LINE}…, as `age-keygen` writes it",
                remedy="Put the right file in its place",
                path=self._identity_file,
            ) from None
        return found


def sealed_limit(size_bytes: int) -> int:
    """How many bytes at most so many become when they are encrypted for a few recipients."""
    return size_bytes + (size_bytes // _CHUNK_BYTES + 1) * _TAG_BYTES + _HEADER_LIMIT_BYTES


def plain_size(head: bytes, stored_bytes: int) -> int | None:
    """Size of the plain content of what begins with `head` and has so many bytes; None where it is not encrypted.

    https://age-encryption.org/v1: a header of lines, a nonce, then pieces of 64 KiB with a tag each.
    """
    end = _HEADER_END.search(head) if head.startswith(_MAGIC) else None
    if end is None:
        return None
    payload = max(0, stored_bytes - end.end() - _NONCE_BYTES)
    pieces = max(1, -(-payload // (_CHUNK_BYTES + _TAG_BYTES)))
    return max(0, payload - pieces * _TAG_BYTES)


class Sealer:
    """Encrypts what is written and gives it to `take`, in another thread. `close` or `abandon` it."""

    def __init__(self, recipients: Sequence[x25519.Recipient], take: Callable[[bytes], object]) -> None:
        out, into = os.pipe()
        self._into: int = into
        self._taker = _Taker(take)
        self._work = _Work("seal", lambda: self._encrypt(out, recipients))

    def write(self, view: memoryview) -> None:
        """Encrypt these bytes. Raises what `take` raised."""
        try:
            while view:
                view = view[os.write(self._into, view) :]
        except BrokenPipeError:
            self.close()  # raises why nobody reads any more
            raise

    def close(self) -> None:
        """All is written: wait until `take` has had it all. Raises what it raised."""
        self._hang_up()
        try:
            self._work.join()
        except pyrage.EncryptError as error:
            raise StorageError("encrypting failed", remedy="See the recipients in facility.toml") from error
        finally:
            if self._taker.error is not None:
                raise self._taker.error

    def abandon(self) -> None:
        """Give up: what was written so far may have been taken, the rest is not."""
        self._taker.stop()
        self._hang_up()
        with suppress(pyrage.EncryptError, OSError):
            self._work.join()

    def _hang_up(self) -> None:
        if self._into >= 0:
            into, self._into = self._into, -1
            os.close(into)

    def _encrypt(self, out: int, recipients: Sequence[x25519.Recipient]) -> None:
        with os.fdopen(out, "rb", buffering=_BUFFER_BYTES) as plain:
            pyrage.encrypt_io(cast(Any, plain), cast(Any, self._taker), recipients)


class Opener:
    """Decrypts what is read from `source`, in another thread. To be closed."""

    def __init__(self, source: Readable, identities: Sequence[x25519.Identity]) -> None:
        out, into = os.pipe()
        self._out: int = out
        self._given = _Given(source)
        self._work = _Work("open", lambda: self._decrypt(into, identities))

    def fill(self, view: memoryview) -> int:
        """Decrypt on into the view; 0 at the end. Raises VerificationError where the content was changed or cut short,
        StorageError where it is for other identities, and what reading the source raised."""
        length = os.readv(self._out, [view])
        if not length:
            self._finish()
        return length

    def close(self) -> None:
        """Stop, wherever it is."""
        if self._out >= 0:
            out, self._out = self._out, -1
            os.close(out)  # the writer is told by EPIPE
            with suppress(pyrage.DecryptError, OSError):
                self._work.join()

    def _finish(self) -> None:
        try:
            self._work.join()
        except pyrage.DecryptError as error:
            if self._given.error is not None:
                raise self._given.error from error
            raise StorageError(
                "this content is encrypted for other identities, or its beginning is damaged",
                remedy="Name the identity file in facility.toml that was in use when it was written",
            ) from error
        except OSError as error:
            if self._given.error is not None:
                raise self._given.error from error
            raise VerificationError(
                "the encrypted content was changed or cut short since it was written",
                remedy="Mend the copy from another",
            ) from error

    def _decrypt(self, into: int, identities: Sequence[x25519.Identity]) -> None:
        with os.fdopen(into, "wb", buffering=_BUFFER_BYTES) as plain:
            pyrage.decrypt_io(cast(Any, self._given), cast(Any, plain), identities)


class _Work:
    """One call in a thread of its own."""

    def __init__(self, name: str, call: Callable[[], None]) -> None:
        pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._future: Future[None] = pool.submit(call)
        pool.shutdown(wait=False)

    def join(self) -> None:
        self._future.result()


class _Taker:
    """A file that gives what is written to a function, and keeps what that raised: the library loses it."""

    def __init__(self, take: Callable[[bytes], object]) -> None:
        self.error: Exception | None = None
        self._take = take
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def write(self, data: bytes) -> int:
        if self._stopped:
            raise BrokenPipeError
        try:
            self._take(data)
        except Exception as error:
            self.error = error
            raise
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


class _Given:
    """A file that is read, and keeps what reading it raised."""

    def __init__(self, source: Readable) -> None:
        self.error: Exception | None = None
        self._source = source

    def read(self, amount: int) -> bytes:
        try:
            return self._source.read(amount)
        except Exception as error:
            self.error = error
            raise


def _recipient(text: str) -> x25519.Recipient:
    try:
        return x25519.Recipient.from_str(text)
    except pyrage.RecipientError:
        raise ConfigError(
            "a recipient is none of age's", expected="age1…, as `age-keygen -y` prints it", remedy="Correct it"
        ) from None
