"""The catalog: the only home of SQLAlchemy and Alembic.

One module per noun: its functions take a `Catalog` first, are one transaction each, and return `model` values; rows
never leave this room. Errors are `CatalogError`.
"""
