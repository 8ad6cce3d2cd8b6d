"""Stores for conversations that outlive a process: append-only logs.

`SqliteStore` keeps the logs in a file. `rejoinder.Conversation` loads and continues a conversation, and
`run_turn` writes to it while a turn runs.
"""

from __future__ import annotations

from rejoinder._late import late_names
from rejoinder.store.records import (
    ConflictError,
    Found,
    Kind,
    Record,
    Store,
    StoreError,
    Summary,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rejoinder.store._sqlite import SqliteStore

__all__ = [
    "ConflictError",
    "Found",
    "Kind",
    "Record",
    "SqliteStore",
    "Store",
    "StoreError",
    "Summary",
]

for _public in (ConflictError, Found, Record, Store, StoreError, Summary):
    _public.__module__ = __name__

__getattr__, __dir__ = late_names(__name__, {"SqliteStore": "_sqlite"})
