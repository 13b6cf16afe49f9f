"""The one error tree. Every failure that a person may read is one of these.

    ColdchainError                 exit status 1
    ├── UsageError                 the command line asks for something impossible (exit status 2)
    ├── ConfigError                facility.toml: file, key, found, expected
    ├── FormatError                a file is not what it should be; `retry` is False: the bytes are at fault
    │   ├── IncompleteFileError    the file ends before its own structure does; perhaps it still grows (`retry` is True)
    │   └── MetadataError          XML, mdoc or header values that cannot be true
    ├── ProcessingError            a step cannot give a result from this input
    ├── CatalogError               the database refuses, is newer, or lacks what was asked for
    │   └── CatalogAwayError       it is away, or busy for too long; the same call may succeed later (`retry` is True)
    ├── StorageError               a store cannot take, give or prove a file
    │   ├── StoreFullError         no space or no inode is left (`retry` is True)
    │   ├── VerificationError      what was read back is not what was written
    │   └── SourceChangedError     the source changed while it was being copied (`retry` is True)
    ├── ComputeError               a worker died (`retry` is True)
    │   ├── NoWorkerError          this host starts no process now: no step can be run until it does
    │   └── BrokenWorkerError      a worker cannot load what computes: no step can be run here
    └── DeliveryError              a message could not be handed over (`retry` is True)
        └── RefusedError           its receiver will never take this message (`retry` is False)

An error says what was found, what was wanted, and what to do.
"""

from __future__ import annotations

from pathlib import Path


class ColdchainError(Exception):
    """Base of all stated failures.

    Parameters
    ----------
    found : what is there, in words ("the file ends after 1,024 of 4,195,328 bytes").
    expected : what was wanted, or "" where `found` already says it.
    remedy : what the reader can do about it, as an imperative sentence.
    path : the file or folder that it is about, if any.
    """

    exit_status: int = 1
    retry: bool = False

    def __init__(self, found: str, *, expected: str = "", remedy: str = "", path: Path | str | None = None) -> None:
        super().__init__(found)
        self.found = found
        self.expected = expected
        self.remedy = remedy
        self.path = None if path is None else Path(path)

    def __str__(self) -> str:
        where = "" if self.path is None else f"{printable(str(self.path))}: "
        expected = f"; expected {self.expected}" if self.expected else ""
        # A remedy may be written with or without its full stop, or be a question.
        end = "" if self.remedy.endswith((".", "?")) else "."
        remedy = f". {self.remedy}{end}" if self.remedy else ""
        return f"{where}{self.found}{expected}{remedy}"

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders; the default would drop the keyword fields, and what the system said.
        cause = self.__cause__ if isinstance(self.__cause__, OSError) else None
        return (_rebuild, (type(self), self.found, self.expected, self.remedy, self.path, cause))


def _rebuild(
    kind: type[ColdchainError], found: str, expected: str, remedy: str, path: Path | None, cause: OSError | None
) -> ColdchainError:
    error = kind(found, expected=expected, remedy=remedy, path=path)
    error.__cause__ = cause
    return error


def printable(text: str) -> str:
    """The text with control characters and undecodable bytes escaped: no file name can forge a line of a log."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class UsageError(ColdchainError):
    """The command line asks for something that cannot be."""

    exit_status = 2


class ConfigError(ColdchainError):
    """facility.toml is not usable."""


class FormatError(ColdchainError):
    """A file's bytes are not what its format demands."""


class IncompleteFileError(FormatError):
    """A file ends before its own structure does. It may still be growing."""

    retry = True


class MetadataError(FormatError):
    """Metadata that is missing, unreadable or cannot be true."""


class ProcessingError(ColdchainError):
    """A step cannot give a result from this input."""


class CatalogError(ColdchainError):
    """The catalog refuses or lacks what was asked for."""


class CatalogAwayError(CatalogError):
    """The catalog's server is away, or somebody holds it for too long. Nothing was written, but for a commit whose
    answer was lost: what is called again must bear that."""

    retry = True


class StorageError(ColdchainError):
    """A store cannot take, give or prove a file."""


class StoreFullError(StorageError):
    """No space or no inode is left on a store."""

    retry = True


class VerificationError(StorageError):
    """What was read back is not what was written."""


class SourceChangedError(StorageError):
    """The source changed while it was being read."""

    retry = True


class ComputeError(ColdchainError):
    """A worker died or could not be started."""

    retry = True


class NoWorkerError(ComputeError):
    """No worker can be started: the machine has no memory or no process left. What was to be run is not at fault."""


class BrokenWorkerError(ComputeError):
    """A worker cannot load what computes a step. Whatever it was given is not at fault."""


class DeliveryError(ColdchainError):
    """A message could not be handed over to its receiver."""

    retry = True


class RefusedError(DeliveryError):
    """The receiver will never take this message."""

    retry = False
