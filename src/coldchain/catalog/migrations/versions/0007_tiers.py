"""Stores and their samples, holds, announcements; what replicas need for priorities, scrubs and retirement.

The types are written out here and not imported: a migration must not change when the models do.
"""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_COLLATION = {"charset": "utf8mb4", "collation": "utf8mb4_nopad_bin"}
_SERVER = ("mysql", "mariadb")
# The usual priorities at the time of this migration.
_PRIORITIES = {"metadata": 10, "gain": 10, "defects": 10, "preview": 30, "other": 60}


def _id() -> sa.Uuid[Any]:
    return sa.Uuid(native_uuid=False)


def _name() -> sa.String:
    return sa.String(255).with_variant(mysql.VARCHAR(255, **_COLLATION), *_SERVER)


def _path() -> sa.LargeBinary:
    return sa.LargeBinary(4096).with_variant(mysql.VARBINARY(4096), *_SERVER)


def _prose() -> sa.Text:
    return sa.Text().with_variant(mysql.MEDIUMTEXT(**_COLLATION), *_SERVER)


def _time() -> sa.DateTime:
    return sa.DateTime().with_variant(mysql.DATETIME(fsp=6), *_SERVER)


def upgrade() -> None:
    """Add the columns, fill them, and add the tables."""
    _extend_replicas()
    op.add_column("sessions", sa.Column("state_since", _time(), nullable=True))
    # When a session was closed is not known; its age counts from now, so that nothing goes too early.
    now = datetime.now(UTC).replace(tzinfo=None)
    op.execute(sa.update(sa.table("sessions", sa.column("state_since", _time()))).values(state_since=now))
    _create_stores()
    _create_holds()


def _extend_replicas() -> None:
    op.drop_index("ix_replicas_queue", "replicas")
    op.add_column("replicas", sa.Column("priority", sa.Integer(), nullable=False, server_default="50"))
    op.add_column("replicas", sa.Column("size_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("replicas", sa.Column("stored_as", _path(), nullable=True))
    op.add_column("replicas", sa.Column("checked_at", _time(), nullable=True))
    op.add_column("replicas", sa.Column("trashed_at", _time(), nullable=True))
    op.add_column("replicas", sa.Column("trashed_as", _path(), nullable=True))
    replicas = sa.table(
        "replicas",
        sa.column("file_id", _id()),
        sa.column("size_bytes"),
        sa.column("priority"),
        sa.column("checked_at"),
        sa.column("verified_at"),
    )
    files = sa.table("files", sa.column("id", _id()), sa.column("size_bytes"), sa.column("kind"))
    of_file = files.c.id == replicas.c.file_id
    size = sa.select(files.c.size_bytes).where(of_file).scalar_subquery()
    priority = sa.select(sa.case(_PRIORITIES, value=files.c.kind, else_=50)).where(of_file).scalar_subquery()
    op.execute(sa.update(replicas).values(size_bytes=size, priority=priority, checked_at=replicas.c.verified_at))
    op.create_index("ix_replicas_queue", "replicas", ["site", "pending", "state", "store", "priority", "id"])
    op.create_index("ix_replicas_backlog", "replicas", ["site", "pending", "store", "priority", "size_bytes"])
    op.create_index("ix_replicas_scrub", "replicas", ["site", "store", "state", "checked_at", "id", "size_bytes"])


def _create_stores() -> None:
    op.create_table(
        "stores",
        sa.Column("name", _name(), nullable=False),
        sa.Column("identity", _id(), nullable=False),
        sa.Column("marked_at", _time(), nullable=True),
        sa.Column("tier", sa.String(32), nullable=False),
        sa.Column("url", _path(), nullable=False),
        sa.Column("about", _prose(), nullable=False),
        sa.Column("seen_at", _time(), nullable=True),
        sa.Column("trouble", _prose(), nullable=False),
        sa.Column("trouble_since", _time(), nullable=True),
        sa.Column("total_bytes", sa.BigInteger(), nullable=True),
        sa.Column("free_bytes", sa.BigInteger(), nullable=True),
        sa.Column("free_files", sa.BigInteger(), nullable=True),
        sa.Column("backlog_bytes", sa.BigInteger(), nullable=False),
        sa.Column("backlog_files", sa.BigInteger(), nullable=False),
        sa.Column("bytes_per_second", sa.Double(), nullable=True),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_stores"),
    )
    op.create_index("ix_stores_site_name", "stores", ["site", "name"])
    op.create_table(
        "store_samples",
        sa.Column("store", _name(), nullable=False),
        sa.Column("at", _time(), nullable=False),
        sa.Column("total_bytes", sa.BigInteger(), nullable=True),
        sa.Column("free_bytes", sa.BigInteger(), nullable=True),
        sa.Column("arrived_bytes", sa.BigInteger(), nullable=False),
        sa.Column("backlog_bytes", sa.BigInteger(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_store_samples"),
    )
    op.create_index("ix_store_samples_site_store_at", "store_samples", ["site", "store", "at"])


def _create_holds() -> None:
    op.create_table(
        "holds",
        sa.Column("session_id", _id(), nullable=False),
        sa.Column("reason", _prose(), nullable=False),
        sa.Column("set_by", _name(), nullable=False),
        sa.Column("set_at", _time(), nullable=False),
        sa.Column("lifted_by", _name(), nullable=True),
        sa.Column("lifted_at", _time(), nullable=True),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_holds"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_holds_session_id"),
    )
    op.create_index("ix_holds_session_id_lifted_at", "holds", ["session_id", "lifted_at"])
    op.create_table(
        "announcements",
        sa.Column("session_id", _id(), nullable=False),
        sa.Column("rule", _name(), nullable=False),
        sa.Column("store", _name(), nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("announced_at", _time(), nullable=False),
        sa.Column("due_at", _time(), nullable=False),
        sa.Column("ended_at", _time(), nullable=True),
        sa.Column("outcome", _prose(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_announcements"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_announcements_session_id"),
    )
    op.create_index("ix_announcements_session_id_ended_at_id", "announcements", ["session_id", "ended_at", "id"])
    op.create_index("ix_announcements_site_ended_at_id", "announcements", ["site", "ended_at", "id"])
