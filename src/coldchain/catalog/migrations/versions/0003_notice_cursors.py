"""How far each rule of notification has come.

The types are written out here and not imported: a migration must not change when the models do.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"
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
    """Add the table."""
    op.create_table(
        "notice_cursors",
        sa.Column("rule", _name(), nullable=False),
        sa.Column("event_id", _id(), nullable=False),
        sa.Column("updated_at", _time(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_notice_cursors"),
    )
    op.create_index("ix_notice_cursors_site_rule", "notice_cursors", ["site", "rule"])
