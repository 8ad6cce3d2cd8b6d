"""Running the command as a person or a script does: a process of its own, and a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Self

from cli.beginning import COMMAND, Begun, begin

__all__ = ["COMMAND", "Ran", "Terminal", "environment", "run"]

_QUIET_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "NO_COLOR", "REJOINDER_DEBUG")


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _QUIET_KEYS}
    return {**kept, "no_proxy": "*", "TERM": "xterm", **more}


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


def run(
    *arguments: str,
    input: bytes | None = None,
    timeout: float = 150,
    afresh: bool = False,
    **more: str,
) -> Ran:
    """Run the command with pipes; `more` are environment variables, `afresh` that of `begin`."""
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        open(os.devnull, "rb") if input is None else _filled(input) as given,
    ):
        streams = (given.fileno(), out.fileno(), err.fileno())
        process = begin(arguments, environment(**more), streams, afresh=afresh)
        code = process.poll(timeout)
        process.end()
        out.seek(0)
        err.seek(0)
        said = out.read().decode(), err.read().decode()
    assert code is not None, f"it does not end: {said}"
    ran = Ran(code, *said)
    assert "Traceback" not in ran.err + ran.out, ran.err
    return ran


def _filled(data: bytes) -> BinaryIO:
    """A pipe with `data` in it."""
    read, write = os.pipe()
    with open(write, "wb") as file:
        assert len(data) <= fcntl.fcntl(file, fcntl.F_GETPIPE_SZ), "it would wait for its reader"
        file.write(data)
    return open(read, "rb")


class Foreign:
    """A program of others that leads a session in a terminal."""

    def __init__(
        self, program: Sequence[str], environment: dict[str, str], streams: tuple[int, int, int]
    ) -> None:
        stdin, stdout, stderr = streams
        take = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        self._process = subprocess.Popen(
            [sys.executable, "-c", take + "os.execv(sys.argv[1], sys.argv[1:])", *program],
            stdin=stdin, stdout=stdout, stderr=stderr, env=environment, start_new_session=True,
        )  # fmt: skip
        self.pid = self._process.pid

    def poll(self, timeout: float = 0) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout)
        return None

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


class Terminal:
    """The command, or another program, in a terminal with somebody who types and reads."""

    def __init__(
        self, *arguments: str, afresh: bool = False, program: Sequence[str] = (), **more: str
    ) -> None:
        self.seen = ""
        self._at = 0
        self._fd, inner = pty.openpty()
        self.resize(80, 24)
        streams = (inner,) * 3
        if program:
            self._process: Begun | Foreign = Foreign(program, environment(**more), streams)
        else:
            self._process = begin(
                arguments, environment(**more), streams, terminal=True, afresh=afresh
            )
        os.close(inner)
        self.pid = self._process.pid

    def resize(self, columns: int, rows: int) -> None:
        """Give the window another size."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.end()
        os.close(self._fd)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def press(self, key: str) -> None:
        """Ctrl and a letter, as soon as a person could."""
        # Python's `input` does not notice a signal in the microseconds between writing its prompt
        # and waiting for a key.
        time.sleep(0.3)
        os.write(self._fd, bytes([ord(key.upper()) - 64]))

    def _read(self, timeout: float) -> bool:
        ready, _, _ = select.select([self._fd], [], [], timeout)
        if not ready:
            return True
        try:
            data = os.read(self._fd, 4096)
        except OSError:  # the other side is closed
            return False
        self.seen += data.decode("utf-8", "replace")
        return bool(data)

    def wait_for(self, pattern: str, timeout: float = 120) -> str:
        """Read until `pattern` comes, after what was waited for before."""
        deadline = time.monotonic() + timeout
        while True:
            match = re.search(pattern, self.seen[self._at :])
            if match is not None:
                self._at += match.end()
                return match.group()
            if time.monotonic() > deadline or not self._read(0.2):
                raise AssertionError(f"{pattern!r} did not come; the terminal shows:\n{self.seen}")

    def leave(self, timeout: float = 120) -> int:
        """Wait for its end. Returns the exit code."""
        deadline = time.monotonic() + timeout
        while (code := self._process.poll()) is None and self._read(0.1):
            if time.monotonic() > deadline:
                raise AssertionError(f"it does not end; the terminal shows:\n{self.seen}")
        if code is None:
            code = self._process.poll(timeout)
        while select.select([self._fd], [], [], 0)[0] and self._read(0):
            pass
        assert "Traceback" not in self.seen, self.seen
        assert code is not None, f"it does not end; the terminal shows:\n{self.seen}"
        return code
