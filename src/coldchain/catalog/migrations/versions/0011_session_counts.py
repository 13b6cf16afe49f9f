"""What was counted of large sessions, with the events up to which it was counted.

The types are written out here and not imported: a migration must not change when the models do.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_COLLATION = {"charset": "utf8mb4", "collation": "utf8mb4_nopad_bin"}
_SERVER = ("mysql", "mariadb")


def _id() -> sa.Uuid[Any]:
    return sa.Uuid(native_uuid=False)


def _name() -> sa.String:
    return sa.String(255).with_variant(mysql.VARCHAR(255, **_COLLATION), *_SERVER)


def _time() -> sa.DateTime:
    return sa.DateTime().with_variant(mysql.DATETIME(fsp=6), *_SERVER)


def upgrade() -> None:
    """Add the table and its index."""
    op.create_table(
        "session_counts",
        sa.Column("session_id", _id(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("counted_at", _time(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_session_counts_session_id"),
        sa.PrimaryKeyConstraint("id", name="pk_session_counts"),
    )
    op.create_index("ix_session_counts_session_id_site_id", "session_counts", ["session_id", "site", "id"])
