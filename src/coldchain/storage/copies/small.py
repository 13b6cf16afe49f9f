"""Many small files at once: the price of durability is paid once for a batch instead of three times for a file.

Each file is read whole, hashed and written under its hidden name; then the store is flushed (one `syncfs`), every copy
is read back and compared, renamed, and the store flushed again. Until the second flush nothing is said to be verified,
so what a power cut leaves is as with single copies: hidden files, or whole ones that are recognised at the next try.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from coldchain.errors import StorageError, StoreFullError
from coldchain.storage.copies.copying import RINGS, CopyOutcome, CopyReport, copy_verified, failed, stands, verified
from coldchain.storage.copies.source import CameraFile, SourceFolders, SourceVersion
from coldchain.storage.digests import new_digest
from coldchain.storage.store import FileFacts, Incoming, Store

SMALL_BYTES = 1 << 20
MOST_FILES = 256
MOST_BYTES = 32 << 20
# Files that are not so small are read, hashed and written side by side: hashing together takes a fraction of the time.
_SIDE_BY_SIDE_BYTES = 128 << 10
_SIDE_BY_SIDE = 16
# Tiny files are read back by so many threads.
_SLICES = 4


@dataclass(frozen=True, slots=True)
class CopyRequest:
    """What is to be copied: as the arguments of `copy_verified`."""

    root: str
    source: str
    relative: str
    expected: SourceVersion


@dataclass(frozen=True, slots=True)
class _Content:
    """A source that was read whole and found unchanged."""

    relative: str
    facts: FileFacts
    data: bytearray
    sha256: str


def copy_small(requests: Sequence[CopyRequest], stores: Sequence[Store]) -> list[CopyReport | StorageError]:
    """Copy these files to every store, and prove every copy; for each its report, or what its source's failure was.

    At most `MOST_FILES` files and `MOST_BYTES` in all should be given: they are held in memory.
    """
    with ExitStack() as stack:
        folders = stack.enter_context(SourceFolders())
        at_once = _at_once(stack, [request.expected.size_bytes for request in requests])
        read = list(at_once(lambda request: _read(request, folders), requests))
    contents = [content for content in read if isinstance(content, _Content)]
    by_store = _each(stores, lambda store: _Batch(store).copy(contents))
    outcomes = {content.relative: tuple(batch[content.relative] for batch in by_store) for content in contents}
    return [
        _report(request, content, outcomes[content.relative], stores) if isinstance(content, _Content) else content
        for request, content in zip(requests, read, strict=True)
    ]


def _at_once(stack: ExitStack, sizes: Sequence[int]) -> Callable[..., Iterable[Any]]:
    """`map`, or one with threads where the files are worth them."""
    if len(sizes) < 2 or are_tiny(sizes):
        return map
    return stack.enter_context(ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="small")).map


def _in_slices(stack: ExitStack, count: int) -> Callable[..., Iterable[Any]]:
    """`map` by a few threads, each with a slice of its own: the medium lets one wait for a tiny file's bytes for longer
    than all else takes, and handing files to threads one by one costs as much as copying them."""
    if count < 2 * _SLICES:
        return map
    pool = stack.enter_context(ThreadPoolExecutor(_SLICES, thread_name_prefix="small"))

    def mapped(do: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        length = -(-len(items) // _SLICES)
        slices = [items[start : start + length] for start in range(0, len(items), length)]
        return chain.from_iterable(pool.map(lambda some: [do(item) for item in some], slices))

    return mapped


def are_tiny(sizes: Sequence[int]) -> bool:
    """Whether files of these sizes are mostly the interpreter's work, and their bytes hardly count."""
    return sum(sizes) < len(sizes) * _SIDE_BY_SIDE_BYTES


def _read(request: CopyRequest, folders: SourceFolders) -> _Content | StorageError:
    try:
        with CameraFile(request.root, request.source, request.expected, folders) as source:
            data = bytearray(source.facts.size_bytes)
            view, length = memoryview(data), 0
            while length < len(data) and (more := source.fill(view[length:])):
                length += more
            source.require_unchanged(length)
            digest = new_digest(length)
            digest.update(data)
            source.require_digest(digest.hexdigest(), request.expected.sha256)
            return _Content(request.relative, source.facts, data, digest.hexdigest())
    except StorageError as error:
        return error


def _report(
    request: CopyRequest, content: _Content, outcomes: Sequence[CopyOutcome | None], stores: Sequence[Store]
) -> CopyReport | StorageError:
    """The file's report; where a store has something of its name already, it is copied there by itself."""
    alone = [store for store, outcome in zip(stores, outcomes, strict=True) if outcome is None]
    by_itself: dict[str, CopyOutcome] = {}
    if alone:
        try:
            root = Path(request.root)
            report = copy_verified(root, request.source, request.relative, alone, expected=request.expected)
        except StorageError as error:
            return error
        by_itself = {outcome.store: outcome for outcome in report.outcomes}
    return CopyReport(
        sha256=content.sha256,
        size_bytes=content.facts.size_bytes,
        modified_ns=content.facts.modified_ns,
        outcomes=tuple(
            by_itself[store.name] if outcome is None else outcome
            for store, outcome in zip(stores, outcomes, strict=True)
        ),
    )


class _Item:
    """One copy of a batch."""

    def __init__(self, content: _Content) -> None:
        self.content = content
        self.incoming: Incoming | None = None
        self.outcome: CopyOutcome | None = None

    def begin(self, store: Store, stack: ExitStack) -> None:
        """Write it under its hidden name, unless something of its name and size is there already."""
        if stands(store, self.content.relative, self.content.facts.size_bytes):
            return
        incoming = self.incoming = stack.enter_context(store.receive(self.content.relative, self.content.facts))
        incoming.write(memoryview(self.content.data)[incoming.skip_bytes :])
        incoming.seal(durable=False)

    def publish(self, store: Store) -> None:
        """Prove it and give it its name."""
        incoming, sha256 = self.incoming, self.content.sha256
        assert incoming is not None  # begun, or it would not be here
        with RINGS.borrow() as ring:
            found = incoming.prove(sha256, ring)
            incoming.publish(sha256, ring, durable=False)
        self.outcome = verified(store, found, self.content.relative, incoming.stored_as, incoming.kept)

    def fail(self, store: Store, error: StorageError) -> None:
        """Keep what stood in its way."""
        self.outcome = failed(store, error, None if self.incoming is None else self.incoming.kept)


class _Batch:
    """One store's side of a batch. What fails because the whole store does is not tried with every file: a host that
    does not answer would hold up the other stores as often as the batch has files."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._failure: StorageError | None = None

    def copy(self, contents: Sequence[_Content]) -> dict[str, CopyOutcome | None]:
        """The outcome of each by its path; None for those that must be copied by themselves."""
        store = self._store
        items = [_Item(content) for content in contents]
        with ExitStack() as stack:
            at_once = _at_once(stack, [content.facts.size_bytes for content in contents])
            copies = stack.enter_context(ExitStack())
            begun = self._through(at_once, items, lambda item: item.begin(store, copies))
            written = self._flushed([item for item in begun if item.incoming is not None])
            proving = _in_slices(stack, len(written)) if at_once is map else at_once
            self._flushed(self._through(proving, written, lambda item: item.publish(store)))
        return {item.content.relative: item.outcome for item in items}

    def _through(
        self, at_once: Callable[..., Iterable[Any]], items: Sequence[_Item], do: Callable[[_Item], None]
    ) -> list[_Item]:
        """Those that came through."""

        def whether(item: _Item) -> bool:
            if self._failure is not None:
                item.fail(self._store, self._failure)
                return False
            try:
                do(item)
            except StorageError as error:
                item.fail(self._store, error)
                self._note(error)
                return False
            return True

        return [item for item, came in zip(items, at_once(whether, items), strict=True) if came]

    def _note(self, error: StorageError) -> None:
        # A full store answers at once, and may have room for a smaller file.
        if self._failure is None and not isinstance(error, StoreFullError) and self._store.is_at_fault(error):
            words = f"store {self._store.name!r} failed at another file of the same batch ({error.found})"
            self._failure = StorageError(words, remedy=error.remedy)
            self._failure.__cause__ = error.__cause__

    def _flushed(self, items: list[_Item]) -> list[_Item]:
        """All of them, or none where the store could not make them durable."""
        if not items:
            return items
        try:
            self._store.flush()
        except StorageError as error:
            for item in items:
                item.fail(self._store, error)
            return []
        return items


def _each(
    stores: Sequence[Store], copy: Callable[[Store], dict[str, CopyOutcome | None]]
) -> list[dict[str, CopyOutcome | None]]:
    if len(stores) < 2:
        return [copy(store) for store in stores]
    with ThreadPoolExecutor(max_workers=len(stores), thread_name_prefix="batch") as pool:
        return list(pool.map(copy, stores))
