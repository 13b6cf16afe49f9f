"""The SHA-256 of files that are copied, by whatever computes it fastest on this processor.

Where the processor has instructions for SHA-256, that is `hashlib`. Elsewhere `hashlib` takes a core for some 300 MB/s,
and streams that are hashed at the same time go several times faster together (`storage/hashing`).
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from coldchain.storage.hashing import Bytes, Hasher

_PROCESSOR = Path("/proc/cpuinfo")
_FLAGS = {"flags", "Features"}  # on x86, on ARM
_ONCE = Lock()
# What is shorter is hashed by itself: being served together with others would take as long.
_ALONE_BYTES = 128 << 10


class Digest(Protocol):
    """A SHA-256 that is being computed. One thread at a time uses it."""

    def update(self, data: Bytes, /) -> None:
        """Append bytes. The data may be changed again when this has returned."""

    def hexdigest(self) -> str:
        """The digest of all bytes so far, as 64 lower-case hexadecimal digits."""


def new_digest(size_bytes: int | None = None) -> Digest:
    """A digest for one of the files that are copied at the same time; `size_bytes` is about how long it will be."""
    if size_bytes is not None and size_bytes <= _ALONE_BYTES:
        return hashlib.sha256()
    with _ONCE:
        hasher = _hasher()
    return hashlib.sha256() if hasher is None else hasher.new_digest()


def sha256_of(data: Bytes) -> str:
    """The SHA-256 of a small file's bytes, computed at once, as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def lanes_of(flags: frozenset[str]) -> int:
    """How many streams a processor best hashes at once, by Linux's names of what it can do; 1: `hashlib` is as fast.

    Narrow registers (SSE, NEON) gain too little over OpenSSL's own code.
    """
    if flags & {"sha_ni", "sha2"}:
        return 1
    if flags >= {"avx512f", "avx512vl"}:
        return 16
    return 8 if "avx2" in flags else 1


def processor_flags() -> frozenset[str]:
    """What this processor can do, in the kernel's names; none where it does not tell."""
    try:
        text = _PROCESSOR.read_text(errors="replace")
    except OSError:
        return frozenset()
    names = (line.partition(":") for line in text.splitlines())
    return next(
        (frozenset(after.split()) for name, _, after in names if name.strip() in {"flags", "Features"}), frozenset()
    )


@cache
def _hasher() -> Hasher | None:
    lanes = lanes_of(processor_flags())
    if lanes == 1:
        return None
    # The compiler takes a second to import and is of no use to other processors.
    from coldchain.storage.hashing import Hasher

    return Hasher(lanes, len(os.sched_getaffinity(0)))
