"""Which mount an open file lies on, from `/proc/self/mountinfo` (proc(5))."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_ESCAPED = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount: where it is, its file system's type as the kernel names it, and what is mounted there (a device, a
    server's export, a file system's name)."""

    point: str
    type: str
    source: str


NOWHERE = Mount("", "", "")
"""Where the kernel does not tell."""


def mount_of(descriptor: int) -> Mount:
    """The mount of an open file or folder; `NOWHERE` where it cannot be known."""
    try:
        about = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
        mounts = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return NOWHERE
    mount_id = dict(line.split(":\t", 1) for line in about.splitlines() if ":\t" in line).get("mnt_id", "")
    return mount_in(mounts, mount_id.strip())


def mount_in(mountinfo: bytes, mount_id: str) -> Mount:
    """The mount of that number in the content of `mountinfo`; `NOWHERE` where it is not there."""
    # Found as bytes: a computer of a cluster may have thousands of mounts, and this is asked for every large copy.
    mounts = b"\n" + mountinfo
    begin = mounts.find(b"\n" + mount_id.encode("ascii") + b" ")
    if begin < 0:
        return NOWHERE
    head, _, tail = mounts[begin + 1 :].split(b"\n", 1)[0].partition(b" - ")
    before, after = head.split(b" "), tail.split(b" ")
    if len(before) < 5 or len(after) < 2:
        return NOWHERE
    return Mount(point=_plain(before[4]), type=_plain(after[0]), source=_plain(after[1]))


def _plain(field: bytes) -> str:
    plain = _ESCAPED.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field)
    return plain.decode("utf-8", "surrogateescape")
