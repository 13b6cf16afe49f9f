"""What each rule of notification has told after its cursor, and when it has sent messages.

The types are written out here and not imported: a migration must not change when the models do.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_COLLATION = {"charset": "utf8mb4", "collation": "utf8mb4_nopad_bin"}
_SERVER = ("mysql", "mariadb")


def _id() -> sa.Uuid[Any]:
    return sa.Uuid(native_uuid=False)


def _name() -> sa.String:
    return sa.String(255).with_variant(mysql.VARCHAR(255, **_COLLATION), *_SERVER)


def upgrade() -> None:
    """Add the column and the table."""
    op.add_column("notice_cursors", sa.Column("sends", sa.JSON(), nullable=True))
    op.create_table(
        "notice_told",
        sa.Column("rule", _name(), nullable=False),
        sa.Column("event_id", _id(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_notice_told"),
    )
    op.create_index("ix_notice_told_site_rule_event_id", "notice_told", ["site", "rule", "event_id"])
