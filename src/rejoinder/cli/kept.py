"""Files of the command line: conversations, the history of typed lines, keys."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rejoinder.cli.outcome import CommandError, Exit

if TYPE_CHECKING:
    from rejoinder.store import SqliteStore

__all__ = ["data_folder", "keeps", "open_store", "path_of", "private_folder", "store_path"]


def keeps() -> bool:
    """Whether ``REJOINDER_KEEP`` lets conversations be kept."""
    return os.environ.get("REJOINDER_KEEP", "").strip().lower() not in ("0", "no", "off", "false")


def path_of(text: str) -> Path:
    """The path that the user typed. A ``~`` without a home folder stays unchanged, so that opening the
    file reports a missing one."""
    return Path(os.path.expanduser(text))  # `Path.expanduser` raises `RuntimeError` there


def data_folder() -> Path:
    """``REJOINDER_HOME``, or the platform's folder for data.

    Raises:
        CommandError: ``REJOINDER_HOME`` is not set, and this user has no home folder.
    """
    try:
        chosen = os.environ.get("REJOINDER_HOME")
        if chosen:
            return Path(chosen).expanduser()
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Application Support" / "rejoinder"
        base = os.environ.get("XDG_DATA_HOME")
        known = Path(base) if base and os.path.isabs(base) else Path.home() / ".local" / "share"
        return known / "rejoinder"
    except RuntimeError:
        raise CommandError(
            "this user has no home folder for data; set REJOINDER_HOME to a folder",
            Exit.SETUP,
        ) from None


def private_folder() -> Path:
    """The folder, created if needed, accessible to its owner only.

    Raises:
        CommandError: it cannot be made.
    """
    folder = data_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(
            f"cannot make the folder {folder}: {error.strerror or error}; set REJOINDER_HOME to "
            "another one",
            Exit.SETUP,
        ) from error
    return folder


def store_path() -> Path:
    """The file of the store, which need not be there."""
    return data_folder() / "conversations.sqlite"


def open_store() -> SqliteStore:
    """The store of the command line.

    Raises:
        CommandError: its folder cannot be created.
    """
    from rejoinder.store import SqliteStore

    private_folder()
    return SqliteStore(store_path())
