"""Data that outlives a process. SQLite has one importer here, `_sqlite`, loaded when a path is given."""
