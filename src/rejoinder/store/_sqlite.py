"""A key-value table in a SQLite file, shared by all processes of a host. The only module that imports sqlite3.

Write-ahead logging lets readers continue while one process writes. Values are small (a read takes
microseconds), so calls block the event loop they are made on; a lock that is held for longer than
`patience` makes the call fail instead of freezing the loop.

Durability is not a goal: after a power failure the file may lack the last changes.
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
"""Seconds to wait for other processes while they create the file. Applied once, because it may block a loop."""
_LOOK = 1.0
"""Seconds between checks that the path still names the open file."""


class StoreError(Exception):
    """The file cannot be read or written at the moment."""


class SqliteStore:
    """Short texts by key, changed atomically. Safe to use from several threads.

    The file is opened at first use, again in each process after a fork, and again when it was
    removed or replaced.

    Args:
        path: path of the database file. Its folder must exist, on a local disk: write-ahead
            logging does not work on network file systems.
        patience: seconds to wait for another process that is writing.
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
        """Return the text of each key, or ``None`` if the key is not set.

        Raises:
            StoreError: the file cannot be read.
        """
        marks = ",".join("?" * len(keys))
        query = f"SELECT key, value FROM store WHERE key IN ({marks})"  # noqa: S608  question marks
        with self._use("read") as connection:
            found = dict(connection.execute(query, keys).fetchall())
        return [found.get(key) for key in keys]

    def update(self, key: str, change: Callable[[str | None], str | None]) -> None:
        """Atomically replace the text of `key` with ``change(text)``; ``None`` leaves it as it is.

        Raises:
            StoreError: the file cannot be written, or another process is writing for longer than `patience`.
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
        # Threads of this process wait as long as other processes do.
        if not self._lock.acquire(timeout=self._patience):
            raise self._error(verb, TimeoutError("another thread is using it"))
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
        # When several processes start at once, creating the file takes longer than using it.
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
        """Whether the path still names the open file. Otherwise this process would keep writing to a
        file that the others no longer see."""
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


# Connections opened before a fork. SQLite forbids using or closing them in the child.
_OF_PARENTS: list[sqlite3.Connection] = []
