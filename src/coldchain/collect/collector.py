"""The thread that joins watching, completeness and intake, for one movie root."""

from __future__ import annotations

import logging
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from coldchain.catalog.arrivals import MOST_TOGETHER
from coldchain.collect.away_journal import AwayJournal, told
from coldchain.collect.completeness import CompletenessTracker, Examination, Growing, Timing, Verdict
from coldchain.collect.folder_stamps import LIST_ANYWAY, Stamp
from coldchain.collect.intake import Intake
from coldchain.collect.layout import taking_order
from coldchain.collect.notice import Notice
from coldchain.collect.watcher import FolderWatcher, Sighting
from coldchain.errors import CatalogAwayError, CatalogError, ColdchainError, printable
from coldchain.model.events import Severity

log = logging.getLogger(__name__)

# What a fault of ours may raise, and a machine that is short of something; neither may end the collection.
_FAULTS = (
    ColdchainError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,  # the base of XML parsers' errors
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

_IDLE_WAIT_SECONDS = 0.2
_CATALOG_WAIT_SECONDS = 1.0
_FAULT_WAIT_SECONDS = 5.0
_TAKING_SECONDS = 0.5
"""How long files may be taken before the kernel's events are read again."""
_MOST_UNTRIED = 5000
"""So many files are found before the first of them is taken; a listing that was begun is gone on with."""
_HOLDING_SECONDS = 5.0
"""How long a notice waits for the files that were found with it, so that it can name their session."""


class Collector:
    """Takes in what arrives under one movie root until it is stopped.

    Parameters
    ----------
    root : the movie root; it need not exist yet.
    intake : where whole files go.
    timing : how long files settle, and how long they are waited for.
    scan_seconds : the period of the reconciling scan.
    use_inotify : False for mounts whose other side's changes the kernel does not tell.
    clock : a monotonic clock in seconds.
    journal : what is waited for while the catalog does not answer is noted there; None: nowhere.
    """

    def __init__(
        self,
        root: Path,
        intake: Intake,
        *,
        timing: Timing | None = None,
        scan_seconds: float = 30.0,
        use_inotify: bool = True,
        clock: Callable[[], float] = time.monotonic,
        journal: AwayJournal | None = None,
    ) -> None:
        self._journal = journal
        self._watcher = FolderWatcher(root, scan_seconds=scan_seconds, use_inotify=use_inotify)
        self._tracker = CompletenessTracker(timing or Timing())
        self._intake = intake
        self._clock = clock
        self._resumed = False
        self._sighted: list[Sighting] = []
        self._unnoted: dict[str, Stamp | None] = {}
        self._noted_scans = 0
        self._noted: dict[str, Stamp] = {}
        self._to_report: deque[tuple[float, Notice]] = deque()
        self._failures: dict[str, str] = {}
        self._fault = ""
        self._idle = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"collector {root.name}", daemon=True)

    def start(self) -> None:
        """Begin. What arrived while nobody watched is found by the scan; what was taken before is not taken again."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the file in hand and end. Calling it again does nothing."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._watcher.close()

    def idle(self) -> bool:
        """Whether the tree has been gone through and every file in it is taken, damaged or gone.

        A file that grows, settles or cannot be read keeps the collector busy.
        """
        return self._idle.is_set()

    def alive(self) -> bool:
        """Whether the thread runs. False between `start` and `stop` means a fault of this program (see the log)."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._stopping.wait(self._guarded_step())

    def _guarded_step(self) -> float:
        """One step; whatever goes wrong in it, the next follows. Returns the seconds to wait before that."""
        try:
            self._step()
        except CatalogError as error:
            # The catalog is away or busy, so this cannot be told on the page. What is pending stays so.
            log.error("the catalog does not answer: %s", printable(str(error)))  # noqa: TRY400  # its sentence says it; a trace does not
            if isinstance(error, CatalogAwayError):
                self._note_away()
            return _CATALOG_WAIT_SECONDS
        except _FAULTS as error:
            self._say_fault(_stated(error))
            return _FAULT_WAIT_SECONDS
        return 0.0

    def _step(self) -> None:
        if not self._resumed:
            self._intake.resume()
            self._noted = self._intake.stamps()
            self._watcher.trust(self._noted)
            self._take_up_journal()
            self._resumed = True
        self._watch()
        self._see()
        self._note_stamps()
        self._tell_journal()
        self._take()
        self._report()

    def _note_away(self) -> None:
        """Note what is waited for while the catalog does not answer."""
        if self._journal is None:
            return
        try:
            self._journal.note(self._tracker.sizes | {each.path: each.size_bytes for each in self._sighted})
        except OSError as error:
            log.error("what arrives cannot be noted in a file: %s", _stated(error))  # noqa: TRY400

    def _take_up_journal(self) -> None:
        """See what an earlier process had noted and not told."""
        if self._journal is None:
            return
        try:
            self._journal.read()
        except OSError as error:
            log.error("what had been noted cannot be read: %s", _stated(error))  # noqa: TRY400
        self._sighted.extend(seen for path in self._journal.noted if isinstance(seen := self._seen(path), Sighting))

    def _tell_journal(self) -> None:
        """The catalog answers: say what was waited for meanwhile, and forget it. Raises CatalogError."""
        if self._journal is None or not self._journal.noted:
            return
        noted = self._journal.noted
        gone = [path for path in noted if self._seen(path) is None]
        self._tell(told(self._watcher.root, noted, gone, datetime.now(UTC)))
        try:
            self._journal.clear()
        except OSError as error:
            log.error("what was noted cannot be removed, and is told once more: %s", _stated(error))  # noqa: TRY400

    def _seen(self, path: str) -> Sighting | OSError | None:
        """A file as it stands now; None where it is gone."""
        try:
            return self._watcher.look(path)
        except OSError as error:
            return error

    def _say_fault(self, stated: str) -> None:
        """Say that a step failed, in the log with its trace and on the page if that can be; once while it is the same.

        For `except` blocks.
        """
        root = printable(str(self._watcher.root))
        if stated == self._fault:
            log.error("collecting from %s fails as before: %s", root, stated)
            return
        log.exception("collecting from %s failed", root)
        message = f"collecting from {root} failed: {stated}. It is gone on with by itself; the log has the details"
        try:
            self._intake.report(Notice(Severity.ERROR, "collector.failed", message, ""))
        except _FAULTS:
            log.exception("that cannot be told on the page")
            return
        self._fault = stated

    def _watch(self) -> None:
        """Find out what there is, and whether what was seen before has changed."""
        busy = bool(self._tracker.due(self._clock())) or bool(self._sighted)
        # While enough is to be done nothing more is looked for, so that what is known here stays small.
        visits = self._tracker.untried + len(self._sighted) < _MOST_UNTRIED
        findings = self._watcher.poll(self._clock(), 0.0 if busy else _IDLE_WAIT_SECONDS, visits=visits)
        now = self._clock()
        self._sighted.extend(findings.sightings)
        for path in self._tracker.to_look_at(now):
            self._look_again(path, now)
        self._to_report.extend((now + _HOLDING_SECONDS, notice) for notice in findings.notices)
        self._to_report.extend((now, _growth_notice(growing)) for growing in self._tracker.growing_too_long(now))

    def _look_again(self, path: str, now: float) -> None:
        try:
            seen = self._watcher.look(path)
        except OSError:  # it is there for all that is known; examining it tells what is the matter
            return
        if seen is None:
            self._drop(path)
        else:
            self._tracker.see(seen, now)

    def _drop(self, path: str) -> None:
        """It is gone. Should it be there after all, as after a mount that was away, the next scan shows it anew."""
        self._tracker.forget(path)
        self._watcher.forget(path)

    def _see(self) -> None:
        """Wait for what was sighted to be whole, but for what was taken before. Raises CatalogError."""
        new = {each.path: (each.size_bytes, each.modified_ns) for each in self._sighted}
        known = self._intake.known_among({path: new[path] for path in new if not self._tracker.is_pending(path)})
        now = self._clock()
        for sighting in self._sighted:
            if sighting.path not in known:
                self._tracker.see(sighting, now)
        self._sighted.clear()
        if not self._all_taken():
            self._idle.clear()
        elif not self._to_report:
            self._idle.set()

    def _note_stamps(self) -> None:
        """Have it noted which folders need not be listed again by the next process. Raises CatalogError.

        After a scan those are noted in which no file is waited for. As soon as one is, before it is taken, its folder
        is to be listed: a file that is written anew in its place leaves the stamp as it was.
        """
        waited_for = {path.rpartition("/")[0] for path in self._tracker.paths}
        for folder in waited_for & self._noted.keys():
            if self._noted[folder] != LIST_ANYWAY:
                self._unnoted[folder] = LIST_ANYWAY
                self._watcher.give_back_stamps([folder])
        if self._watcher.finished_scans != self._noted_scans:
            self._noted_scans = self._watcher.finished_scans
            self._collect_stamps(waited_for)
        if self._unnoted:
            self._intake.note_stamps(self._unnoted)
            self._noted.update((folder, stamp) for folder, stamp in self._unnoted.items() if stamp is not None)
            for folder in [folder for folder, stamp in self._unnoted.items() if stamp is None]:
                self._noted.pop(folder, None)
            self._unnoted.clear()

    def _collect_stamps(self, waited_for: set[str]) -> None:
        """What the last scan has shown. A folder is noted with its subfolders: it shows none where it is not listed."""
        held = []
        for folder, stamp in self._watcher.stamp_changes().items():
            if stamp is None:
                is_there = folder == "" or folder in self._watcher.folders_in(folder.rpartition("/")[0])
                self._unnoted[folder] = LIST_ANYWAY if is_there else None
            elif folder in waited_for:
                held.append(folder)
            else:
                self._unnoted[folder] = stamp
                for inner in self._watcher.folders_in(folder):
                    if inner not in self._noted:
                        self._unnoted.setdefault(inner, LIST_ANYWAY)
        self._watcher.give_back_stamps(held)

    def _take(self) -> None:
        """Take what is due, metadata and references first, for a bounded time."""
        until = self._clock() + _TAKING_SECONDS
        due = deque(sorted(self._tracker.due(self._clock()), key=lambda examination: taking_order(examination.path)))
        while due:
            for examination in self._take_together(due):
                self._take_one(examination)
                if self._stopping.is_set() or self._clock() >= until:
                    return
            if self._stopping.is_set() or self._clock() >= until:
                return

    def _take_together(self, due: deque[Examination]) -> list[Examination]:
        """Take the first of these off the list, together if that goes; those of them that must be taken alone."""
        first = list(islice(due, MOST_TOGETHER))
        verdicts: Sequence[Verdict | None]
        try:
            verdicts = self._intake.take_together(first, clock=self._clock)
        except _FAULTS as error:  # alone, each is told what is the matter with it
            log.info("%d files are taken one by one: %s", len(first), _stated(error))
            verdicts = [None] * len(first)
        alone = []
        for verdict in verdicts:
            examination = due.popleft()
            if verdict is None:
                alone.append(examination)
            else:
                self._failures.pop(examination.path, None)
                self._judge(examination, verdict)
        return alone

    def _take_one(self, examination: Examination) -> None:
        """One file's examination. Whatever goes wrong with it stays with it: it is tried again after the others."""
        try:
            verdict = self._intake.take(examination)
        except CatalogError as error:
            self._note_failure(examination.path, _stated(error))
            self._tracker.judge(examination, Verdict.UNREADABLE, self._clock())
            raise
        except _FAULTS as error:
            log.exception("taking %s failed", printable(examination.path))
            self._note_failure(examination.path, _stated(error))
            verdict = Verdict.UNREADABLE
        else:
            self._failures.pop(examination.path, None)
        self._judge(examination, verdict)

    def _judge(self, examination: Examination, verdict: Verdict) -> None:
        self._tracker.judge(examination, verdict, self._clock())
        if verdict is Verdict.GONE:
            self._watcher.forget(examination.path)

    def _note_failure(self, path: str, stated: str) -> None:
        if self._failures.get(path) == stated:
            return
        self._failures[path] = stated
        message = f"{printable(path)}: could not be taken: {stated}. It is tried again by itself"
        self._to_report.append((self._clock(), Notice(Severity.ERROR, "file.failed", message, path)))

    def _report(self) -> None:
        while self._to_report and (self._to_report[0][0] <= self._clock() or self._all_taken()):
            self._tell(self._to_report[0][1])
            self._to_report.popleft()

    def _tell(self, notice: Notice) -> None:
        """Put a notice on the page. Raises CatalogError: it is to be told when the catalog is back."""
        try:
            self._intake.report(notice)
        except CatalogError:
            raise
        except _FAULTS:
            log.exception("this cannot be told on the page: %s", printable(notice.message))

    def _all_taken(self) -> bool:
        scanned = self._watcher.finished_scans > 0 and not self._watcher.is_scanning
        return scanned and self._tracker.pending == 0 and not self._sighted


def _stated(error: BaseException) -> str:
    stated = str(error) if isinstance(error, ColdchainError) else f"{type(error).__name__}: {error}"
    return printable(stated)


def _growth_notice(growing: Growing) -> Notice:
    message = (
        f"{printable(growing.path)}: has been changing for {growing.seconds / 60:.0f} minutes without being whole "
        f"({growing.size_bytes:,} bytes now). See whether the program that writes it is well; it is waited for"
    )
    return Notice(Severity.WARNING, "file.growing", message, growing.path)
