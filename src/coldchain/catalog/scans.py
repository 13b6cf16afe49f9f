"""Which folders of a watched root need not be listed again: the stamps at which all of their files were dealt with.

A site's own, for each root by its path. The folders' paths are relative to the root, "" is the root itself, and stamps
are modification and change time in nanoseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Select, select

from coldchain.catalog.columns import is_path, path_digest
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import ScannedFolderRow

Stamp = tuple[int, int]
_ROWS_AT_ONCE = 400
_ROOT = "."
"""What the root itself is kept as: a path is not empty."""


def stamps(catalog: Catalog, root: str) -> dict[str, Stamp]:
    """The stamps of a root's folders, as last noted."""
    with catalog.reading() as unit:
        found = unit.execute(stamps_query(catalog.site, path_digest(root)))
        return {_folder(folder): (modified, changed) for folder, modified, changed in found}


def note(catalog: Catalog, root: str, changes: Mapping[str, Stamp | None]) -> None:
    """Note the stamps of a root's folders; None: the folder is not known any more."""
    root_digest = path_digest(root)
    # The inner ones first: where a kill comes between, no folder is passed over whose subfolders are not known.
    folders = sorted((folder for folder in changes if is_path(folder or _ROOT)), key=len, reverse=True)
    for start in range(0, len(folders), _ROWS_AT_ONCE):
        part = {path_digest(folder or _ROOT): folder for folder in folders[start : start + _ROWS_AT_ONCE]}
        with catalog.writing() as unit:
            rows = {row.folder_digest: row for row in unit.scalars(rows_query(catalog.site, root_digest, list(part)))}
            for digest, folder in part.items():
                stamp, row = changes[folder], rows.get(digest)
                if stamp is None:
                    if row is not None:
                        unit.delete(row)
                    continue
                if row is None:
                    row = ScannedFolderRow(
                        site=catalog.site, root_digest=root_digest, folder=folder or _ROOT, folder_digest=digest
                    )
                    unit.add(row)
                row.modified_ns, row.changed_ns = stamp


def stamps_query(site: str, root_digest: bytes) -> Select[str, int, int]:
    """Folder and stamps of a root's folders."""
    return select(ScannedFolderRow.folder, ScannedFolderRow.modified_ns, ScannedFolderRow.changed_ns).where(
        ScannedFolderRow.site == site, ScannedFolderRow.root_digest == root_digest
    )


def rows_query(site: str, root_digest: bytes, folder_digests: Sequence[bytes]) -> Select[ScannedFolderRow]:
    """The rows of those of a root's folders that have these digests."""
    return select(ScannedFolderRow).where(
        ScannedFolderRow.site == site,
        ScannedFolderRow.root_digest == root_digest,
        ScannedFolderRow.folder_digest.in_(folder_digests),
    )


def _folder(stored: str) -> str:
    return "" if stored == _ROOT else stored
