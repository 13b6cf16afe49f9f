"""Events by site: of two sites' clocks one may be hours ahead. Every site that has written has a row.

The types are written out here and not imported: a migration must not change when the models do.
"""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
import uuid_utils.compat
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0010"
down_revision = "0009"
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
    """Name the sites, and exchange the indexes: the new first, which the foreign key needs."""
    _name_sites()
    op.create_index("ix_events_site_severity_id", "events", ["site", "severity", "id"])
    op.create_index("ix_events_session_id_site_severity_id", "events", ["session_id", "site", "severity", "id"])
    op.drop_index("ix_events_severity_id", "events")
    op.drop_index("ix_events_session_id_severity_id", "events")


def _name_sites() -> None:
    sites = sa.table(
        "sites",
        sa.column("id", _id()),
        sa.column("site", _name()),
        sa.column("facility", _name()),
        sa.column("server", _name()),
        sa.column("turn"),
        sa.column("said_at", _time()),
    )
    events = sa.table("events", sa.column("site", _name()))
    connection = op.get_bind()
    known = set(connection.scalars(sa.select(sites.c.site)))
    said_at = datetime.now(UTC).replace(tzinfo=None)
    for site in sorted(set(connection.scalars(sa.select(events.c.site).distinct())) - known):
        row = {"id": uuid_utils.compat.uuid7(), "site": site, "facility": "", "server": "", "turn": 0}
        connection.execute(sa.insert(sites).values(**row, said_at=said_at))
