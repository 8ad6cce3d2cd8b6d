"""Running the command as a person or a script does: a process of its own, and a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

COMMAND = [sys.executable, "-m", "rejoinder.cli"]
_QUIET_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "NO_COLOR", "REJOINDER_DEBUG")


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _QUIET_KEYS}
    return {**kept, "no_proxy": "*", "TERM": "xterm", **more}


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


def run(*arguments: str, input: bytes | None = None, timeout: float = 60, **more: str) -> Ran:
    """Run the command with pipes; `more` are environment variables."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        capture_output=True,
        env=environment(**more),
        timeout=timeout,
        check=False,
    )
    ran = Ran(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in ran.err + ran.out, ran.err
    return ran


class Terminal:
    """The command in a terminal, with somebody who types and reads."""

    def __init__(self, *arguments: str, **more: str) -> None:
        self.seen = ""
        self._at = 0
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            # As a new terminal begins; what is ignored (by `nohup`, say) would stay ignored.
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            os.execve(sys.executable, [*COMMAND, *arguments], environment(**more))
        self.code: int | None = None
        self.resize(80, 24)

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
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
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

    def wait_for(self, pattern: str, timeout: float = 15) -> str:
        """Read until `pattern` comes, after what was waited for before."""
        deadline = time.monotonic() + timeout
        while True:
            match = re.search(pattern, self.seen[self._at :])
            if match is not None:
                self._at += match.end()
                return match.group()
            if time.monotonic() > deadline or not self._read(0.2):
                raise AssertionError(f"{pattern!r} did not come; the terminal shows:\n{self.seen}")

    def leave(self, timeout: float = 30) -> int:
        """Wait for its end. Returns the exit code."""
        deadline = time.monotonic() + timeout
        while self._read(0.1):
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                break
            if time.monotonic() > deadline:
                raise AssertionError(f"it does not end; the terminal shows:\n{self.seen}")
        else:
            _, status = os.waitpid(self.pid, 0)
        while self._read(0):
            if not select.select([self._fd], [], [], 0)[0]:
                break
        self.code = os.waitstatus_to_exitcode(status)
        assert "Traceback" not in self.seen, self.seen
        return self.code
