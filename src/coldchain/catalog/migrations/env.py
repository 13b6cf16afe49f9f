"""Run by Alembic inside the transaction that `engine.upgrade` has begun."""

from alembic import context

import coldchain.catalog.migrations.again  # noqa: F401  # operations that may be done twice
from coldchain.catalog.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,  # SQLite's is, once sqlite3's own transactions are off
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
