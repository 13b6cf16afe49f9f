"""What to do about each error with which MariaDB and MySQL stop a replication thread, in plain words.

The numbers are the servers' own (MariaDB's and MySQL's error references).
"""

from __future__ import annotations

_REBUILD = "Bring this side back from a backup of the other one: docs/two-primaries.md, “From a backup”"
_AWAY = (
    "Look whether the other server runs and whether the link, the port and the firewall let this one through; what is "
    "written on either side is delivered when it is back"
)
_TRANSPORT = "Look at the certificates and at MASTER_SSL of CHANGE MASTER; they may have expired"
_DISK = "Free space on the disk of the server's data folder, then START SLAVE on it"
_TABLES = (
    "The tables of the two servers differ: an upgrade ran on both, or someone changed a table by hand. Run `coldchain "
    "catalog upgrade` on one server only and let it arrive on the other; docs/two-primaries.md, “To upgrade”"
)
_BY_HAND = (
    "Coldchain writes no such row on both sides: a program or a person did. Compare the row on both servers, make them "
    "the same here with SET SESSION sql_log_bin = 0, then START SLAVE; do not skip it unseen"
)

_READER = {
    1040: "The other server has too many connections: raise its max_connections; it is tried again by itself",
    1045: "The other server refuses the replication user's login: CHANGE MASTER TO MASTER_USER, MASTER_PASSWORD as it "
    "is there, then START SLAVE",
    1130: "The other server does not let this host in: CREATE USER for the host from which this one comes",
    1142: "Give the replication user REPLICATION SLAVE on the other server, then START SLAVE",
    1227: "Give the replication user REPLICATION SLAVE on the other server, then START SLAVE",
    1236: "The other server has not what this one still needs: its binary log was purged or lost, or one of the two "
    "was restored from an older backup. " + _REBUILD,
    1593: "Both servers have the same server_id: give one of them another and start it again",
    1595: _DISK,
    1698: "The replication user logs in by another way than its password: ALTER USER on the other server",
    2002: _AWAY,
    2003: _AWAY,
    2005: "The other server's name is not known here: look at MASTER_HOST and at the name service",
    2006: _AWAY,
    2013: _AWAY,
    2026: _TRANSPORT,
    3159: _TRANSPORT,
}

_APPLIER = {
    1021: _DISK,
    1032: "A row that the other server changes or deletes is missing here: someone deleted it by hand, or this side "
    "was restored. Copy it from the other server with SET SESSION sql_log_bin = 0, then START SLAVE; where many are "
    "missing: " + _REBUILD,
    1050: _TABLES,
    1051: _TABLES,
    1054: _TABLES,
    1060: _TABLES,
    1061: _TABLES,
    1062: "A row with this key is there already. " + _BY_HAND,
    1091: _TABLES,
    1114: _DISK,
    1146: _TABLES,
    1205: "A program held the row for too long: find it (SHOW PROCESSLIST), end it, then START SLAVE",
    1213: "Two writers held each other up too often: START SLAVE",
    1451: "A row that others refer to would go. " + _BY_HAND,
    1452: "A row refers to one that is missing here. " + _BY_HAND,
    1594: "What was received is damaged on this server's disk: STOP SLAVE; RESET SLAVE; START SLAVE fetches it again; "
    "look at the disk",
    1677: _TABLES,
    1950: "Transactions arrive out of their order: both servers write in one gtid_domain_id, or one was restored from "
    "an older backup and gives numbers away twice. Give each its own gtid_domain_id. " + _REBUILD,
    1951: "Two transactions have the same GTID: one of the servers was restored from an older backup. " + _REBUILD,
}


def reader_remedy(error: int, is_stopped: bool) -> str:
    """What to do where the thread that fetches does not run. `error` is 0 where none was said."""
    if error in _READER:
        return _READER[error]
    if error:
        return "See its log, mend that, then START SLAVE on it"
    return "Someone stopped it: START SLAVE on it" if is_stopped else _AWAY


def applier_remedy(error: int) -> str:
    """What to do where the thread that applies does not run. `error` is 0 where none was said."""
    if error in _APPLIER:
        return _APPLIER[error]
    return "See its log, mend that, then START SLAVE on it" if error else "Someone stopped it: START SLAVE on it"
