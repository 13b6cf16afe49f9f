"""What was said of stores that fill, or that copies are late for: open until it has ended.

The types are written out here and not imported: a migration must not change when the models do.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_COLLATION = {"charset": "utf8mb4", "collation": "utf8mb4_nopad_bin"}
_SERVER = ("mysql", "mariadb")


def _id() -> sa.Uuid[Any]:
    return sa.Uuid(native_uuid=False)


def _name() -> sa.String:
    return sa.String(255).with_variant(mysql.VARCHAR(255, **_COLLATION), *_SERVER)


def _prose() -> sa.Text:
    return sa.Text().with_variant(mysql.MEDIUMTEXT(**_COLLATION), *_SERVER)


def _time() -> sa.DateTime:
    return sa.DateTime().with_variant(mysql.DATETIME(fsp=6), *_SERVER)


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "store_alerts",
        sa.Column("store", _name(), nullable=False),
        sa.Column("subject", sa.String(32), nullable=False),
        sa.Column("words", _prose(), nullable=False),
        sa.Column("raised_at", _time(), nullable=False),
        sa.Column("ended_at", _time(), nullable=True),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_store_alerts"),
    )
    op.create_index("ix_store_alerts_ended_at_id", "store_alerts", ["ended_at", "id"])
