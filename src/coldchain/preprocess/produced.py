"""What a step wrote, as files that are to be copied: where the facility's policies name sums or results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from coldchain.model.files import FileKind, ProducedFile
from coldchain.model.policy import CopyPlan
from coldchain.model.results import Step


def kind_of(step: Step, name: str) -> FileKind:
    """An aligned movie's micrographs are sums; all else that a step writes is a result."""
    return FileKind.SUM if step is Step.ALIGN and name.endswith(".mrc") else FileKind.RESULT


def produced_files(
    step: Step, outputs: Mapping[str, str], *, folder: Path, root: Path, session_folder: str, copies: CopyPlan
) -> list[ProducedFile]:
    """Those of a step's outputs (role → name in `folder`) that some store wants.

    Without policies nothing of it is copied: it can be computed again. `session_folder` is the session's folder below
    the results' `root`. Raises OSError where one of them cannot be seen.
    """
    if not copies.policies:
        return []
    produced = []
    for name in dict.fromkeys(outputs.values()):
        kind = kind_of(step, name)
        stores = copies.stores(kind)
        if stores:
            status = (folder / name).stat()
            produced.append(
                ProducedFile(
                    root=str(root),
                    folder=session_folder,
                    relative_path=str((folder / name).relative_to(root / session_folder)),
                    kind=kind,
                    size_bytes=status.st_size,
                    modified_ns=status.st_mtime_ns,
                    stores=stores,
                    priority=copies.priority(kind),
                )
            )
    return produced
