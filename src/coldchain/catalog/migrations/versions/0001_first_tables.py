"""First tables: instruments, projects, sessions, exposures, files, replicas, step runs, results, events.

The types are written out here and not imported: a migration must not change when the models do.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
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


def _digest() -> sa.LargeBinary:
    return sa.LargeBinary(32).with_variant(mysql.BINARY(32), *_SERVER)


def _time() -> sa.DateTime:
    return sa.DateTime().with_variant(mysql.DATETIME(fsp=6), *_SERVER)


def upgrade() -> None:
    """Make the tables, those that others refer to first."""
    _instruments()
    _projects()
    _sessions()
    _exposures()
    _files()
    _step_runs()
    _ctf_results()
    _events()
    _motion_results()
    _pick_results()
    _replicas()


def _instruments() -> None:
    op.create_table(
        "instruments",
        sa.Column("name", _name(), nullable=False),
        sa.Column("created_at", _time(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_instruments"),
    )
    op.create_index("ix_instruments_name", "instruments", ["name"])


def _projects() -> None:
    op.create_table(
        "projects",
        sa.Column("name", _name(), nullable=False),
        sa.Column("created_at", _time(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
    )
    op.create_index("ix_projects_name", "projects", ["name"])


def _sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("name", _name(), nullable=False),
        sa.Column("project_id", _id(), nullable=True),
        sa.Column("instrument_id", _id(), nullable=False),
        sa.Column("source_root", _path(), nullable=False),
        sa.Column("folder", _path(), nullable=False),
        sa.Column("folder_digest", _digest(), nullable=False),
        sa.Column("layout", sa.String(32), nullable=False),
        sa.Column("owner_name", _name(), nullable=False),
        sa.Column("owner_mail", _name(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("created_at", _time(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_sessions_project_id"),
        sa.ForeignKeyConstraint(["instrument_id"], ["instruments.id"], name="fk_sessions_instrument_id"),
    )
    op.create_index("ix_sessions_instrument_id_folder_digest", "sessions", ["instrument_id", "folder_digest"])
    op.create_index("ix_sessions_name", "sessions", ["name"])


def _exposures() -> None:
    op.create_table(
        "exposures",
        sa.Column("session_id", _id(), nullable=False),
        sa.Column("name", _path(), nullable=False),
        sa.Column("name_digest", _digest(), nullable=False),
        sa.Column("grid_square", _name(), nullable=True),
        sa.Column("foil_hole", _name(), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("input_file_id", _id(), nullable=True),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("reason", _prose(), nullable=False),
        sa.Column("found_at", _time(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_exposures"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_exposures_session_id"),
    )
    op.create_index("ix_exposures_session_id_id", "exposures", ["session_id", "id"])
    op.create_index("ix_exposures_session_id_name_digest_id", "exposures", ["session_id", "name_digest", "id"])
    op.create_index("ix_exposures_session_id_state", "exposures", ["session_id", "state"])
    op.create_index("ix_exposures_site_state_id", "exposures", ["site", "state", "id"])


def _files() -> None:
    op.create_table(
        "files",
        sa.Column("session_id", _id(), nullable=False),
        sa.Column("exposure_id", _id(), nullable=True),
        sa.Column("relative_path", _path(), nullable=False),
        sa.Column("path_digest", _digest(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("modified_ns", sa.String(32), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=True),
        sa.Column("detail", _prose(), nullable=False),
        sa.Column("arrived_at", _time(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
        sa.ForeignKeyConstraint(["exposure_id"], ["exposures.id"], name="fk_files_exposure_id"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_files_session_id"),
    )
    op.create_index("ix_files_exposure_id_id", "files", ["exposure_id", "id"])
    op.create_index("ix_files_session_id_id", "files", ["session_id", "id"])
    op.create_index("ix_files_session_id_path_digest_id", "files", ["session_id", "path_digest", "id"])
    op.create_index("ix_files_session_id_state_id", "files", ["session_id", "state", "id"])


def _step_runs() -> None:
    op.create_table(
        "step_runs",
        sa.Column("exposure_id", _id(), nullable=False),
        sa.Column("step", sa.String(32), nullable=False),
        sa.Column("key", _name(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("outputs", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("detail", _prose(), nullable=False),
        sa.Column("started_at", _time(), nullable=False),
        sa.Column("ended_at", _time(), nullable=True),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_step_runs"),
        sa.ForeignKeyConstraint(["exposure_id"], ["exposures.id"], name="fk_step_runs_exposure_id"),
    )
    op.create_index("ix_step_runs_exposure_id_step_state_id", "step_runs", ["exposure_id", "step", "state", "id"])
    op.create_index("ix_step_runs_site_state", "step_runs", ["site", "state"])


def _ctf_results() -> None:
    op.create_table(
        "ctf_results",
        sa.Column("run_id", _id(), nullable=False),
        sa.Column("defocus_u_angstrom", sa.Double(), nullable=True),
        sa.Column("defocus_v_angstrom", sa.Double(), nullable=True),
        sa.Column("defocus_angle_degrees", sa.Double(), nullable=True),
        sa.Column("phase_shift_degrees", sa.Double(), nullable=True),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("fit_resolution_angstrom", sa.Double(), nullable=True),
        sa.Column("ice_ring_density", sa.Double(), nullable=True),
        sa.Column("uncertainty_angstrom", sa.Double(), nullable=True),
        sa.Column("trustworthy", sa.Boolean(), nullable=False),
        sa.Column("reason", _prose(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ctf_results"),
        sa.ForeignKeyConstraint(["run_id"], ["step_runs.id"], name="fk_ctf_results_run_id"),
    )
    op.create_index("ix_ctf_results_run_id", "ctf_results", ["run_id"])


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("at", _time(), nullable=False),
        sa.Column("severity", sa.String(32), nullable=False),
        sa.Column("kind", _name(), nullable=False),
        sa.Column("message", _prose(), nullable=False),
        sa.Column("session_id", _id(), nullable=True),
        sa.Column("exposure_id", _id(), nullable=True),
        sa.Column("file_id", _id(), nullable=True),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name="fk_events_file_id"),
        sa.ForeignKeyConstraint(["exposure_id"], ["exposures.id"], name="fk_events_exposure_id"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_events_session_id"),
    )
    op.create_index("ix_events_session_id_severity_id", "events", ["session_id", "severity", "id"])
    op.create_index("ix_events_severity_id", "events", ["severity", "id"])


def _motion_results() -> None:
    op.create_table(
        "motion_results",
        sa.Column("run_id", _id(), nullable=False),
        sa.Column("shift_x_angstrom", sa.JSON(), nullable=False),
        sa.Column("shift_y_angstrom", sa.JSON(), nullable=False),
        sa.Column("total_motion_angstrom", sa.Double(), nullable=True),
        sa.Column("early_motion_angstrom", sa.Double(), nullable=True),
        sa.Column("late_motion_angstrom", sa.Double(), nullable=True),
        sa.Column("dose_weighted", sa.Boolean(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_motion_results"),
        sa.ForeignKeyConstraint(["run_id"], ["step_runs.id"], name="fk_motion_results_run_id"),
    )
    op.create_index("ix_motion_results_run_id", "motion_results", ["run_id"])


def _pick_results() -> None:
    op.create_table(
        "pick_results",
        sa.Column("run_id", _id(), nullable=False),
        sa.Column("diameter_angstrom", sa.Double(), nullable=True),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("picks", sa.JSON(), nullable=False),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pick_results"),
        sa.ForeignKeyConstraint(["run_id"], ["step_runs.id"], name="fk_pick_results_run_id"),
    )
    op.create_index("ix_pick_results_run_id", "pick_results", ["run_id"])


def _replicas() -> None:
    op.create_table(
        "replicas",
        sa.Column("file_id", _id(), nullable=False),
        sa.Column("store", _name(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("pending", sa.Boolean(), nullable=False),
        sa.Column("level", sa.String(32), nullable=True),
        sa.Column("sha256", sa.String(64), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("detail", _prose(), nullable=False),
        sa.Column("verified_at", _time(), nullable=True),
        sa.Column("kept_as", _path(), nullable=True),
        sa.Column("id", _id(), nullable=False),
        sa.Column("site", _name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_replicas"),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name="fk_replicas_file_id"),
    )
    op.create_index("ix_replicas_file_id_id", "replicas", ["file_id", "id"])
    op.create_index("ix_replicas_queue", "replicas", ["site", "pending", "state", "store", "id"])
