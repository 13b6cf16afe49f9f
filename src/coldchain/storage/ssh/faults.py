"""What goes wrong with another host, in the house's words: the link's own faults, and what the far side refuses."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping

from coldchain.errors import StorageError, StoreFullError, printable
from coldchain.storage.ssh.settings import SshSettings

_MISSING_ROOT = "Mount the disk on that host, or correct the path in the store's url in facility.toml"
_WRITE_THERE = "Give the user that logs in there the right to write in the store"
_LOOK_THERE = "See the kernel's log on that host"
# What the whole store answers with; any other error is one name's: too long, in the way, not allowed there.
_OF_THE_STORE = frozenset({"ENOSPC", "EDQUOT", "EROFS", "EIO", "ESTALE", "ENOTCONN", "EMFILE", "ENFILE"})
_REMEDIES = {
    "EACCES": _WRITE_THERE,
    "EPERM": _WRITE_THERE,
    "EROFS": "The file system there is read-only, perhaps since an error: see the kernel's log, then mount it again",
    "EIO": "The device there reports errors: see the kernel's log on that host and replace the disk or cable",
    "ESTALE": "Mount the network file system on that host again",
    "ENOTCONN": "Mount the network file system on that host again",
    "ENAMETOOLONG": "The store's file system cannot hold so long a name: use another store for it",
    "EFBIG": "The store's file system cannot hold so large a file: use another store for it",
    "ELOOP": "Move the symbolic link out of the store",
    "ENOTDIR": "Move what stands there out of the way: the store needs a folder of that name",
    "EEXIST": "Move what stands there out of the way: nothing in a store is overwritten",
    "ENOENT": "See what removed it; `coldchain store verify` lists what is missing",
    "EISDIR": "Move the folder out of the way: the store needs a file of that name",
    "EMFILE": "Raise the limit of open files of the user that logs in there",
}
# What `ssh`, the shell there or Python say last, what that means, and what to do. The first that fits is taken.
_LAST_WORDS: tuple[tuple[str, str, str], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for \S+ has changed",
        "the host's key is not the one that is known",
        "Ask who runs that host whether its key was changed; only then take the old one out with `ssh-keygen -R HOST`"
        " and add the new one",
    ),
    (
        r"No \S+ host key is known|Host key verification failed",
        "the host's key is not known here",
        "Compare its fingerprint with what who runs that host says, and add it to the known hosts by `ssh HOST`",
    ),
    (
        r"Permission denied|Too many authentication failures|Load key|no mutual signature",
        "the host lets this user not in",
        "Put the service's public key into `authorized_keys` there; see that `ssh -o BatchMode=yes HOST true` works as"
        " the service's user",
    ),
    (r"SyntaxError", "the host's Python is too old", "Name one from 3.6 on as `python` in the store's table `ssh`"),
    (
        r"Could not resolve hostname",
        "the host's name is not known",
        "Correct the host in the store's url, or mend the name service",
    ),
    (r"Connection refused", "nothing answers at that port of the host", "Start sshd there, or correct the port"),
    (r"This account is currently not available|not available", "the user may run nothing there", "Give it a shell"),
)


_NO_PROGRAM = (126, 127)  # the status of a shell that finds none, or none that it may run


class WholeStoreError(OSError):
    """The cause of an error that is the whole store's and not one name's."""


def link_error(store: str, settings: SshSettings, why: str, status: int | None, last_words: str) -> StorageError:
    """The error of a connection that cannot be made or was lost; its cause is a WholeStoreError.

    Parameters
    ----------
    why : what this side saw.
    status : that of the `ssh` that ended; None where it was never started.
    last_words : the end of its standard error.
    """
    remedy = "See that the host is up and the network is well; the store is tried again by itself"
    number = errno.ECONNRESET  # which may pass; what has a meaning below stays until somebody acts
    lines = [line.strip() for line in last_words.splitlines() if line.strip()]
    said = f': "{printable(lines[-1])[:300]}"' if lines else ""
    if status in _NO_PROGRAM:
        number = errno.ENOTCONN
        why = f"there is no {settings.python!r} to run on the host"
        remedy = (
            "Install Python 3.6 or newer there, or name the one that there is as `python` in the store's table `ssh`"
        )
    for pattern, meaning, better in _LAST_WORDS:
        if re.search(pattern, last_words):
            number, why, remedy = errno.ENOTCONN, meaning, better
            break
    error = StorageError(f"store {store!r} on {settings.words}: {why}{said}", remedy=remedy)
    error.__cause__ = WholeStoreError(number, why)
    return error


def remote_error(store: str, doing: str, place: str, fields: Mapping[str, object], *, root: str) -> StorageError:
    """What the far side refused, as an error with its cause; `place` is what it is about, `root` the store's root."""
    name = str(fields.get("errno", ""))
    words = printable(str(fields.get("words", "")))[:300]
    number = getattr(errno, name, 0) if re.fullmatch(r"E[A-Z0-9]+", name) else 0
    fault: type[OSError] = WholeStoreError if name in _OF_THE_STORE else OSError
    error: StorageError
    if fields.get("kind") == "root":
        fault = WholeStoreError
        error = StorageError(
            f"the root of store {store!r} cannot be opened: {words}",
            expected="a folder",
            remedy=_MISSING_ROOT if name in ("ENOENT", "ENOTDIR") else _REMEDIES.get(name, _LOOK_THERE),
            path=root,
        )
    elif fields.get("kind") == "mark":
        fault = WholeStoreError
        error = StorageError(
            f"the identity file of store {store!r} is not readable as one",
            remedy="See whose disk it is; then remove the file, or bring back the right one",
            path=f"{root}/.coldchain-store",
        )
    elif name in ("ENOSPC", "EDQUOT"):
        error = StoreFullError(
            f"store {store!r} is full: {_free_words(fields.get('free'))}",
            remedy="Free space on it or raise the quota; the copy is tried again by itself",
            path=place,
        )
    else:
        remedy = _REMEDIES.get(name, _LOOK_THERE)
        error = StorageError(f"store {store!r}: {doing} failed: {words}", remedy=remedy, path=place)
    error.__cause__ = fault(number, words)
    return error


def _free_words(free: object) -> str:
    match free:
        case [int(free_bytes), int(free_files)]:
            inodes = "" if free_files < 0 else f" and {free_files:,} inodes"
            return f"{free_bytes:,} bytes{inodes} are free"
    return "how much is free it does not say"
