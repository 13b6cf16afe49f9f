"""Verdicts, alerts, what the quality step measures, and what alignment and picking say besides.

The types are written out here and not imported: a migration must not change when the models do.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
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


def _path() -> sa.LargeBinary:
    return sa.LargeBinary(4096).with_variant(mysql.VARBINARY(4096), *_SERVER)


def _time() -> sa.DateTime:
    return sa.DateTime().with_variant(mysql.DATETIME(fsp=6), *_SERVER)


def upgrade() -> None:
    """Add what is new; rows that are there have nothing in the new columns."""
    op.add_column("motion_results", sa.Column("error_angstrom", sa.Double(), nullable=True))
    op.add_column("motion_results", sa.Column("gain_verdict", _name(), nullable=True))
    op.add_column("motion_results", sa.Column("gain_share", sa.Double(), nullable=True))
    op.add_column("pick_results", sa.Column("contamination_fraction", sa.Double(), nullable=True))
    _quality_results()
    _verdicts()
    _alerts()


def _quality_results() -> None:
    op.create_table(
        "quality_results",
        sa.Column("run_id", _id(), nullable=False),
        sa.Column("transmission", sa.Double(), nullable=True),
        sa.Column("unevenness", sa.Double(), nullable=True),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_quality_results"),
        sa.ForeignKeyConstraint(["run_id"], ["step_runs.id"], name="fk_quality_results_run_id"),
    )
    op.create_index("ix_quality_results_run_id", "quality_results", ["run_id"])


def _verdicts() -> None:
    op.create_table(
        "verdicts",
        sa.Column("session_id", _id(), nullable=False),
        sa.Column("exposure_id", _id(), nullable=False),
        sa.Column("stands", sa.Boolean(), nullable=False),
        sa.Column("grade", sa.String(32), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("measures", sa.JSON(), nullable=False),
        sa.Column("pattern", _path(), nullable=True),
        sa.Column("acquired_at", _time(), nullable=True),
        sa.Column("judged_at", _time(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_verdicts"),
        sa.ForeignKeyConstraint(["exposure_id"], ["exposures.id"], name="fk_verdicts_exposure_id"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_verdicts_session_id"),
    )
    op.create_index("ix_verdicts_exposure_id_id", "verdicts", ["exposure_id", "id"])
    op.create_index("ix_verdicts_session_id_stands_exposure_id", "verdicts", ["session_id", "stands", "exposure_id"])


def _alerts() -> None:
    op.create_table(
        "alerts",
        sa.Column("session_id", _id(), nullable=False),
        sa.Column("quantity", sa.String(32), nullable=False),
        sa.Column("since_exposure_id", _id(), nullable=False),
        sa.Column("seen_exposure_id", _id(), nullable=False),
        sa.Column("usual", sa.Double(), nullable=True),
        sa.Column("spread", sa.Double(), nullable=True),
        sa.Column("level", sa.Double(), nullable=True),
        sa.Column("words", _prose(), nullable=False),
        sa.Column("raised_at", _time(), nullable=False),
        sa.Column("ended_at", _time(), nullable=True),
        sa.Column("ended_by", _id(), nullable=True),
        sa.Column("ending", _prose(), nullable=False),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_alerts"),
        sa.ForeignKeyConstraint(["ended_by"], ["exposures.id"], name="fk_alerts_ended_by"),
        sa.ForeignKeyConstraint(["seen_exposure_id"], ["exposures.id"], name="fk_alerts_seen_exposure_id"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_alerts_session_id"),
        sa.ForeignKeyConstraint(["since_exposure_id"], ["exposures.id"], name="fk_alerts_since_exposure_id"),
    )
    op.create_index("ix_alerts_session_id_id", "alerts", ["session_id", "id"])
