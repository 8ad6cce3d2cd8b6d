"""A small table that all processes of a host share, without a server. The only file that knows SQLite.

Write-ahead logging lets readers go on while one process writes. What is read and written is tiny
(a read takes microseconds), so it is done where it is asked for; a lock that is held for longer
than `patience` makes the call fail instead of freezing the event loop.

Nothing is kept that would be missed: after a power failure the file may lack the last changes.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["SqliteStore", "StoreError"]


_OPENING = 2.0
"""Seconds to wait for other processes that make the file; once, because it may freeze a loop."""
_LOOK = 1.0
"""Seconds between looks whether the file at the path is still the one that is open."""


class StoreError(Exception):
    """The file cannot be read or written now."""


class SqliteStore:
    """Short texts by key, changed atomically. May be used by several threads.

    The file is opened at first use, again in each process after a fork, and again when somebody
    has removed or replaced it.

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
        self._opening = _OPENING
        self._file = (-1, -1)
        self._looked = 0.0
        self._lock = threading.Lock()

    def read(self, keys: Sequence[str]) -> list[str | None]:
        """The text of each key, ``None`` where there is none.

        Raises:
            StoreError: the file cannot be read.
        """
        marks = ",".join("?" * len(keys))
        query = f"SELECT key, value FROM store WHERE key IN ({marks})"  # noqa: S608  question marks
        with self._use("read") as connection:
            found = dict(connection.execute(query, keys).fetchall())
        return [found.get(key) for key in keys]

    def update(self, key: str, change: Callable[[str | None], str | None]) -> None:
        """Replace the text of `key` by what `change` makes of it, while nobody else can.

        Raises:
            StoreError: the file cannot be written, or another process is writing for too long.
        """
        with self._use("write") as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                row = connection.execute("SELECT value FROM store WHERE key = ?", (key,)).fetchone()
                value = change(None if row is None else row[0])
                if value is not None and (row is None or value != row[0]):
                    connection.execute("INSERT OR REPLACE INTO store VALUES (?, ?)", (key, value))
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk has ended it already
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._pid == os.getpid():
            connection.close()

    @contextmanager
    def _use(self, verb: str) -> Generator[sqlite3.Connection, None, None]:
        # Another thread is as patient as another process.
        if not self._lock.acquire(timeout=self._patience):
            raise self._error(verb, TimeoutError("another thread holds it"))
        try:
            yield self._open()
        except (sqlite3.Error, OSError) as error:
            raise self._error(verb, error) from error
        finally:
            self._lock.release()

    def _open(self) -> sqlite3.Connection:
        pid = os.getpid()
        if self._connection is not None and self._pid == pid:
            if self._is_there():
                return self._connection
            self.close()
        elif self._connection is not None:
            _OF_PARENTS.append(self._connection)
            self._connection = None
        # Making the file takes longer than using it, when several processes start at once.
        patience, self._opening = self._opening, self._patience
        connection = sqlite3.connect(
            self._path, timeout=patience, isolation_level=None, check_same_thread=False
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
        self._file = self._identity()
        self._looked = time.monotonic()
        return connection

    def _is_there(self) -> bool:
        """Whether the open file is the one at the path: with another one, this process would be
        alone and not know it."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return True
        self._looked = now
        return self._identity() == self._file

    def _identity(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return (-1, -1)
        return (found.st_dev, found.st_ino)

    def _error(self, verb: str, error: Exception) -> StoreError:
        return StoreError(
            f"cannot {verb} {self._path}: {error}; expected a SQLite file on a local disk, in a "
            "folder that exists and is writable"
        )


# A connection must not be used, nor closed, in a process that was forked from the one it was made in.
_OF_PARENTS: list[sqlite3.Connection] = []
