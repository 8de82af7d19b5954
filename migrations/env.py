"""Runs the migrations on the connection that `oracle.store.migrate` hands over, inside its transaction."""

from alembic import context
from sqlalchemy import Connection

from oracle.store.schema import metadata

connection = context.config.attributes.get("connection")
if not isinstance(connection, Connection):
    raise SystemExit("Migrations are run by `oracle db upgrade`, not by the alembic command.")

context.configure(
    connection=connection,
    target_metadata=metadata,
    # SQLite can change a table in few ways: the others are done by building a new one.
    render_as_batch=connection.dialect.name == "sqlite",
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
