"""Where in which root a session's files lie, what frame sets' mdocs say of movies, and what lacks its partner.

The types are written out here and not imported: a migration must not change when the models do.
"""

import hashlib
import os
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_COLLATION = {"charset": "utf8mb4", "collation": "utf8mb4_nopad_bin"}
_SERVER = ("mysql", "mariadb")
_BATCH = 5000


def _id() -> sa.Uuid[Any]:
    return sa.Uuid(native_uuid=False)


def _name() -> sa.String:
    return sa.String(255).with_variant(mysql.VARCHAR(255, **_COLLATION), *_SERVER)


def _path() -> sa.LargeBinary:
    return sa.LargeBinary(4096).with_variant(mysql.VARBINARY(4096), *_SERVER)


def _digest() -> sa.LargeBinary:
    return sa.LargeBinary(32).with_variant(mysql.BINARY(32), *_SERVER)


def _time() -> sa.DateTime:
    return sa.DateTime().with_variant(mysql.DATETIME(fsp=6), *_SERVER)


def upgrade() -> None:
    """Add what is new. Files that are there lie where their session does; exposures get the digests of their stems."""
    op.add_column("files", sa.Column("place_id", _id(), nullable=True))
    op.add_column("exposures", sa.Column("stem_digest", _digest(), nullable=True))
    op.add_column("exposures", sa.Column("orphaned_at", _time(), nullable=True))
    _fill_stems()
    op.create_index("ix_exposures_session_id_stem_digest_id", "exposures", ["session_id", "stem_digest", "id"])
    op.create_index("ix_exposures_session_id_orphaned_at_id", "exposures", ["session_id", "orphaned_at", "id"])
    _session_places()
    _frame_sets()


def _session_places() -> None:
    op.create_table(
        "session_places",
        sa.Column("session_id", _id(), nullable=False),
        sa.Column("root", _path(), nullable=False),
        sa.Column("folder", _path(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_session_places"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_session_places_session_id"),
    )
    op.create_index("ix_session_places_session_id_id", "session_places", ["session_id", "id"])


def _frame_sets() -> None:
    op.create_table(
        "frame_sets",
        sa.Column("session_id", _id(), nullable=False),
        sa.Column("stem_digest", _digest(), nullable=False),
        sa.Column("movie", _path(), nullable=False),
        sa.Column("described_in", _path(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("waiting", sa.Boolean(), nullable=False),
        sa.Column("orphaned_at", _time(), nullable=True),
        sa.Column("found_at", _time(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_frame_sets"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_frame_sets_session_id"),
    )
    op.create_index("ix_frame_sets_session_id_stem_digest_id", "frame_sets", ["session_id", "stem_digest", "id"])
    op.create_index("ix_frame_sets_session_id_orphaned_at_id", "frame_sets", ["session_id", "orphaned_at", "id"])
    op.create_index("ix_frame_sets_site_waiting_id", "frame_sets", ["site", "waiting", "id"])


def _fill_stems() -> None:
    """Give every exposure the digest of its name's last part, in the order of keys, some thousand at a time."""
    table = sa.table(
        "exposures", sa.column("id", _id()), sa.column("name", _path()), sa.column("stem_digest", _digest())
    )
    change = sa.update(table).where(table.c.id == sa.bindparam("its_id")).values(stem_digest=sa.bindparam("its_digest"))
    connection = op.get_bind()
    last = None
    while True:
        query = sa.select(table.c.id, table.c.name).order_by(table.c.id).limit(_BATCH)
        rows = connection.execute(query if last is None else query.where(table.c.id > last)).all()
        if not rows:
            return
        connection.execute(change, [{"its_id": key, "its_digest": _stem_digest(name)} for key, name in rows])
        last = rows[-1][0]


def _stem_digest(name: bytes) -> bytes:
    stem = os.fsdecode(name).rpartition("/")[2].casefold()
    return hashlib.sha256(stem.encode("utf-8", "surrogateescape")).digest()
