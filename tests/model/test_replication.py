"""What is said of two primaries that are not as they should be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from coldchain.model.replication import (
    Direction,
    ReaderState,
    ServerLook,
    Trouble,
    changed,
    gtid_position,
    still_to_come,
    troubles,
)

WELL = Direction("hpc:3306", ReaderState.RUNNING, True, 0, 0, "", 0, "", "Slave_Pos")
SETTINGS = {
    "log_bin": "ON",
    "sync_binlog": "1",
    "innodb_flush_log_at_trx_commit": "1",
    "gtid_strict_mode": "ON",
    "binlog_format": "ROW",
    "binlog_row_image": "FULL",
    "slave_skip_errors": "OFF",
    "slave_exec_mode": "STRICT",
    "log_slave_updates": "ON",
    "server_id": "1",
    "gtid_domain_id": "1",
}


def _look(direction: Direction | None = WELL, number: int = 1, **settings: str) -> ServerLook:
    variables = {**SETTINGS, "server_id": str(number), "gtid_domain_id": str(number), **settings}
    return ServerLook("10.11.19-MariaDB", variables, () if direction is None else (direction,))


def _ill(**change: Any) -> Direction:
    return replace(WELL, **change)


def test_two_servers_that_are_well_have_no_trouble() -> None:
    """Both directions run, the settings are right, nothing is said."""
    assert troubles(_look(), _look(number=2)) == []


def test_a_server_alone_needs_no_settings_of_two() -> None:
    """A catalog on one server needs no binary log; only what a power cut would take is said."""
    assert troubles(_look(None, sync_binlog="0", log_bin="OFF")) == []
    (trouble,) = troubles(_look(None, innodb_flush_log_at_trx_commit="2"))
    assert "power cut" in trouble.found


@pytest.mark.parametrize(
    ("direction", "said", "remedy"),
    [
        (_ill(reader=ReaderState.CONNECTING, reader_error=2003, reader_words="refused"), "2003: refused", "firewall"),
        (_ill(reader=ReaderState.CONNECTING, reader_error=2013, reader_words="lost"), "2013", "delivered when"),
        (_ill(reader=ReaderState.CONNECTING, reader_error=1045, reader_words="denied"), "1045", "MASTER_PASSWORD"),
        (_ill(reader=ReaderState.STOPPED, reader_error=1236, reader_words="purged"), "1236", "From a backup"),
        (_ill(reader=ReaderState.STOPPED, reader_error=1593, reader_words="ids"), "1593", "server_id"),
        (_ill(reader=ReaderState.STOPPED, reader_error=9999, reader_words="odd"), "9999", "See its log"),
        (_ill(reader=ReaderState.STOPPED), "gets nothing", "Someone stopped it"),
        (_ill(is_applying=False, applier_error=1062, applier_words="Duplicate"), "1062: Duplicate", "do not skip"),
        (_ill(is_applying=False, applier_error=1032, applier_words="no row"), "1032", "missing here"),
        (_ill(is_applying=False, applier_error=1950, applier_words="order"), "1950", "gtid_domain_id"),
        (_ill(is_applying=False, applier_error=1146, applier_words="no table"), "1146", "one server only"),
        (_ill(is_applying=False, applier_error=1114, applier_words="full"), "1114", "Free space"),
        (_ill(is_applying=False), "does not apply", "START SLAVE"),
        (_ill(gtid_mode="No"), "not by GTIDs", "MASTER_USE_GTID"),
    ],
)
def test_a_stopped_thread_is_an_error_with_its_remedy(direction: Direction, said: str, remedy: str) -> None:
    """Whatever stops a direction, on this server or the other one, is said with its number, and what to do."""
    for found, name in (
        (troubles(_look(direction), _look(number=2)), "this server"),
        (troubles(_look(), _look(direction, 2)), "the other server"),
    ):
        (trouble,) = found
        assert trouble.is_error
        assert name in trouble.found and said in trouble.found and remedy in trouble.remedy


def test_lag_is_a_warning_beyond_its_limit() -> None:
    """A direction may be behind by so much and no more."""
    assert troubles(_look(_ill(lag_seconds=60)), lag_seconds=60) == []
    (trouble,) = troubles(_look(_ill(lag_seconds=61)), lag_seconds=60)
    assert not trouble.is_error and "61 s behind hpc:3306" in trouble.found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("log_bin", "OFF"),
        ("sync_binlog", "0"),
        ("sync_binlog", "100"),
        ("innodb_flush_log_at_trx_commit", "2"),
        ("gtid_strict_mode", "OFF"),
        ("binlog_format", "MIXED"),
        ("binlog_row_image", "MINIMAL"),
        ("slave_skip_errors", "1062"),
        ("slave_exec_mode", "IDEMPOTENT"),
    ],
)
def test_a_setting_that_loses_rows_is_an_error(name: str, value: str) -> None:
    """What a power cut or a mistake would turn into rows that differ is said while all is still well."""
    (trouble,) = troubles(_look(**{name: value}))
    assert trouble.is_error and f"{name} = {value}" in trouble.found and f"Set {name} =" in trouble.remedy


def test_servers_that_cannot_be_told_apart_are_an_error() -> None:
    """Two servers with one server_id or one domain are named, whichever of the two it is."""
    found = troubles(_look(), _look())
    assert [trouble.key for trouble in found] == ["server_id of both", "gtid_domain_id of both"]


def test_filters_are_said() -> None:
    """Rows that are left out by a rule are said."""
    (trouble,) = troubles(_look(_ill(filters=("Replicate_Ignore_DB coldchain",))))
    assert "Replicate_Ignore_DB coldchain" in trouble.found


def test_a_peer_that_receives_nothing_is_an_error() -> None:
    """One direction alone is no replication."""
    (trouble,) = troubles(_look(), _look(None, 2))
    assert "the other server receives nothing" in trouble.found
    (trouble,) = troubles(_look(None), _look(number=2))
    assert "this server receives nothing" in trouble.found


def test_a_peer_that_is_away_and_a_missing_grant_are_said() -> None:
    """A server that does not answer, or may not, is named with what would help."""
    (trouble,) = troubles(_look(), peer_fault="cannot be reached")
    assert "cannot be reached" in trouble.found
    denied = replace(_look(None), denied="GRANT REPLICA MONITOR ON *.* TO 'u'@'%'")
    (trouble,) = troubles(denied)
    assert "GRANT REPLICA MONITOR" in trouble.remedy


def test_what_is_still_to_come_is_counted_by_domain() -> None:
    """Transactions that one wrote and the other has not applied are counted in the writer's own domain."""
    source = replace(_look(), written="1-1-120,2-2-70")
    receiver = replace(_look(number=2), applied="1-1-100,2-2-70")
    assert still_to_come(source, receiver) == 20
    assert still_to_come(replace(source, written=""), receiver) is None
    assert gtid_position("1-1-120,\n2-2-70,nonsense,3-") == {"1": 120, "2": 70}


def test_what_was_told_is_not_told_again() -> None:
    """Only a trouble that is new is told, and the end once, when none is left."""
    first, second = Trouble("a", "a", "a"), Trouble("b", "b", "b")
    assert changed([], [first]) == ([first], False)
    assert changed(["a"], [first, second]) == ([second], False)
    assert changed(["a", "b"], [first]) == ([], False)
    assert changed(["a"], []) == ([], True)
    assert changed([], []) == ([], False)


def test_a_cut_link_is_one_trouble_whatever_its_number() -> None:
    """While a reader tries again, the error's number changes and the trouble does not; another stop is another one."""
    keys = {
        troubles(_look(_ill(reader=ReaderState.CONNECTING, reader_error=number)))[0].key
        for number in (2003, 2013, 2006)
    }
    assert len(keys) == 1
    stopped = troubles(_look(_ill(reader=ReaderState.STOPPED, reader_error=1236)))[0].key
    assert stopped not in keys
