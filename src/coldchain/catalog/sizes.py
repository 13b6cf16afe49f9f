"""How large the catalog is, as the database reckons it: no table is counted through."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Integer, func, literal_column, select

from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import Base


@dataclass(frozen=True, slots=True)
class TableSize:
    """A table's rows, about, and its bytes with its indexes; None where the database does not tell."""

    name: str
    rows: int
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class CatalogSize:
    """The catalog's database: what it is, its bytes in all, and its tables, the largest first."""

    version: str
    size_bytes: int
    tables: tuple[TableSize, ...]


def of(catalog: Catalog) -> CatalogSize:
    """The catalog's size. Raises CatalogError."""
    with catalog.reading() as unit:
        connection = unit.connection()
        return _of_file(connection) if connection.dialect.name == "sqlite" else _of_server(connection)


def _of_file(connection: Connection) -> CatalogSize:
    # Rows are numbered as they come and hardly any is ever deleted: the last number is known without counting.
    tables = []
    for table in Base.metadata.sorted_tables:
        rows = connection.scalar(select(func.max(literal_column("rowid", Integer()))).select_from(table))
        tables.append(TableSize(table.name, rows or 0, None))
    pages, page_bytes = (
        int(connection.exec_driver_sql(f"PRAGMA {n}").scalar() or 0) for n in ("page_count", "page_size")
    )
    version = f"SQLite {connection.exec_driver_sql('SELECT sqlite_version()').scalar()}"
    return CatalogSize(version, pages * page_bytes, _largest_first(tables))


def _of_server(connection: Connection) -> CatalogSize:
    found = connection.exec_driver_sql(
        "SELECT table_name, table_rows, data_length + index_length FROM information_schema.tables "
        "WHERE table_schema = DATABASE()"
    )
    known = {table.name for table in Base.metadata.sorted_tables}
    sizes = [TableSize(str(name), int(rows or 0), int(size or 0)) for name, rows, size in found if str(name) in known]
    version = str(connection.exec_driver_sql("SELECT VERSION()").scalar())
    return CatalogSize(version, sum(size.size_bytes or 0 for size in sizes), _largest_first(sizes))


def _largest_first(tables: list[TableSize]) -> tuple[TableSize, ...]:
    return tuple(sorted(tables, key=lambda table: (-(table.size_bytes or 0), -table.rows, table.name)))
