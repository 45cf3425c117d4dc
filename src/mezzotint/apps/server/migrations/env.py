"""Alembic's entry: the connection is handed over by tables.py."""

from __future__ import annotations

from alembic import context

from mezzotint.apps.server.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata(),
    render_as_batch=True,
)
context.run_migrations()
