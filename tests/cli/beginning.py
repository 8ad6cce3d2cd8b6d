"""Processes in which the command begins, without what a beginning costs.

A fresh interpreter takes a second of a processor until it has imported what `rejoinder chat` needs, and
half a second more while it is measured. Two hundred tests begin the command. So one process for each
process of pytest imports it once and waits; what a test begins is a copy of it (``fork``) with its own
arguments, environment, folder and streams. From there on everything is as in a fresh interpreter, to
its end. A test of the beginning itself asks for that: ``afresh``.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

COMMAND = [sys.executable, "-m", "rejoinder.cli"]
AT_THE_START = ("PYTHONPATH", "PYTHONUTF8", "PYTHONCOERCECLOCALE", "PYTHONIOENCODING", "LC_ALL")
"""Variables that only a fresh interpreter reads."""
BESIDE = ("prompt_toolkit", "rich", "rejoinder.transport._aiohttp", "mcp.client.stdio")
PROVIDERS = ("anthropic", "google", "local", "openai")


class Begun:
    """A process that was begun."""

    def __init__(self, pid: int, end: int) -> None:
        self.pid = pid
        self._end = end
        self.code: int | None = None

    def poll(self, timeout: float = 0) -> int | None:
        """The exit code as `subprocess` tells it, or ``None`` while the process runs."""
        if self.code is None and select.select([self._end], [], [], timeout)[0]:
            told = os.read(self._end, 4)
            os.close(self._end)
            self.code = os.waitstatus_to_exitcode(*struct.unpack("i", told))
        return self.code

    def end(self) -> None:
        """Kill it if it runs, and wait for that."""
        while self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.poll(0.1)


def begin(
    arguments: tuple[str, ...],
    environment: dict[str, str],
    streams: tuple[int, int, int],
    *,
    terminal: bool = False,
    afresh: bool = False,
) -> Begun:
    """Begin the command.

    Args:
        streams: its standard input, output and error output. They stay open here.
        terminal: the streams are a terminal, and the process leads the session there.
        afresh: in an interpreter of its own, as its users begin it.
    """
    read, write = os.pipe()
    asked = {
        "arguments": arguments,
        "environment": environment,
        "folder": os.getcwd(),
        "terminal": terminal,
        "afresh": afresh or any(name in environment for name in AT_THE_START if name != "PYTHONPATH")
        or environment.get("PYTHONPATH") != os.environ.get("PYTHONPATH"),
    }  # fmt: skip
    socket.send_fds(_waiting(), [json.dumps(asked).encode()], [write, *streams])
    os.close(write)
    return Begun(*struct.unpack("i", os.read(read, 4)), read)


@functools.cache
def _waiting() -> socket.socket:
    """The process that waits, by the socket that leads to it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # It leaves us for the system's first process, as some tests look at all children of ours.
    subprocess.run(
        [sys.executable, __file__, str(theirs.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        start_new_session=True,
        check=True,
    )
    theirs.close()
    atexit.register(ours.close)
    return ours


# -- the process that waits


def serve(asking: socket.socket) -> dict[str, Any]:
    """Wait, and return in each process that is begun: what it was asked for."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(asking, 1 << 20, 4)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not message:
            sys.exit()
        telling, *streams = descriptors
        if os.fork() == 0:
            asking.close()
            if (pid := os.fork()) == 0:
                os.close(telling)
                return {**json.loads(message), "streams": streams}
            for stream in streams:
                os.close(stream)
            tell_how_it_ends(pid, telling)
        for descriptor in descriptors:
            os.close(descriptor)


def tell_how_it_ends(pid: int, telling: int) -> NoReturn:
    os.write(telling, struct.pack("i", pid))
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):
        os.write(telling, struct.pack("i", status))
    os._exit(0)


def become(
    arguments: list[str],
    environment: dict[str, str],
    folder: str,
    streams: list[int],
    terminal: bool,
    afresh: bool,
) -> list[str]:
    """Be as a fresh interpreter is when it begins. Returns the arguments of the command."""
    os.chdir(folder)
    if terminal:
        os.setsid()
        fcntl.ioctl(streams[0], termios.TIOCSCTTY, 0)
        # As a new terminal begins; what is ignored (by `nohup`, say) would stay ignored.
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    if afresh:
        os.execve(COMMAND[0], [*COMMAND, *arguments], environment)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.path[0] = folder
    sys.argv = ["rejoinder", *arguments]
    open_streams()
    return arguments


def measure() -> Callable[[], None]:
    """Measure coverage from here on, where the tests are measured: the command runs in processes of its own.

    Returns what writes down what was covered. The process of pytest adds it to its own.
    """
    folder = os.environ.get("SLIPCOVER_COVERAGE_DIR")
    if folder is None:
        return lambda: None
    slipcover = importlib.import_module("slipcover")
    # Lines to exclude are known to the process of pytest.
    covered = slipcover.Slipcover(branch=True, exclude_lines=[])
    sources = os.environ["SLIPCOVER_SOURCE"].split(",")
    matcher = slipcover.FileMatcher(sources=sources, omit=os.environ["SLIPCOVER_OMIT"].split(","))
    slipcover.ImportManager(covered, matcher).__enter__()

    def write() -> None:
        told = covered.get_coverage()
        for file in told["files"].values():
            file["missing_lines"] = file["missing_branches"] = []
        Path(folder, f"coverage-gw-{os.getpid()}.json").write_text(json.dumps(told))

    return write


def open_streams() -> None:
    """Open the standard streams as Python does at its start."""
    whole = bool(os.environ.get("PYTHONUNBUFFERED"))
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        old = getattr(sys, name)
        stream: Any = open(  # noqa: SIM115  lives as long as the process
            number,
            "r" if number == 0 else "w",
            encoding=old.encoding,
            errors=old.errors,
            closefd=False,
        )
        if number:
            stream.reconfigure(line_buffering=number == 2 or os.isatty(number), write_through=whole)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def main(descriptor: int) -> None:
    if os.fork():
        os._exit(0)
    write = measure()
    with socket.socket(fileno=descriptor) as asking:
        app = importlib.import_module("rejoinder.cli.app")
        cli = importlib.import_module("rejoinder.cli")
        names = [f"rejoinder.cli.{module.name}" for module in pkgutil.iter_modules(cli.__path__)]
        names += [f"rejoinder.providers.{name}.llm" for name in PROVIDERS]
        for name in (*names, *BESIDE):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        assert "readline" not in sys.modules, "it looks at the terminal when it is imported"
        gc.freeze()
        asked = serve(asking)
    arguments = become(**asked)
    atexit.register(write)
    app.main(arguments)


if __name__ == "__main__":
    main(int(sys.argv[1]))
