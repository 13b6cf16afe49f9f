"""Migrations that may be run again after they were killed in their middle.

MariaDB and MySQL commit every change of a table by itself: a migration that is killed leaves its first changes there,
under the old revision. Each operation here looks first whether its change is there; so the next `catalog upgrade` runs
the migration from its beginning, and only what is missing is done. Statements between them (filling columns) must give
the same when they are executed twice. Nobody writes meanwhile: a catalog of an older revision is not opened.

Tables are InnoDB's, and their text is compared as code points, whatever the server's defaults are.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic.operations import MigrateOperation, Operations, ops, toimpl

ABLE = (ops.CreateTableOp, ops.CreateIndexOp, ops.DropIndexOp, ops.AddColumnOp, ops.ExecuteSQLOp)
"""What a migration may do: the operations that may be done again."""
_OPTIONS = {"engine": "InnoDB", "default_charset": "utf8mb4", "collate": "utf8mb4_nopad_bin"}


def _is_server(operations: Operations) -> bool:
    return operations.get_bind().dialect.name in ("mysql", "mariadb")


def _inspector(operations: Operations) -> sa.Inspector:
    return sa.inspect(operations.get_bind())  # a new one each time: it remembers what it has seen


@Operations.implementation_for(ops.CreateTableOp, replace=True)
def _create_table(operations: Operations, operation: ops.CreateTableOp) -> sa.Table | None:
    if _is_server(operations):
        if _inspector(operations).has_table(operation.table_name):
            return None
        dialect = operations.get_bind().dialect.name
        operation.kw = {**{f"{dialect}_{name}": value for name, value in _OPTIONS.items()}, **operation.kw}
    return toimpl.create_table(operations, operation)


@Operations.implementation_for(ops.AddColumnOp, replace=True)
def _add_column(operations: Operations, operation: ops.AddColumnOp) -> None:
    if _is_server(operations):
        there = {column["name"] for column in _inspector(operations).get_columns(operation.table_name)}
        if operation.column.name in there:
            return
    toimpl.add_column(operations, operation)


@Operations.implementation_for(ops.CreateIndexOp, replace=True)
def _create_index(operations: Operations, operation: ops.CreateIndexOp) -> None:
    if _is_server(operations) and str(operation.index_name) in _indexes(operations, operation.table_name):
        return
    toimpl.create_index(operations, operation)


@Operations.implementation_for(ops.DropIndexOp, replace=True)
def _drop_index(operations: Operations, operation: ops.DropIndexOp) -> None:
    if _is_server(operations) and str(operation.index_name) not in _indexes(operations, str(operation.table_name)):
        return
    toimpl.drop_index(operations, operation)


def _indexes(operations: Operations, table: str) -> set[str | None]:
    return {index["name"] for index in _inspector(operations).get_indexes(table)}


def _refuse(operations: Operations, operation: MigrateOperation) -> Any:
    raise NotImplementedError(f"{type(operation).__name__} cannot be done twice: say here how, then use it")


for _kind in vars(ops).values():
    if isinstance(_kind, type) and issubclass(_kind, MigrateOperation) and _kind not in (MigrateOperation, *ABLE):
        Operations.implementation_for(_kind, replace=True)(_refuse)
