"""The far side of a store on another host. It is sent there over the channel at each start; nothing is installed.

One file of the standard library alone, for any Python from 3.6 on, as old login nodes have it. It serves one request
after another from its standard input and answers on its standard output; another channel is another process. What it
does is what `posix` does on this host: every path is walked from the root by directory descriptors without following
links, a copy comes in under a hidden name and gets its own when it was proved, and nothing that stands is overwritten.

A frame, in either direction, is two big-endian 32-bit lengths, a JSON object of the first length, and bytes of the
second. Names travel as Latin-1 text of their bytes. What is begun (a copy, a file that is read, a listing) has a
handle `h` that the near side chose. A request with a number `n` is answered by a frame with that number, and either the
result's fields or an `error`. One without, as `write` always is, has no answer: the channel itself holds back who sends
too fast, and its copy's first failure is told as `failed` and again by whatever is asked of that copy next. Where one
small copy of several is proved, the next ones are read back as well, and what was found is told as `proved`. While
there is something in hand, a `beat` says every few seconds how much was done: a long reading is no dead link.

A part is locked while its copy is made: a helper that was cut off and lives on cannot touch what another goes on with.
"""

import concurrent.futures
import contextlib
import ctypes
import errno
import fcntl
import functools
import hashlib
import itertools
import json
import mmap
import os
import queue
import re
import resource
import select
import stat
import struct
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAGIC = b"\0coldchain-helper 1\n"
IDENTITY_NAME = b".coldchain-store"
TRASH_FOLDER = b".coldchain-trash"
OF_OTHERS = (b"lost+found", b"System Volume Information")  # they belong to the root's file system
BLOCK_BYTES = 4 << 20  # also the largest payload, and what a part is resumed by
PAGE_ENTRIES = 2000  # of a listing, in one answer
PROOFS_AHEAD = 8  # small copies that are read back at once: each waits for the disk, not for the processor
NAME_BYTES = 255
LENGTHS = struct.Struct(">II")
PARTIAL = re.compile(rb"\..*\.[0-9a-f]{32}\.part", re.DOTALL)
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO that stands where a file should must fail, not wait for a writer.
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
NO_SUCH_CALL = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
NO_LINKS = (*NO_SUCH_CALL, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EXDEV)
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


class RequestError(Exception):
    """What was asked for cannot be done; `fields`, of which `kind` is one, go into the answer."""

    def __init__(self, fields: "dict[str, object]") -> None:
        super().__init__(fields["kind"])
        self.fields = fields


def name_of(error: OSError) -> str:
    """The error's name: numbers differ between systems."""
    return errno.errorcode.get(error.errno or 0, "")


class Link:
    """The two ends of the channel. Answers and beats come from two threads."""

    def __init__(self) -> None:
        self.buffer = memoryview(mmap.mmap(-1, BLOCK_BYTES))
        self.lock = threading.Lock()

    def receive(self, idle_seconds: float) -> "tuple[dict[str, object], memoryview] | None":
        """The next frame; None at the end of the channel, or when nothing has come for long."""
        if not select.select([0], [], [], idle_seconds)[0]:
            return None
        lengths = self._take(LENGTHS.size)
        if lengths is None:
            return None
        header_bytes, payload_bytes = LENGTHS.unpack(lengths)
        if header_bytes > BLOCK_BYTES or payload_bytes > BLOCK_BYTES:
            sys.exit("the frame is too large")
        header = self._take(header_bytes)
        if header is None or not self._fill(self.buffer[:payload_bytes]):
            return None
        return json.loads(header.decode("ascii")), self.buffer[:payload_bytes]

    def send(self, header: "dict[str, object]", payload: "bytes | memoryview" = b"") -> None:
        """Send a frame whole."""
        head = json.dumps(header).encode("ascii")
        with self.lock:
            for view in (memoryview(LENGTHS.pack(len(head), len(payload)) + head), memoryview(payload)):
                while view:
                    view = view[os.write(1, view) :]

    def _take(self, length: int) -> "bytes | None":
        taken = bytearray(length)
        return bytes(taken) if self._fill(memoryview(taken)) else None

    def _fill(self, view: memoryview) -> bool:
        while view:
            length = os.readv(0, [view])
            if not length:
                return False
            view = view[length:]
        return True


class Progress:
    """Counts what was done, for the beats."""

    def __init__(self) -> None:
        self.done = 0
        self.in_hand = False

    def beat(self, link: Link, every_seconds: float) -> None:
        """Tell of it for ever, while there is something in hand."""
        while True:
            time.sleep(every_seconds)
            if self.in_hand:
                try:
                    link.send({"beat": self.done})
                except OSError:
                    os._exit(0)


PROGRESS = Progress()


def parts_of(name: "object") -> "list[bytes]":
    """The names of a relative path, each of which stays where it is put."""
    parts = str(name).encode("latin-1").split(b"/") if name else []
    if any(part in (b"", b".", b"..") or b"\0" in part for part in parts):
        raise OSError(errno.EINVAL, "the name leads out of the store")
    return parts


def file_parts_of(name: "object") -> "list[bytes]":
    """The same, of a path that has at least one name."""
    return parts_of(name) or parts_of("..")


def text_of(name: bytes) -> str:
    """A name as it travels."""
    return name.decode("latin-1")


def names_in(folder: int) -> "list[bytes]":
    """The names in an open folder."""
    return [os.fsencode(name) for name in os.listdir(folder)]


def shortened(name: bytes, limit_bytes: int) -> bytes:
    """By whole characters of UTF-8: some file systems refuse a name that ends in half of one."""
    if len(name) <= limit_bytes:
        return name
    end = limit_bytes
    while end > limit_bytes - 4 and name[end] & 0xC0 == 0x80:
        end -= 1
    return name[:end]


def part_name(name: bytes, key: str) -> bytes:
    """The hidden name of a copy on its way."""
    return b"." + shortened(name, NAME_BYTES - 39) + b"." + key.encode("ascii") + b".part"


def same_file(folder: int, name: bytes, descriptor: int) -> bool:
    """Whether a name of an open folder leads to an open file."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


def sync_folder(folder: int) -> None:
    """Make a folder's names durable, where the file system knows how (some network ones answer EINVAL)."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def require_regular(found: os.stat_result) -> None:
    """Raise OSError unless it is a regular file."""
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EISDIR, "something that is not a file has its name")


def is_own(name: bytes) -> bool:
    """Whether a name in the root is the store's own, in any spelling, or the file system's."""
    return name in OF_OTHERS or name.lower() in (IDENTITY_NAME, TRASH_FOLDER)


def rename_new(folder: int, name: bytes, target: int, to: bytes) -> None:
    """Rename a file where its new name is free; FileExistsError where it is not."""
    try:
        call_c("renameat2", folder, name, target, to, 1)
    except (OSError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno not in NO_SUCH_CALL:
            raise
    else:
        return
    try:
        os.link(name, to, src_dir_fd=folder, dst_dir_fd=target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
    else:
        os.unlink(name, dir_fd=folder)
        return
    if to in names_in(target):  # without links either, one looks first: one service owns a store
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    os.rename(name, to, src_dir_fd=folder, dst_dir_fd=target)


def call_c(name: str, *arguments: "ctypes.c_longlong | int | bytes") -> None:
    """Call a function of the C library that Python does not have. AttributeError where the library has it not."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def sync_file_system(descriptor: int) -> None:
    """Make all of the file system durable on which an open file lies."""
    try:
        call_c("syncfs", descriptor)
    except AttributeError:
        os.sync()


def begin_writing_out(descriptor: int, offset: int, length: int) -> None:
    """Have the system write these bytes to the medium from now on, so that the sync at the end is short."""
    with contextlib.suppress(OSError, AttributeError):
        call_c("sync_file_range", descriptor, ctypes.c_longlong(offset), ctypes.c_longlong(length), 2)


def filesystem_type(descriptor: int) -> str:
    """Type of the file system on which an open file lies, as the kernel names it; "" where it does not tell."""
    try:
        about = Path("/proc/self/fdinfo", str(descriptor)).read_bytes()
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return ""
    mount_id = re.search(rb"^mnt_id:\s*(\d+)", about, re.MULTILINE)
    for line in lines:
        head, _, tail = line.partition(b" - ")
        if mount_id and head.split(b" ", 1)[0] == mount_id.group(1):
            return tail.split(b" ", 1)[0].decode("ascii", "replace")
    return ""


class Kinds:
    """The types of file systems, by their device numbers; to be forgotten when one may have been unmounted."""

    def __init__(self) -> None:
        self.known: dict[int, str] = {}

    def of(self, descriptor: int) -> str:
        """That of an open file."""
        device = os.fstat(descriptor).st_dev
        if device not in self.known:
            self.known[device] = filesystem_type(descriptor)
        return self.known[device]


class PastCache:
    """Reads an open file with `O_DIRECT` for as long as the file system grants it; `direct` says whether it did."""

    def __init__(self, descriptor: int, direct: bool) -> None:
        self.descriptor = descriptor
        self.direct = direct
        self.total = 0

    def fill(self, view: memoryview) -> int:
        """Read on; how many bytes."""
        length = self._read(view)
        self.total += length
        PROGRESS.done += length
        return length

    def _read(self, view: memoryview) -> int:
        try:
            return os.readv(self.descriptor, [view])
        except OSError as error:
            if not (self.direct and error.errno == errno.EINVAL):
                raise
        flags = fcntl.fcntl(self.descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self.descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        self.direct = False
        return os.readv(self.descriptor, [view])


class Proof:
    """Reads files back past the page cache. The buffers are mappings, because `O_DIRECT` wants aligned memory."""

    def __init__(self, kinds: "Kinds", medium_types: "list[str]") -> None:
        self.kinds = kinds
        self.medium_types = medium_types
        self.threads = concurrent.futures.ThreadPoolExecutor(max_workers=PROOFS_AHEAD)
        self.idle: queue.LifoQueue[memoryview] = queue.LifoQueue()

    @contextlib.contextmanager
    def _buffer(self) -> "Iterator[memoryview]":
        try:
            buffer = self.idle.get_nowait()
        except queue.Empty:
            buffer = memoryview(mmap.mmap(-1, BLOCK_BYTES))
        try:
            yield buffer
        finally:
            self.idle.put(buffer)

    def read_back(self, folder: int, name: bytes) -> "dict[str, object]":
        """Digest, size and level of the regular file `name` of the open folder."""
        descriptor, direct = self._open(folder, name)
        try:
            require_regular(os.fstat(descriptor))
            os.fsync(descriptor)  # only clean pages can be dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            source = PastCache(descriptor, direct)
            size_bytes = os.fstat(descriptor).st_size
            digest = self._small(source) if size_bytes <= BLOCK_BYTES else self._large(source)
            proved = source.direct and self.kinds.of(descriptor) in self.medium_types
            return {"sha256": digest, "size": source.total, "level": "medium" if proved else "cache"}
        finally:
            os.close(descriptor)

    def _open(self, folder: int, name: bytes) -> "tuple[int, bool]":
        try:
            return os.open(name, READ_FLAGS | os.O_DIRECT, dir_fd=folder), True
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        return os.open(name, READ_FLAGS, dir_fd=folder), False

    def _small(self, source: PastCache) -> str:
        digest = hashlib.sha256()
        with self._buffer() as buffer:
            length = source.fill(buffer)
            while length:
                digest.update(buffer[:length])
                length = source.fill(buffer)
        return digest.hexdigest()

    def _large(self, source: PastCache) -> str:
        """One buffer is filled while the other is hashed."""
        digest = hashlib.sha256()
        with self._buffer() as first, self._buffer() as second:
            buffers = [first, second]
            ahead = self.threads.submit(source.fill, buffers[0])
            length = ahead.result()
            while length:
                ahead = self.threads.submit(source.fill, buffers[1])
                digest.update(buffers[0][:length])
                buffers.reverse()
                length = ahead.result()
        return digest.hexdigest()


class Tree:
    """The store's folder tree. The root is opened anew for each request: what is under a missing mount is not filled,
    and another disk in its place is noticed by its identity file."""

    def __init__(self, root: bytes, kinds: Kinds) -> None:
        self.path = root
        self.kinds = kinds
        self.synced_whole: list[str] = []
        self.sync_points: dict[int, int] = {}
        self.needs_flush = False
        self.durable_folders: set[tuple[bytes, ...]] = set()

    @contextlib.contextmanager
    def root(self, identity: "object") -> "Iterator[int]":
        """The root, open; it bears that identity, where one is given."""
        try:
            root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise RequestError({"kind": "root", "errno": name_of(error), "words": error.strerror}) from error
        try:
            found = read_identity(root) if identity else None
            if identity and found != identity:
                raise RequestError({"kind": "identity", "found": found})
            yield root
        finally:
            os.close(root)

    @contextlib.contextmanager
    def folder(self, identity: "object", parts: "list[bytes]", make: bool = False) -> "Iterator[int]":
        """A folder of the tree, open."""
        with self.root(identity) as root:
            folder = self.open_folder(root, parts, make)
        try:
            yield folder
        finally:
            os.close(folder)

    def open_folder(self, root: int, parts: "list[bytes]", make: bool = False) -> int:
        """Walk down from the open root without following links; with `make`, folders that are missing are made, and
        made durable."""
        folder = os.dup(root)
        for depth, part in enumerate(parts, 1):
            try:
                inner = self._open_inner(folder, part, tuple(parts[:depth]), make)
            finally:
                os.close(folder)
            folder = inner
        return folder

    def _open_inner(self, folder: int, part: bytes, whole: "tuple[bytes, ...]", make: bool) -> int:
        made = False
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=folder)
                made = True
        inner = os.open(part, FOLDER_FLAGS, dir_fd=folder)
        # A folder that stands already may have been made by a process that was killed before it synced.
        if make and (made or whole not in self.durable_folders):
            sync_folder(folder)
            self.durable_folders.add(whole)
        return inner

    def flushes_whole(self, descriptor: int) -> bool:
        """Whether `flush` makes durable what is on the file system of an open file, down through the device's cache."""
        return self.kinds.of(descriptor) in self.synced_whole

    def note_writing(self, folder: int) -> None:
        """Hold a file system open from before it is written to: the kernel tells what it lost since then. It is let go
        by the flush, or when nothing is in hand that needs one."""
        device = os.fstat(folder).st_dev
        if device not in self.sync_points:
            self.sync_points[device] = os.dup(folder)

    def flush(self, folder: int) -> None:
        """Make all of the file system durable on which an open folder lies."""
        point = self.sync_points.pop(os.fstat(folder).st_dev, None)
        try:
            sync_file_system(folder if point is None else point)
        finally:
            if point is not None:
                os.close(point)

    def let_go(self) -> None:
        """Keep no file system open: it may be unmounted."""
        self.kinds.known.clear()
        while self.sync_points:
            os.close(self.sync_points.popitem()[1])

    def walk(self, root: int) -> "Iterator[tuple[list[bytes], int, list[tuple[bytes, os.stat_result]]]]":
        """Each folder but the trash: its path, itself open, and its regular files. However deep or wide the tree, what
        is held is one path for each folder that is still to come."""
        pending: list[list[bytes]] = [[]]
        while pending:
            parts = pending.pop()
            try:
                folder = self.open_folder(root, parts)
            except FileNotFoundError:
                continue  # removed since its parent was listed
            try:
                files = []
                for name in names_in(folder):
                    if not parts and is_own(name):
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                        if stat.S_ISDIR(found.st_mode):
                            pending.append([*parts, name])
                        elif stat.S_ISREG(found.st_mode):
                            files.append((name, found))
                PROGRESS.done += 1
                yield parts, folder, files
            finally:
                os.close(folder)


def read_identity(root: int) -> "str | None":
    """The identity that the open root bears; None where it bears none."""
    try:
        descriptor = os.open(IDENTITY_NAME, READ_FLAGS, dir_fd=root)
    except FileNotFoundError:
        return None
    try:
        content = os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
    try:
        return str(uuid.UUID(json.loads(content.decode("utf-8"))["store"]))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RequestError({"kind": "mark"}) from error


class Copy:
    """A copy on its way in. `descriptor` is its part, open and locked for as long as it is in hand."""

    def __init__(self, size_bytes: int) -> None:
        self.folder = -1
        self.name = b""
        self.size_bytes = size_bytes
        self.sealed = self.asked = self.proved = False
        self.ahead: concurrent.futures.Future[dict[str, object]] | None = None
        self.part = b""
        self.descriptor = -1
        self.written = 0
        self.error: dict[str, object] | None = None
        self.kept: dict[str, object] | None = None
        self._can_lock = True
        self._tries = 4

    def open(self, key: str, lock_seconds: float) -> int:
        """Take the part of that key, and say how many whole blocks' bytes lie there; a new one where that part stays in
        another's hand for so long, or the file system cannot lock."""
        until = time.monotonic() + lock_seconds
        while not self._take(part_name(self.name, key)):
            if not self._can_lock or time.monotonic() > until:
                self._create(part_name(self.name, uuid.uuid4().hex))
                break
            time.sleep(0.05)
        whole = min(os.fstat(self.descriptor).st_size, self.size_bytes) // BLOCK_BYTES * BLOCK_BYTES
        require_space(self.descriptor, self.size_bytes - whole)
        os.ftruncate(self.descriptor, whole)
        os.lseek(self.descriptor, whole, os.SEEK_SET)
        self.written = whole
        return whole

    def _take(self, part: bytes) -> bool:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(part, flags, 0o600, dir_fd=self.folder)
        except PermissionError:
            make_writable(self.folder, part)  # its mode is its source's already
            descriptor = os.open(part, flags, 0o600, dir_fd=self.folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(descriptor)
            taken = stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and same_file(self.folder, part, descriptor)
        except BlockingIOError:
            taken = False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
            self._can_lock = taken = False
            if not os.fstat(descriptor).st_size:
                os.unlink(part, dir_fd=self.folder)
        if taken:
            self.part, self.descriptor = part, descriptor
        else:
            os.close(descriptor)
        return taken

    def _create(self, part: bytes) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self.descriptor = os.open(part, flags, 0o600, dir_fd=self.folder)
        self.part = part
        with contextlib.suppress(OSError):
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, view: memoryview) -> None:
        """Append these bytes."""
        begun = self.written
        while view:
            length = os.write(self.descriptor, view)
            view = view[length:]
            self.written += length
            PROGRESS.done += length
        if self.size_bytes > BLOCK_BYTES:
            begin_writing_out(self.descriptor, begun, self.written - begun)

    def seal(self, mode: int, modified_ns: int, durable: bool) -> None:
        """Give it its time and mode. Its owner may always read it, to prove it again."""
        if self.written != self.size_bytes:
            raise OSError(errno.EIO, f"{self.written} bytes came, {self.size_bytes} were announced")
        with contextlib.suppress(PermissionError):  # FAT holds no modes; the content is what counts
            os.fchmod(self.descriptor, (mode & 0o777) | stat.S_IRUSR)
        os.utime(self.descriptor, ns=(modified_ns, modified_ns))
        if durable:
            os.fsync(self.descriptor)
        self.sealed = True

    def begin_proof(self, proof: Proof, tell: "Callable[[dict[str, object]], None]") -> None:
        """Have it read back by another thread, which tells what it found."""

        def done(ahead: "concurrent.futures.Future[dict[str, object]]") -> None:
            if not self.asked and not ahead.cancelled() and not ahead.exception():
                tell(ahead.result())

        if self.ahead is None:
            self.ahead = proof.threads.submit(proof.read_back, self.folder, self.part)
            self.ahead.add_done_callback(done)

    def prove(self, sha256: str, proof: Proof) -> "dict[str, object]":
        """Read it back; what is not what was written goes, so that nothing is built on it."""
        found = self.ahead.result() if self.ahead else proof.read_back(self.folder, self.part)
        self.ahead = None
        self.proved = True
        if found["sha256"] != sha256:
            self.discard()
        return found

    def publish(self, sha256: str, proof: Proof, durable: bool) -> None:
        """Give it its final name; other content of that name is kept aside first."""
        if not same_file(self.folder, self.part, self.descriptor):
            raise OSError(errno.ENOENT, "the part of the copy is gone")
        while not self._name(sha256, proof):
            self._tries -= 1
            if not self._tries:
                raise FileExistsError(errno.EEXIST, "something else takes its name again and again")
        if durable:
            sync_folder(self.folder)

    def _name(self, sha256: str, proof: Proof) -> bool:
        """Give it its name, or else what has it another; whether it has it."""
        with contextlib.suppress(FileExistsError):
            rename_new(self.folder, self.part, self.folder, self.name)
            return True
        with contextlib.suppress(FileNotFoundError, FileExistsError):  # somebody was quicker: look again
            require_regular(os.stat(self.name, dir_fd=self.folder, follow_symlinks=False))
            try:
                found = str(proof.read_back(self.folder, self.name)["sha256"])
            except OSError:
                found = ""  # its bytes may still be wanted by somebody with better tools
            if found == sha256:
                os.rename(self.part, self.name, src_dir_fd=self.folder, dst_dir_fd=self.folder)
                return True
            suffix = ".replaced-" + (found[:8] or "unreadable")
            aside = free_name(self.folder, self.name, suffix.encode("ascii"))
            rename_new(self.folder, self.name, self.folder, aside)
            self.kept = {"name": text_of(aside), "sha256": found or None}
        return False

    def discard(self) -> None:
        """Remove the part, where it is still there."""
        if self.descriptor >= 0 and same_file(self.folder, self.part, self.descriptor):
            os.unlink(self.part, dir_fd=self.folder)

    def close(self) -> None:
        """Let go of it."""
        if self.ahead and not self.ahead.cancel():
            concurrent.futures.wait([self.ahead])
        for descriptor in (self.descriptor, self.folder):
            if descriptor >= 0:
                os.close(descriptor)
        self.descriptor = self.folder = -1


def make_writable(folder: int, name: bytes) -> None:
    """Give the owner of a file the right to write it."""
    descriptor = os.open(name, READ_FLAGS, dir_fd=folder)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def require_space(descriptor: int, wanted_bytes: int) -> None:
    """Raise ENOSPC where the file system of an open file has less room than that."""
    usage = os.fstatvfs(descriptor)
    # Some FUSE file systems report no blocks at all; those are asked by writing.
    if usage.f_blocks and usage.f_bavail * usage.f_frsize < wanted_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def free_name(folder: int, name: bytes, suffix: bytes) -> bytes:
    """`name` + `suffix`, or with a number after it where that is taken already."""
    number = 1
    while True:
        ending = suffix if number == 1 else suffix + b"-%d" % number
        candidate = shortened(name, NAME_BYTES - len(ending)) + ending
        try:
            os.stat(candidate, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return candidate
        number += 1


class Helper:
    """Answers requests; each `do_` method is one, takes the request's fields, and gives the answer's."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.kinds = Kinds()
        self.tree = Tree(b"", self.kinds)
        self.proof = Proof(self.kinds, [])
        self.idle_seconds = 60.0
        self.lock_seconds = 0.0  # how long a helper that was cut off may take to let go of its part
        self.handles: dict[int, Copy | Reader | Listing] = {}

    def serve(self) -> None:
        """Answer until the channel ends."""
        while True:
            PROGRESS.in_hand = bool(self.handles)
            if not self.handles and not self.tree.needs_flush:
                self.tree.let_go()
            frame = self.link.receive(self.idle_seconds)
            if frame is None:
                return
            PROGRESS.in_hand = True
            request, payload = frame
            if request["op"] == "write":
                self._write(int(str(request["h"])), payload)
            else:
                self._answer(request)

    def _write(self, handle: int, payload: memoryview) -> None:
        copy = self.handles.get(handle)
        if not isinstance(copy, Copy) or copy.error:
            return
        try:
            copy.write(payload)
        except OSError as error:
            self._fail(handle, self._refusal_of(error))

    def _answer(self, request: "dict[str, object]") -> None:
        answer: dict[str, object] = {"n": request.get("n")}
        payload: bytes | memoryview = b""
        try:
            result = getattr(self, "do_" + str(request["op"]))(request)
            payload = result.pop("payload", b"")
            answer.update(result)
        except (RequestError, OSError) as error:
            answer["error"] = self._refusal_of(error)
        if "n" in request:
            self.link.send(answer, payload)
        elif "error" in answer:
            self._fail(int(str(request["h"])), answer["error"])

    def _fail(self, handle: int, error: "object") -> None:
        """What had no answer failed: it is told, and kept for the next request of that copy."""
        copy = self.handles.get(handle)
        if isinstance(copy, Copy) and not copy.error and isinstance(error, dict):
            copy.error = error
            self.link.send({"failed": handle, "error": error})

    def _refusal_of(self, error: "OSError | RequestError") -> "dict[str, object]":
        if isinstance(error, RequestError):
            return error.fields
        fields: dict[str, object] = {"kind": "os", "errno": name_of(error), "words": error.strerror or str(error)}
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            with contextlib.suppress(OSError):
                usage = os.statvfs(self.tree.path)
                fields["free"] = [usage.f_bavail * usage.f_frsize, usage.f_favail if usage.f_files else -1]
        return fields

    def _hold(self, request: "dict[str, object]", thing: "Copy | Reader | Listing") -> None:
        self.handles[int(str(request["h"]))] = thing

    def do_open(self, request: "dict[str, object]") -> "dict[str, object]":
        """Which tree it is, and how to keep time."""
        self.tree = Tree(str(request["root"]).encode("latin-1"), self.kinds)
        self.proof = Proof(self.kinds, [str(name) for name in list_of(request["medium"])])
        self.idle_seconds = float(str(request["idle"]))
        self.lock_seconds = float(str(request["lock"]))
        beats = threading.Thread(target=PROGRESS.beat, args=(self.link, float(str(request["beat"]))))
        beats.daemon = True
        beats.start()
        self.tree.synced_whole = [str(name) for name in list_of(request["whole"])]
        return {"boot": boot_id()}

    def do_mark(self, request: "dict[str, object]") -> "dict[str, object]":
        """The root's identity."""
        del request
        with self.tree.root(None) as root:
            return {"store": read_identity(root)}

    def do_kind(self, request: "dict[str, object]") -> "dict[str, object]":
        """The type of the root's file system."""
        with self.tree.root(request["store"]) as root:
            return {"type": filesystem_type(root)}

    def do_set_mark(self, request: "dict[str, object]") -> "dict[str, object]":
        """Give the root an identity; it never changes one."""
        wanted = str(request["store"])
        with self.tree.root(None) as root:
            found = read_identity(root)
            if found is None:
                self._write_mark(root, {"store": wanted, "name": request["name"]})
            elif found != wanted:
                raise RequestError({"kind": "identity", "found": found})
        return {}

    def _write_mark(self, root: int, content: "dict[str, object]") -> None:
        part = part_name(IDENTITY_NAME, uuid.uuid4().hex)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(part, flags, 0o644, dir_fd=root)
        try:
            os.write(descriptor, json.dumps(content).encode("ascii") + b"\n")
            os.fsync(descriptor)
            rename_new(root, part, root, IDENTITY_NAME)
        except OSError:
            os.unlink(part, dir_fd=root)
            raise
        finally:
            os.close(descriptor)
        sync_folder(root)

    def do_space(self, request: "dict[str, object]") -> "dict[str, object]":
        """What is left."""
        with self.tree.root(request["store"]) as root:
            usage = os.fstatvfs(root)
        block = usage.f_frsize
        return {"free": usage.f_bavail * block, "files": usage.f_favail, "total": usage.f_blocks * block}

    def do_size(self, request: "dict[str, object]") -> "dict[str, object]":
        """The size of a regular file."""
        parts = file_parts_of(request["name"])
        with self.tree.root(request["store"]) as root:
            try:
                with self._closing(self.tree.open_folder(root, parts[:-1])) as folder:
                    found = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                return {"size": None}
        return {"size": found.st_size if stat.S_ISREG(found.st_mode) else None}

    @contextlib.contextmanager
    def _closing(self, folder: int) -> "Iterator[int]":
        try:
            yield folder
        finally:
            os.close(folder)

    def do_begin(self, request: "dict[str, object]") -> "dict[str, object]":
        """Begin a copy, or go on with one."""
        copy = Copy(int(str(request["size"])))
        self._hold(request, copy)
        try:
            parts = file_parts_of(request["name"])
            with self.tree.root(request["store"]) as root:
                copy.folder = self.tree.open_folder(root, parts[:-1], make=True)
            self.tree.note_writing(copy.folder)
            copy.name = parts[-1]
            return {"skip": copy.open(str(request["key"]), self.lock_seconds)}
        except (OSError, RequestError):
            if "n" in request:  # otherwise it is kept until its error was told
                self._drop(request, keep=False)
            raise

    def _copy(self, request: "dict[str, object]") -> Copy:
        copy = self.handles[int(str(request["h"]))]
        if not isinstance(copy, Copy):
            raise OSError(errno.EBADF, "that is no copy")
        if copy.error:
            raise RequestError(copy.error)
        return copy

    def do_seal(self, request: "dict[str, object]") -> "dict[str, object]":
        """All is written."""
        copy = self._copy(request)
        durable = request["durable"] or not self.tree.flushes_whole(copy.folder)
        self.tree.needs_flush = self.tree.needs_flush or not durable
        copy.seal(int(str(request["mode"])), int(str(request["time"])), bool(durable))
        return {}

    def do_prove(self, request: "dict[str, object]") -> "dict[str, object]":
        """Read it back."""
        copy = self._copy(request)
        copy.asked = True
        if copy.size_bytes <= BLOCK_BYTES:
            self._prove_ahead()
        return copy.prove(str(request["sha256"]), self.proof)

    def _prove_ahead(self) -> None:
        """Have the next small copies read back that are sealed, and will be asked for: it is told as `proved`."""
        copies = ((h, c) for h, c in self.handles.items() if isinstance(c, Copy) and c.sealed and not c.proved)
        small = ((h, c) for h, c in copies if c.size_bytes <= BLOCK_BYTES and not c.error)
        for handle, copy in itertools.islice(small, PROOFS_AHEAD):
            copy.begin_proof(self.proof, functools.partial(self._tell_proved, handle))

    def _tell_proved(self, handle: int, found: "dict[str, object]") -> None:
        with contextlib.suppress(OSError):
            self.link.send(dict(found, proved=handle))

    def do_publish(self, request: "dict[str, object]") -> "dict[str, object]":
        """Give it its name."""
        copy = self._copy(request)
        parts = file_parts_of(request["name"])
        with self.tree.folder(request["store"], parts[:-1]) as folder:
            if not os.path.samestat(os.fstat(folder), os.fstat(copy.folder)):
                raise OSError(errno.ESTALE, "another store lies in its place since the copy was begun")
        durable = request["durable"] or not self.tree.flushes_whole(copy.folder)
        self.tree.needs_flush = self.tree.needs_flush or not durable
        try:
            copy.publish(str(request["sha256"]), self.proof, bool(durable))
        except OSError as error:
            raise RequestError(dict(self._refusal_of(error), kept=copy.kept)) from error
        del self.handles[int(str(request["h"]))]
        copy.close()
        if copy.size_bytes <= BLOCK_BYTES:
            self._prove_ahead()
        return {"kept": copy.kept}

    def do_leave(self, request: "dict[str, object]") -> "dict[str, object]":
        """Let go of a copy, a file that is read or a listing; unless it shall be kept, a part is removed."""
        thing = self._drop(request, keep=bool(request["keep"]))
        if isinstance(thing, Copy) and thing.error:
            raise RequestError(thing.error)
        return {}

    def _drop(self, request: "dict[str, object]", keep: bool) -> "Copy | Reader | Listing | None":
        thing = self.handles.pop(int(str(request["h"])), None)
        if isinstance(thing, Copy) and not (keep and thing.written >= BLOCK_BYTES):
            with contextlib.suppress(OSError):  # what cannot be removed now is swept some day
                thing.discard()
        if thing is not None:
            thing.close()
        return thing

    def do_flush(self, request: "dict[str, object]") -> "dict[str, object]":
        """Make durable the file systems on which these folders lie."""
        done = set()
        self.tree.needs_flush = False
        with self.tree.root(request["store"]) as root:
            for name in list_of(request["folders"]):
                try:
                    opened = self.tree.open_folder(root, parts_of(name))
                except FileNotFoundError:
                    continue  # somebody has removed it since, with what was in it
                with self._closing(opened) as folder:
                    device = os.fstat(folder).st_dev
                    if device not in done and self.tree.flushes_whole(folder):
                        self.tree.flush(folder)
                        done.add(device)
        return {}

    def do_read_back(self, request: "dict[str, object]") -> "dict[str, object]":
        """Read a stored file past the page cache, and see that its name is durable."""
        parts = file_parts_of(request["name"])
        with self.tree.folder(request["store"], parts[:-1]) as folder:
            found = self.proof.read_back(folder, parts[-1])
            sync_folder(folder)
            return found

    def do_read(self, request: "dict[str, object]") -> "dict[str, object]":
        """Open a stored file to be read."""
        parts = file_parts_of(request["name"])
        with self.tree.folder(request["store"], parts[:-1]) as folder:
            reader = Reader(os.open(parts[-1], READ_FLAGS, dir_fd=folder))
        found = os.fstat(reader.descriptor)
        try:
            require_regular(found)
        except OSError:
            reader.close()
            raise
        self._hold(request, reader)
        return {"size": found.st_size, "time": found.st_mtime_ns, "mode": stat.S_IMODE(found.st_mode)}

    def do_fill(self, request: "dict[str, object]") -> "dict[str, object]":
        """Read on in an open file."""
        reader = self.handles[int(str(request["h"]))]
        if not isinstance(reader, Reader):
            raise OSError(errno.EBADF, "that is no file that is read")
        view = self.link.buffer[: int(str(request["length"]))]
        length = os.readv(reader.descriptor, [view])
        PROGRESS.done += length
        return {"payload": view[:length]}

    def do_move(self, request: "dict[str, object]") -> "dict[str, object]":
        """Rename a stored file, durably, never over another."""
        parts, to = file_parts_of(request["name"]), file_parts_of(request["to"])
        with self.tree.root(request["store"]) as root, self._closing(self.tree.open_folder(root, parts[:-1])) as folder:
            require_regular(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False))
            with self._closing(self.tree.open_folder(root, to[:-1], make=True)) as target:
                rename_new(folder, parts[-1], target, to[-1])
                sync_folder(target)
                sync_folder(folder)
        return {}

    def do_remove(self, request: "dict[str, object]") -> "dict[str, object]":
        """Remove a stored file, durably."""
        parts = file_parts_of(request["name"])
        with self.tree.root(request["store"]) as root:
            try:
                with self._closing(self.tree.open_folder(root, parts[:-1])) as folder:
                    require_regular(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False))
                    os.unlink(parts[-1], dir_fd=folder)
                    sync_folder(folder)
            except FileNotFoundError:
                return {"there": False}
        return {"there": True}

    def do_walk(self, request: "dict[str, object]") -> "dict[str, object]":
        """Begin a listing."""
        self._hold(request, Listing(self.tree, request["store"]))
        return {}

    def do_page(self, request: "dict[str, object]") -> "dict[str, object]":
        """The next files of a listing; none at its end."""
        listing = self.handles[int(str(request["h"]))]
        if not isinstance(listing, Listing):
            raise OSError(errno.EBADF, "that is no listing")
        return {"files": listing.page()}

    def do_sweep(self, request: "dict[str, object]") -> "dict[str, object]":
        """Remove the parts that nobody has in hand, but keep for their time those that can be resumed."""
        in_hand = {str(key).encode("ascii") for key in list_of(request["in_hand"])}
        removed = 0
        with self.tree.root(request["store"]) as root:
            for _, folder, files in self.tree.walk(root):
                for name, found in files:
                    # The time of change: that of modification is the source's already when a copy is sealed.
                    old = time.time() - found.st_ctime > float(str(request["age"]))
                    mine = PARTIAL.fullmatch(name) and name[-37:-5] not in in_hand
                    if mine and (old or found.st_size < BLOCK_BYTES) and remove_unlocked(folder, name):
                        removed += 1
        return {"removed": removed}


class Reader:
    """A stored file that is read."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)


class Listing:
    """A walk through the tree, given out by pages."""

    def __init__(self, tree: Tree, identity: "object") -> None:
        self.files = self._every(tree, identity)

    def _every(self, tree: Tree, identity: "object") -> "Iterator[tuple[str, int]]":
        with tree.root(identity) as root:
            for parts, _, files in tree.walk(root):
                for name, found in files:
                    if not PARTIAL.fullmatch(name):
                        yield text_of(b"/".join([*parts, name])), found.st_size

    def page(self) -> "list[tuple[str, int]]":
        """Some files more."""
        return list(itertools.islice(self.files, PAGE_ENTRIES))

    def close(self) -> None:
        """Let go of it."""
        self.files = iter(())


def remove_unlocked(folder: int, name: bytes) -> bool:
    """Remove a part, unless a helper has it in hand; whether it went."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(name, READ_FLAGS, dir_fd=folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (*NO_LOCKS, errno.EBADF):
                raise
        finally:
            os.close(descriptor)
        os.unlink(name, dir_fd=folder)
        return True
    return False


def list_of(value: "object") -> "list[object]":
    """A request's list."""
    return value if isinstance(value, list) else []


def boot_id() -> str:
    """What tells one start of this host's system from the next; "" where it does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def raise_limits() -> None:
    """Many copies may be in hand at once, each with two descriptors."""
    with contextlib.suppress(OSError, ValueError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    """Greet, and serve."""
    raise_limits()
    os.write(1, MAGIC)
    with contextlib.suppress(BrokenPipeError):
        Helper(Link()).serve()
    sys.stdout.flush()
    os._exit(0)  # a thread of this process may be in a system call that does not end


if __name__ == "__main__":
    main()
