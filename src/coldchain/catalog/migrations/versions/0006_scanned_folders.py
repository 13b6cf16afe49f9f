"""Which folders of the watched roots need not be listed again, and a session's files by their kind.

The types are written out here and not imported: a migration must not change when the models do.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_COLLATION = {"charset": "utf8mb4", "collation": "utf8mb4_nopad_bin"}
_SERVER = ("mysql", "mariadb")


def _id() -> sa.Uuid[Any]:
    return sa.Uuid(native_uuid=False)


def _name() -> sa.String:
    return sa.String(255).with_variant(mysql.VARCHAR(255, **_COLLATION), *_SERVER)


def _path() -> sa.LargeBinary:
    return sa.LargeBinary(4096).with_variant(mysql.VARBINARY(4096), *_SERVER)


def _digest() -> sa.LargeBinary:
    return sa.LargeBinary(32).with_variant(mysql.BINARY(32), *_SERVER)


def upgrade() -> None:
    """Add the index and the table."""
    op.create_index("ix_files_session_id_kind_id", "files", ["session_id", "kind", "id"])
    op.create_table(
        "scanned_folders",
        sa.Column("root_digest", _digest(), nullable=False),
        sa.Column("folder", _path(), nullable=False),
        sa.Column("folder_digest", _digest(), nullable=False),
        sa.Column("modified_ns", sa.String(32), nullable=False),
        sa.Column("changed_ns", sa.String(32), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_scanned_folders"),
    )
    op.create_index(
        "ix_scanned_folders_site_root_digest_folder_digest",
        "scanned_folders",
        ["site", "root_digest", "folder_digest"],
    )
