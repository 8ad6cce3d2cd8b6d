"""The engine: llama.cpp with one model file in memory, answering on the loopback interface.

By default it runs in a separate process, for two reasons. Loading a model inside this process would
hold the interpreter's lock and stop its event loops (1.4 s measured for 0.5B parameters, 10 s for
1.5B), and a failed assertion in the engine would end the whole program. ``in_process=True`` loads it
here anyway. Either way, requests go to the engine's own HTTP interface, which is protected by a key
made for this engine. It notices a closed request within two batches, so a cancelled reply frees the
CPU even while the prompt is still being read.

One engine serves all users of the same file with the same settings in this process, and ends with
the last of them. Event loops may share it; a forked child may use its parent's engines.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

from rejoinder._sections import explained
from rejoinder.errors import ConfigurationError
from rejoinder.providers.local.marks import Marks
from rejoinder.providers.local.models import ModelError

__all__ = ["Engine", "EngineSettings", "Lease", "acquire", "default_threads", "require_engine"]

_LAST_MOMENTS = 0.5
"""Seconds."""
_INSTALL = "the embedded model needs the engine: pip install 'rejoinder[local]'"


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The settings of an engine. Equal settings share one engine."""

    path: str
    """Path of the GGUF file."""
    context: int
    """Maximum tokens of prompt and reply together. Reduced if the model was trained for fewer."""
    slots: int
    """Maximum number of concurrent replies; further requests wait."""
    threads: int
    """Cores that write the reply."""
    prompt_threads: int
    """Cores that read the prompt."""
    gpu_layers: int = 0
    batch: int = 32
    """Tokens of a prompt that are read between two checks for a closed request."""
    cache_mb: int = 512
    """Megabytes of memory for cached prompts of earlier conversations."""
    in_process: bool = False


def default_threads() -> tuple[int, int]:
    """Threads for writing and for reading, based on the cores that affinity and control group allow;
    at most 8.

    Half of the cores write, and all but one read. The engine's threads wait for each other at every
    step, so if one loses its core to another program, all wait. Measured on two cores: one thread
    writes 38 tokens a second and two write 48; beside a busy program, one writes 19 to 29 and two
    only 1 to 18. One thread reads 80 to 95 tokens a second and two read 150; beside a busy program,
    one reads 50 to 69 and two 8 to 30.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    cores = min(cores, 8)
    return max(1, cores // 2), max(1, cores - 1)


def require_engine() -> None:
    """Raises:
    ConfigurationError: the engine is not installed.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise ConfigurationError(explained(_INSTALL, "missing package"))


class Engine:
    """A running engine.

    Attributes:
        settings: its settings.
        address: ``http://127.0.0.1:port``.
        key: key of its interface.
        context: maximum tokens of one conversation that the engine granted.
        tools: whether the model's chat template supports tools.
        system: whether it supports system messages.
        marks: the model's control tokens.
    """

    def __init__(self, settings: EngineSettings, key: str, about: dict[str, Any]) -> None:
        self.settings = settings
        self.key = key
        self.address: str = about["address"]
        self.context: int = about["context"]
        self.tools: bool = about["tools"]
        self.system: bool = about["system"]
        self.marks = Marks(about["control_tokens"], about["template"])
        self._owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._server: Any = None
        self._words: IO[bytes] | None = None

    @property
    def alive(self) -> bool:
        """False if its process has died (out of memory, killed)."""
        if self._process is None:
            return True
        if self._owner == os.getpid():
            return self._process.poll() is None
        try:  # a forked child's parent's
            os.kill(self._process.pid, 0)
        except OSError:
            return False
        return True

    def survived(self) -> bool:
        """Whether it is still alive after a failure. Waits a moment, because connections close before
        the death of a process is visible."""
        if self._process is not None and self._owner == os.getpid():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LAST_MOMENTS)
        return self.alive

    def stop(self) -> None:
        """End it and free its memory. Idempotent; does nothing in a forked child."""
        if self._owner != os.getpid():
            return
        self._server = None  # in-process: the destructor ends its threads
        if self._process is not None:
            _end(self._process)
        if self._words is not None:
            self._words.close()


class Lease:
    """The right to use an engine.

    Attributes:
        engine: the engine.
    """

    def __init__(self, entry: _Entry) -> None:
        self.engine = entry.future.result()
        # Also if it is garbage-collected without being released.
        self._release = weakref.finalize(self, _leave, entry)

    def release(self) -> None:
        """Release the engine; the last release ends it. Idempotent, does not wait."""
        self._release()


class _Entry:
    """An engine that is loading or running, and its number of users."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.owner = os.getpid()
        self.users = 0
        self.future: concurrent.futures.Future[Engine] = concurrent.futures.Future()
        self.process: subprocess.Popen[bytes] | None = None
        self.dropped = False
        # A daemon thread, so that a program can end while a model loads.
        self.thread = threading.Thread(target=self._load, name="load model", daemon=True)

    def _load(self) -> None:
        try:
            engine = _start(self.settings, self._began)
        except BaseException as error:
            self.future.set_exception(error)
            return
        with _lock:
            dropped = self.dropped
        if dropped:
            engine.stop()
        self.future.set_result(engine)

    def _began(self, process: subprocess.Popen[bytes]) -> None:
        with _lock:
            self.process = process
            if self.dropped:
                process.kill()

    def usable(self) -> bool:
        if not self.future.done():
            return True
        return self.future.exception() is None and self.future.result().alive

    def drop(self) -> None:
        """End the engine, even if it is still loading. Does not wait."""
        with _lock:
            self.dropped = True
            if self.process is not None:
                self.process.kill()
        if self.future.done() and self.future.exception() is None:
            # Reaping a process, or ending the threads of an engine that lives here, takes a moment.
            threading.Thread(
                target=self.future.result().stop, name="end model", daemon=True
            ).start()


_lock = threading.RLock()
_entries: dict[EngineSettings, _Entry] = {}


async def acquire(settings: EngineSettings) -> Lease:
    """Return the engine with these settings; load it if necessary.

    Raises:
        ModelError: the file cannot be loaded.
        ConfigurationError: the engine is not installed.
    """
    real = await asyncio.to_thread(os.path.realpath, settings.path)
    settings = replace(settings, path=real)
    with _lock:
        entry = _entries.get(settings)
        if entry is None or not entry.usable():
            entry = _entries[settings] = _Entry(settings)
            entry.thread.start()
        entry.users += 1
    try:
        loaded = asyncio.wrap_future(entry.future)
        loaded.add_done_callback(_seen)  # even if nothing waits for it
        await asyncio.shield(loaded)
        return Lease(entry)
    except BaseException:
        _leave(entry)
        raise


def _seen(future: asyncio.Future[Engine]) -> None:
    if not future.cancelled():
        future.exception()


def _leave(entry: _Entry) -> None:
    if entry.owner != os.getpid():
        return  # a forked child; its parent decides
    with _lock:
        entry.users -= 1
        if entry.users > 0:
            return
        if _entries.get(entry.settings) is entry:
            del _entries[entry.settings]
    entry.drop()


@atexit.register
def _end_all() -> None:
    for entry in list(_entries.values()):
        if entry.owner == os.getpid():
            entry.drop()


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    for settings, entry in list(_entries.items()):
        if not entry.future.done():  # its thread is not in this process
            del _entries[settings]


os.register_at_fork(after_in_child=_after_fork)


# ---------------------------------------------------------------------------------------------


def _start(settings: EngineSettings, began: Callable[[subprocess.Popen[bytes]], None]) -> Engine:
    require_engine()
    path = Path(settings.path)
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ModelError(
            f"cannot read the model file {path}: {error.strerror or error}", reason="damaged"
        ) from error
    if magic != b"GGUF":
        raise ModelError(
            f"{path} is not a GGUF model file; name one that is, or a model that can be fetched",
            reason="damaged",
        )
    key = secrets.token_urlsafe(24)
    wanted = {**asdict(settings), "key": key}
    if settings.in_process or not sys.executable:
        return _start_here(settings, wanted, key)
    return _start_apart(settings, wanted, key, began)


def _start_here(settings: EngineSettings, wanted: dict[str, Any], key: str) -> Engine:
    from rejoinder.providers.local import worker

    try:
        server, about = worker.load({**wanted, "verbosity": -1})
    except Exception as error:
        raise _refused(settings.path, str(error)) from error
    engine = Engine(settings, key, about)
    engine._server = server
    return engine


def _start_apart(
    settings: EngineSettings,
    wanted: dict[str, Any],
    key: str,
    began: Callable[[subprocess.Popen[bytes]], None],
) -> Engine:
    spec = importlib.util.find_spec("xllamacpp")
    home = str(Path(spec.origin).parent.parent) if spec is not None and spec.origin else ""
    words = cast("IO[bytes]", tempfile.TemporaryFile())  # noqa: SIM115  it lives as the engine does
    try:
        process = subprocess.Popen(  # noqa: S603  this interpreter, our own file
            [sys.executable, "-P", str(Path(__file__).with_name("worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), home))),
            },
            start_new_session=True,  # Ctrl-C is for us, not for the engine
        )
    except OSError as error:
        words.close()
        raise ModelError(
            f"the engine's process does not start: {error}", reason="engine"
        ) from error
    began(process)
    about: dict[str, Any] = {}
    if process.stdin is None or process.stdout is None:
        raise AssertionError("pipes were asked for")
    with contextlib.suppress(OSError, ValueError):
        process.stdin.write(json.dumps({**wanted, "verbosity": 1}).encode() + b"\n")
        process.stdin.flush()
        about = json.loads(process.stdout.readline())
    if "address" in about:
        engine = Engine(settings, key, about)
        engine._process = process
        engine._words = words
        return engine
    code = _end(process)
    words.seek(0)
    log = words.read(1 << 16).decode("utf-8", "replace")
    words.close()
    if about.get("error") == "import":
        raise ConfigurationError(f"{_INSTALL} ({about['message']})")
    if not about and code not in (0, -9):
        raise ModelError(
            f"the engine crashed while loading {settings.path} (exit code {code}): "
            f"{_reason(log) or 'it gave no reason'}",
            reason="engine",
        )
    raise _refused(settings.path, _reason(log) or str(about.get("message", "it was killed")))


def _refused(path: str, why: str) -> ModelError:
    return ModelError(
        f"the engine cannot load {path}: {why.rstrip('.')}. The file is damaged, of a kind that this engine "
        "does not know, or needs more memory than is available",
        reason="damaged",
    )


def _reason(log: str) -> str:
    """The first error in the engine's log."""
    for line in log.splitlines():
        _, mark, text = line.partition(" E ")
        if mark:
            return text.partition(": ")[2].strip() or text.strip()
    lines = log.strip().splitlines()
    return lines[-1].strip() if lines else ""


def _end(process: subprocess.Popen[bytes]) -> int:
    process.kill()
    code = process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    return code
