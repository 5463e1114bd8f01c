"""The plugin's migrations: an Alembic history of its own, with the version table `musehub_alembic_version`."""
