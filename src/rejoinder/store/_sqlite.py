"""Two kinds of SQLite files, shared by all processes of a host. The only module that imports sqlite3.

`SqliteTexts` holds short texts by key. Its values are small (a read takes microseconds), so calls
block the event loop they are made on; a lock that is held for longer than `patience` makes the call
fail instead of freezing the loop. `SqliteStore` holds conversations. Its calls run in a thread of
the store, one after the other.

Write-ahead logging lets readers continue while one process writes. A process that dies loses
nothing that was written; after a power failure the file may lack the last changes, unless the store
is made to wait for the disk.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from rejoinder._foreign import read
from rejoinder._options import COUNT, FLAG, SECONDS, WHOLE, checked
from rejoinder._sections import explained
from rejoinder.store._media import names_in
from rejoinder.store.records import ConflictError, Found, Kind, Record, StoreError, Summary

__all__ = ["SqliteStore", "SqliteTexts"]

T = TypeVar("T")

_OPENING = 2.0
"""Seconds to wait for other processes while they create the file. Applied once, because it may block a loop."""
_LOOK = 1.0
"""Seconds between checks that the path still names the open file."""
_REMEDY: Final = "expected a SQLite file on a local disk, in a folder that exists and is writable"
_REMEDY_OF_DAMAGE: Final = (
    "expected a SQLite file that is not damaged; move this one away, and a new one is made"
)


class _File:
    """An open file: opened at first use, again in each process after a fork, and again when it was
    removed or replaced. Safe to use from several threads."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        patience: float,
        prepare: Callable[[sqlite3.Connection], object],
        private: bool = False,
    ) -> None:
        self._path = Path(path)
        self._patience = patience
        self._private = private
        self._prepare = prepare
        self._connection: sqlite3.Connection | None = None
        self._pid = -1
        self._opening = _OPENING
        self._file = (-1, -1)
        self._looked = 0.0
        self._lock = threading.Lock()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._pid == os.getpid():
            connection.close()

    @contextmanager
    def use(self, verb: str) -> Generator[sqlite3.Connection, None, None]:
        # Wait for threads of this process as long as for other processes.
        if not self._lock.acquire(timeout=self._patience):
            raise self._error(verb, TimeoutError("another thread is using it"))
        try:
            yield self._open()
        except (sqlite3.Error, OSError) as error:
            raise self._error(verb, error) from error
        except UnicodeDecodeError as error:  # in a name, or in an error that quotes one
            raise self._error(verb, ValueError("it is damaged")) from error
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
        if self._private and not self._path.exists():
            self._path.touch(mode=0o600)  # SQLite gives its -wal and -shm files the same mode
        connection = sqlite3.connect(
            self._path, timeout=patience, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            _refuse_foreign_code(connection)
            self._prepare(connection)
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
        why, remedy = str(error), _REMEDY
        if isinstance(error, _RefusedError):
            remedy = error.remedy
        elif _is_damage(error):
            remedy = _REMEDY_OF_DAMAGE
        elif isinstance(error, OSError):
            why = error.strerror or why  # `str` would add a number, and the path again
        return StoreError(explained(f"cannot {verb} {self._path}: {why}; {remedy}", "store"))


class _RefusedError(sqlite3.DatabaseError):
    """The file is intact, but this package refuses to use it."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why)
        self.remedy = remedy


def _is_damage(error: Exception) -> bool:
    """Whether the content of the file is unreadable, so another attempt would fail too."""
    name = read(error, "sqlite_errorname", str) or ""  # errors raised in this module have none
    return name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or isinstance(
        error, (sqlite3.DataError, ValueError)
    )


def _refuse_foreign_code(connection: sqlite3.Connection) -> None:
    """Refuse files with a view or a trigger, because it would run SQL from the author of the file.

    Raises:
        _RefusedError: the file has one.
    """
    connection.execute("PRAGMA trusted_schema=OFF")
    found = connection.execute(
        "SELECT type, name FROM sqlite_master WHERE type IN ('view', 'trigger') LIMIT 1"
    ).fetchone()
    if found is not None:
        raise _RefusedError(
            f"it holds the {found[0]} {str(found[1])[:80]!r}, which rejoinder did not create",
            "name another file, or move this one away",
        )


# Connections opened before a fork. SQLite forbids using or closing them in the child.
_OF_PARENTS: list[sqlite3.Connection] = []


@contextmanager
def _changing(connection: sqlite3.Connection) -> Generator[None, None, None]:
    """A transaction: all changes inside are applied, or none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite rolls back itself on a full disk
            connection.execute("ROLLBACK")
        raise


class SqliteTexts:
    """Short texts by key, changed atomically. Safe to use from several threads.

    Args:
        path: path of the database file. Its folder must exist, on a local disk: write-ahead
            logging does not work on network file systems.
        patience: seconds to wait for another process that is writing.
    """

    def __init__(self, path: str | os.PathLike[str], *, patience: float = 0.05) -> None:
        self._file = _File(path, patience=patience, prepare=_prepare_texts)

    def read(self, keys: Sequence[str]) -> list[str | None]:
        """Return the text of each key, or ``None`` if the key is not set.

        Raises:
            StoreError: the file cannot be read.
        """
        marks = ",".join("?" * len(keys))
        query = f"SELECT key, value FROM store WHERE key IN ({marks})"  # noqa: S608  question marks
        with self._file.use("read") as connection:
            found = dict(connection.execute(query, keys).fetchall())
        return [found.get(key) for key in keys]

    def update(self, key: str, change: Callable[[str | None], str | None]) -> None:
        """Atomically replace the text of `key` with ``change(text)``; ``None`` leaves it unchanged.

        Raises:
            StoreError: the file cannot be written, or another process is writing for longer than `patience`.
        """
        with self._file.use("write") as connection, _changing(connection):
            row = connection.execute("SELECT value FROM store WHERE key = ?", (key,)).fetchone()
            value = change(None if row is None else row[0])
            if value is not None and (row is None or value != row[0]):
                connection.execute("INSERT OR REPLACE INTO store VALUES (?, ?)", (key, value))

    def close(self) -> None:
        self._file.close()


def _prepare_texts(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS store (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"
    )


# -- conversations -----------------------------------------------------------------------------

_FORMAT: Final = 1
"""Version of the tables, stored in the file's `user_version`."""
_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS log (
        id INTEGER PRIMARY KEY, conversation TEXT NOT NULL, seq INTEGER NOT NULL, at REAL NOT NULL,
        kind TEXT NOT NULL, item TEXT, parent TEXT, turn TEXT, key TEXT,
        planned INTEGER NOT NULL, usage TEXT, cost REAL, data TEXT,
        UNIQUE (conversation, seq))""",
    "CREATE INDEX IF NOT EXISTS log_items ON log (conversation, item) WHERE item IS NOT NULL",
    """CREATE TABLE IF NOT EXISTS conversations (
        id TEXT PRIMARY KEY, title TEXT NOT NULL, items INTEGER NOT NULL, records INTEGER NOT NULL,
        created REAL NOT NULL, updated REAL NOT NULL, about TEXT NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS conversations_updated ON conversations (updated)",
    "CREATE TABLE IF NOT EXISTS media (name TEXT PRIMARY KEY, content BLOB NOT NULL)",
    """CREATE TABLE IF NOT EXISTS media_uses (
        name TEXT NOT NULL, conversation TEXT NOT NULL, PRIMARY KEY (name, conversation))
        WITHOUT ROWID""",
    """CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (
        text, conversation UNINDEXED, item UNINDEXED, at UNINDEXED, tokenize = 'trigram')""",
)
_TITLE: Final = 80
"""Characters of a title that was made from the first message."""
_AROUND: Final = 60
"""Characters of context on both sides of a match."""
_TRIGRAM: Final = 3


class SqliteStore:
    """Conversations in a SQLite file. Any number of processes of a host can use it at once.

    The file is made at first use, readable by its owner only. Its folder must exist, on a local
    disk: write-ahead logging does not work on network file systems.

    Args:
        path: path of the file.
        patience: seconds to wait for another process that is writing.
        wait_for_disk: return from a write only when it is on the disk, so that it survives a power
            failure. Otherwise a write survives the end of the process only, but takes a tenth of
            the time.

    Raises:
        ConfigurationError: an option has a wrong type or value.
    """

    @checked(patience=SECONDS, wait_for_disk=FLAG)
    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        patience: float = 5.0,
        wait_for_disk: bool = False,
    ) -> None:
        self._path = Path(path)
        self._wait_for_disk = wait_for_disk
        self._file = _File(path, patience=patience, prepare=self._prepare, private=True)
        self._worker: concurrent.futures.ThreadPoolExecutor | None = None
        self._worker_pid = -1

    def __repr__(self) -> str:
        return f"SqliteStore({os.fspath(self._path)!r})"

    def _prepare(self, connection: sqlite3.Connection) -> None:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found > _FORMAT:
            raise _RefusedError(
                f"it has format {found} and was written by a newer version of rejoinder; this one "
                f"knows format {_FORMAT}",
                "update rejoinder, or name another file",
            )
        if self._wait_for_disk:
            connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA secure_delete=ON")
        if found < _FORMAT:
            with _changing(connection):
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={_FORMAT}")

    # -- the Protocol ----------------------------------------------------------------------------

    @checked(after=WHOLE)
    async def read(self, conversation: str, *, after: int = 0) -> list[Record]:
        """See `Store.read`."""
        return await self._do(partial(self._read, conversation, after))

    @checked(after=WHOLE)
    async def append(
        self,
        conversation: str,
        records: Sequence[Record],
        *,
        after: int,
        media: Mapping[str, bytes] | None = None,
    ) -> None:
        """See `Store.append`."""
        await self._do(partial(self._append, conversation, list(records), after, media or {}))

    @checked()
    async def media(self, names: Collection[str]) -> dict[str, bytes]:
        """See `Store.media`."""
        return await self._do(partial(self._media, list(names))) if names else {}

    @checked(limit=COUNT.optional)
    async def conversations(self, *, limit: int | None = None) -> list[Summary]:
        """See `Store.conversations`."""
        return await self._do(partial(self._conversations, limit))

    @checked(limit=COUNT)
    async def search(
        self, text: str, *, conversation: str | None = None, limit: int = 20
    ) -> list[Found]:
        """See `Store.search`."""
        return await self._do(partial(self._search, text.split(), conversation, limit))

    @checked()
    async def remove(self, conversation: str) -> bool:
        """See `Store.remove`."""
        return await self._do(partial(self._remove, conversation))

    async def aclose(self) -> None:
        """See `Store.aclose`. The store opens again when it is used."""
        worker, self._worker = self._worker, None
        if worker is None or self._worker_pid != os.getpid():
            return
        await asyncio.get_running_loop().run_in_executor(worker, self._file.close)
        worker.shutdown(wait=False)

    async def _do(self, work: Callable[[], T]) -> T:
        # One dedicated thread for all calls: they run in order, and never wait behind slow
        # work of other code. A cancelled call still runs to its end.
        if self._worker is None or self._worker_pid != os.getpid():
            self._worker = concurrent.futures.ThreadPoolExecutor(1, "rejoinder-store")
            self._worker_pid = os.getpid()
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    # -- in the thread ---------------------------------------------------------------------------

    def _read(self, conversation: str, after: int) -> list[Record]:
        with self._file.use("read") as connection:
            rows = connection.execute(
                "SELECT kind, item, parent, turn, key, planned, usage, cost, data, at FROM log"
                " WHERE conversation = ? AND seq > ? ORDER BY seq",
                (conversation, after),
            ).fetchall()
            return [_record(row) for row in rows]

    def _append(
        self, conversation: str, records: list[Record], after: int, media: Mapping[str, bytes]
    ) -> None:
        with self._file.use("write") as connection, _changing(connection):
            (count,) = connection.execute(
                "SELECT coalesce(max(seq), 0) FROM log WHERE conversation = ?", (conversation,)
            ).fetchone()
            if count != after:
                raise ConflictError(
                    explained(
                        f"the conversation {conversation!r} was continued elsewhere: it has {count} "
                        f"records, expected {after}; load it again and go on from there",
                        "conflict",
                    )
                )
            if records:
                self._note(connection, conversation, records, after)
            for name, content in media.items():
                connection.execute("INSERT OR IGNORE INTO media VALUES (?, ?)", (name, content))
            for name in names_in(r.data for r in records if r.data is not None):
                connection.execute(
                    "INSERT OR IGNORE INTO media_uses VALUES (?, ?)", (name, conversation)
                )

    def _note(
        self, connection: sqlite3.Connection, conversation: str, records: list[Record], after: int
    ) -> None:
        connection.executemany(
            "INSERT INTO log (conversation, seq, at, kind, item, parent, turn, key, planned, usage,"
            " cost, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (conversation, after + number, r.at, r.kind, r.item, r.parent, r.turn, r.key,
                 r.planned, _dumped(r.usage), r.cost, _dumped(r.data))
                for number, r in enumerate(records, 1)
            ],
        )  # fmt: skip
        title = ""
        about: dict[str, Any] = {}
        for record in records:
            if record.kind == "about":
                about.update(record.data or {})
            elif record.kind in ("item", "change") and record.data is not None:
                text = _clean(_text_of(record.data))
                if record.kind == "change":
                    connection.execute(
                        "DELETE FROM words WHERE conversation = ? AND item = ?",
                        (conversation, record.item),
                    )
                elif not title and record.data.get("role") == "user":
                    title = " ".join(text.split())[:_TITLE]
                if text:
                    connection.execute(
                        "INSERT INTO words VALUES (?, ?, ?, ?)",
                        (text, conversation, record.item, record.at),
                    )
        new = sum(record.kind == "item" for record in records)
        row = connection.execute(
            "SELECT title, about FROM conversations WHERE id = ?", (conversation,)
        ).fetchone()
        at = records[-1].at
        if row is None:
            connection.execute(
                "INSERT INTO conversations VALUES (?, ?, ?, ?, ?, ?, ?)",
                (conversation, _clean(str(about.get("title") or title)), new, len(records), records[0].at, at,
                 _dumped(about)),
            )  # fmt: skip
            return
        connection.execute(
            "UPDATE conversations SET title = ?, items = items + ?, records = records + ?,"
            " updated = ?, about = ? WHERE id = ?",
            (_clean(str(about.get("title") or row[0] or title)), new, len(records), at,
             _dumped({**(_loaded(row[1]) or {}), **about}) if about else row[1], conversation),
        )  # fmt: skip

    def _media(self, names: list[str]) -> dict[str, bytes]:
        with self._file.use("read") as connection:
            found = (
                connection.execute("SELECT name, content FROM media WHERE name = ?", (name,))
                for name in names
            )
            return dict(row for each in found for row in each.fetchall())

    def _conversations(self, limit: int | None) -> list[Summary]:
        with self._file.use("read") as connection:
            rows = connection.execute(
                "SELECT id, title, items, created, updated, about FROM conversations"
                " ORDER BY updated DESC, id LIMIT ?",
                (-1 if limit is None else limit,),
            ).fetchall()
            return [
                Summary(id, title, items, created, updated, _loaded(about) or {})
                for id, title, items, created, updated, about in rows
            ]

    def _search(self, words: list[str], conversation: str | None, limit: int) -> list[Found]:
        if not words:
            return []
        # The index holds trigrams. Shorter words are searched in each text.
        long = [_clean(word) for word in words if len(word) >= _TRIGRAM]
        conditions = [
            *(["words MATCH ?"] if long else []),
            *("instr(lower(text), ?) > 0" for word in words if len(word) < _TRIGRAM),
            *(["conversation = ?"] if conversation is not None else []),
        ]
        values: list[Any] = [
            *([" AND ".join('"' + word.replace('"', '""') + '"' for word in long)] if long else []),
            *(_clean(word).lower() for word in words if len(word) < _TRIGRAM),
            *([conversation] if conversation is not None else []),
        ]
        with self._file.use("read") as connection:
            rows = connection.execute(
                "SELECT conversation, item, text, at FROM words WHERE "  # noqa: S608  no values
                + " AND ".join(conditions)
                + " ORDER BY at DESC, rowid DESC LIMIT ?",
                (*values, limit),
            ).fetchall()
        return [Found(c, item, _excerpt(text, words[0]), at) for c, item, text, at in rows]

    def _remove(self, conversation: str) -> bool:
        with self._file.use("write") as connection:
            with _changing(connection):
                there = connection.execute(
                    "DELETE FROM conversations WHERE id = ?", (conversation,)
                ).rowcount
                connection.execute("DELETE FROM log WHERE conversation = ?", (conversation,))
                connection.execute("DELETE FROM words WHERE conversation = ?", (conversation,))
                connection.execute("DELETE FROM media_uses WHERE conversation = ?", (conversation,))
                connection.execute(
                    "DELETE FROM media WHERE name NOT IN (SELECT name FROM media_uses)"
                )
                if there:  # only this removes the words of the deleted items from the index
                    connection.execute("INSERT INTO words (words) VALUES ('optimize')")
            with contextlib.suppress(sqlite3.OperationalError):  # another connection is reading
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return there > 0


def _dumped(value: Mapping[str, Any] | None) -> str | None:
    if value is None:
        return None
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return json.dumps(value, separators=(",", ":"))
    return text


def _loaded(text: Any) -> dict[str, Any] | None:
    """The object that was kept as `text`.

    Raises:
        sqlite3.DataError: it is damaged.
    """
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise sqlite3.DataError(f"it holds a damaged record ({type(error).__name__})") from None
    if not isinstance(found, dict):
        raise sqlite3.DataError(f"it holds a damaged record (a {type(found).__name__})")
    return cast("dict[str, Any]", found)


_TEXTS: Final = (str, type(None))
_NUMBERS: Final = (int, float, type(None))


def _record(row: tuple[Any, ...]) -> Record:
    """The record of a row of the log.

    Raises:
        sqlite3.DataError: another program changed the file, or it is damaged.
    """
    kind, item, parent, turn, key, planned, usage, cost, data, at = row
    if not (
        isinstance(kind, str)
        and all(isinstance(text, _TEXTS) for text in (item, parent, turn, key))
        and isinstance(cost, _NUMBERS)
        and isinstance(at, int | float)
    ):
        raise sqlite3.DataError("it holds a damaged record (a column of another type)")
    return Record(
        cast("Kind", kind), item, parent, turn, key, bool(planned), _loaded(usage), cost,
        _loaded(data), at,
    )  # fmt: skip


def _text_of(data: Mapping[str, Any]) -> str:
    """The searchable text of an item."""
    match data.get("type"):
        case "message":
            content: Any = data.get("content")
            parts = cast("list[Any]", content) if isinstance(content, list) else [content]
            return "\n".join(part for part in parts if isinstance(part, str))
        case "function_call":
            return f"{data.get('name')} {data.get('arguments')}"
        case "function_call_output":
            return str(data.get("output") or "")
        case _:
            return ""


def _clean(text: str) -> str:
    return text.replace("\0", " ").encode("utf-8", "replace").decode()


def _excerpt(text: str, word: str) -> str:
    at = max(0, text.lower().find(word.lower()))
    start, end = max(0, at - _AROUND), at + len(word) + _AROUND
    cut = " ".join(text[start:end].split())
    return f"{'...' if start else ''}{cut}{'...' if end < len(text) else ''}"
