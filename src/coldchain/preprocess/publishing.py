"""Results take their final names only when all files of one input are whole, and never that of a file that is read."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from coldchain.errors import ProcessingError, StorageError, StoreFullError, printable
from coldchain.preprocess.output_names import FilesRead


class ResultsFolder:
    """The folder to which a call's results go. `endings`: by role, what follows an input's stem in its results' names.

    Files that are read are noted in `read`; each input's own are to be added before its results are published.
    """

    def __init__(self, folder: Path, endings: Mapping[str, str]) -> None:
        self._folder = folder
        self._endings = endings
        self.read = FilesRead()

    def publish(self, path: Path, write: Callable[[Path], Mapping[str, str]]) -> dict[str, Path]:
        """Have the results of the input `path` written; its files by role.

        `write` writes them into the folder that it is given and says their names by role. Files of an earlier run are
        replaced, or removed where this one has none of that role.

        Raises StorageError where something cannot be written, StoreFullError where the disk is full; then nothing
        half-written is left of this input. Raises ProcessingError where a result would replace a file that is read, and
        what `write` raises.
        """
        self._spare_what_is_read(path)
        try:
            scratch = Path(tempfile.mkdtemp(prefix=f".{path.stem}.", suffix=".part", dir=self._folder))
            try:
                return self._rename(scratch, write(scratch), path.stem)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        except (StorageError, OSError) as error:
            raise self.explained(error) from error

    def _spare_what_is_read(self, path: Path) -> None:
        for ending in self._endings.values():
            lost = self.read.find(self._folder / (path.stem + ending))
            if lost is not None:
                raise ProcessingError(
                    f"its results would replace {printable(str(lost))}, which is read",
                    remedy="Name another folder with --out",
                    path=path,
                )

    def _rename(self, scratch: Path, names: Mapping[str, str], stem: str) -> dict[str, Path]:
        """Give all files their names, once it is sure that each can have its own; take away what an earlier run left
        that this one has not."""
        targets = {role: self._folder / (stem + ending) for role, ending in self._endings.items()}
        for target in targets.values():
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, f"{printable(target.name)} is a folder", str(target))
        for role, name in names.items():
            (scratch / name).replace(targets[role])
        for role in targets.keys() - names.keys():
            targets[role].unlink(missing_ok=True)
        return {role: targets[role] for role in names}

    def explained(self, error: StorageError | OSError) -> StorageError:
        """A failure to write as one that names the folder."""
        if isinstance(error, StoreFullError) or (
            isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        ):
            return StoreFullError(
                "the disk is full", remedy="Make room, or name another folder with --out", path=self._folder
            )
        found = error.found if isinstance(error, StorageError) else (error.strerror or str(error))
        return StorageError(
            f"the results cannot be written: {found}",
            remedy="See to the folder's permissions and its disk, or name another with --out",
            path=self._folder,
        )
