"""A small table that all processes of a host share, without a server. The only file that knows SQLite.

Write-ahead logging lets readers go on while one process writes. What is read and written is tiny
(a read takes microseconds), so it is done where it is asked for; a lock that is held for longer
than `patience` makes the call fail instead of freezing the event loop.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["SqliteStore", "StoreError"]


_OPENING = 2.0
"""Seconds to wait for other processes that make the file."""


class StoreError(Exception):
    """The file cannot be read or written now."""


class SqliteStore:
    """Short texts by key, changed atomically.

    The file is opened at first use, and again in each process after a fork.

    Args:
        path: of the database file; its folder must exist. It must be on a local disk, because
            write-ahead logging does not work over a network file system.
        patience: seconds to wait for another process that writes.
    """

    def __init__(self, path: str | os.PathLike[str], *, patience: float = 0.05) -> None:
        self._path = Path(path)
        self._patience = patience
        self._connection: sqlite3.Connection | None = None
        self._pid = -1

    def read(self, keys: Sequence[str]) -> list[str | None]:
        """The text of each key, ``None`` where there is none.

        Raises:
            StoreError: the file cannot be read.
        """
        try:
            found = dict(
                self._open()
                .execute(
                    f"SELECT key, value FROM store WHERE key IN ({','.join('?' * len(keys))})",  # noqa: S608  question marks only
                    keys,
                )
                .fetchall()
            )
        except (sqlite3.Error, OSError) as error:
            raise self._error("read", error) from error
        return [found.get(key) for key in keys]

    def update(self, key: str, change: Callable[[str | None], str | None]) -> None:
        """Replace the text of `key` by what `change` makes of it, while nobody else can.

        Raises:
            StoreError: the file cannot be written, or another process is writing for too long.
        """
        try:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                row = connection.execute("SELECT value FROM store WHERE key = ?", (key,)).fetchone()
                value = change(None if row is None else row[0])
                if value is not None and (row is None or value != row[0]):
                    connection.execute("INSERT OR REPLACE INTO store VALUES (?, ?)", (key, value))
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OSError) as error:
            raise self._error("write", error) from error

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._pid == os.getpid():
            connection.close()

    def _open(self) -> sqlite3.Connection:
        pid = os.getpid()
        if self._connection is not None and self._pid == pid:
            return self._connection
        if self._connection is not None:
            _OF_PARENTS.append(self._connection)
        # Making the file takes longer than using it, when several processes start at once.
        connection = sqlite3.connect(
            self._path, timeout=_OPENING, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS store (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
                " WITHOUT ROWID"
            )
            connection.execute(f"PRAGMA busy_timeout={int(self._patience * 1000)}")
        except BaseException:
            connection.close()
            raise
        self._connection, self._pid = connection, pid
        return connection

    def _error(self, verb: str, error: Exception) -> StoreError:
        return StoreError(
            f"cannot {verb} {self._path}: {error}; expected a SQLite file on a local disk, in a "
            "folder that exists and is writable"
        )


# A connection must not be used, nor closed, in a process that was forked from the one it was made in.
_OF_PARENTS: list[sqlite3.Connection] = []
