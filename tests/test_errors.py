"""What a failure says, and that it survives the way from a worker."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

from coldchain.errors import FormatError, IncompleteFileError, StorageError, printable


def test_an_error_says_path_found_expected_and_remedy() -> None:
    """The sentence holds where, what, what was wanted and what to do."""
    error = FormatError("mode 7", expected="mode 0, 1 or 2", remedy="Convert it.", path=Path("a.mrc"))
    assert str(error) == "a.mrc: mode 7; expected mode 0, 1 or 2. Convert it."


def test_a_remedy_ends_as_a_sentence_does() -> None:
    """With its full stop, without it, or as a question: it reads the same."""
    assert str(FormatError("a", remedy="Mend it")) == str(FormatError("a", remedy="Mend it.")) == "a. Mend it."
    assert str(FormatError("a", remedy="In another unit?")) == "a. In another unit?"


def test_an_error_keeps_its_fields_between_processes() -> None:
    """Pickling, as between worker and service, loses nothing."""
    error = IncompleteFileError("short", expected="long", remedy="Wait.", path=Path("x"))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is IncompleteFileError
    assert (str(copy), copy.retry, copy.path) == (str(error), True, Path("x"))


def test_what_the_system_said_crosses_process_borders() -> None:
    """Whether a whole store is at fault is read off the system's error, also where another process met it."""
    error = StorageError("writing failed")
    error.__cause__ = OSError(errno.EIO, "Input/output error")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy.__cause__, OSError)
    assert copy.__cause__.errno == errno.EIO
    error.__cause__ = ValueError("of no use elsewhere")
    assert pickle.loads(pickle.dumps(error)).__cause__ is None


def test_no_file_name_can_forge_a_line() -> None:
    """Newlines, escape codes and undecodable bytes are shown, not obeyed."""
    assert printable("a\nb\x1b[31m\udcff ü") == "a\\nb\\x1b[31m\\udcff ü"
