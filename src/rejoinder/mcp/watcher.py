"""A child process that ends, with its descendants, however this process ends.

Each server runs in its own process group, led by a *watcher*: a sleeping shell that holds the reading
end of a pipe. Only this process holds the writing end, so the kernel closes it when the process ends,
even by ``kill -9``. The watcher then sends TERM to its group, waits a second, and sends KILL to the
whole group, including itself. Because the watcher is a member of the group, the kernel cannot reuse the
group's number while we may still signal it. Works on Linux and macOS.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rejoinder._foreign import method
from rejoinder._secrets import Hidden, HiddenWord

__all__ = ["ProcessGroup"]

_WATCH_SH = """trap '' HUP INT QUIT TERM PIPE
while read -r _; do :; done
kill -s TERM 0
sleep 1
kill -s KILL 0
"""

# For systems without a shell (container images with only an interpreter).
_WATCH_PY = """import os, signal, sys, time
for s in (1, 2, 3, 13, 15): signal.signal(s, signal.SIG_IGN)
while os.read(0, 4096): pass
os.killpg(0, 15); time.sleep(1); os.killpg(0, 9)
"""

_SHELL = "/bin/sh"
_ORPHANS = 0.05

_groups: weakref.WeakSet[ProcessGroup] = weakref.WeakSet()


def _release_after_fork() -> None:
    # A forked copy of this process also holds the pipe, so the watcher would not notice our end.
    for group in list(_groups):
        group.forget()


os.register_at_fork(after_in_child=_release_after_fork)


def _watcher_command() -> list[str]:
    if os.access(_SHELL, os.X_OK):
        return [_SHELL, "-c", _WATCH_SH]
    return [sys.executable, "-I", "-S", "-c", _WATCH_PY]


class ProcessGroup:
    """One server process, its descendants and their watcher. Not tied to an event loop.

    The constructor blocks while it starts two processes; call it in a thread.

    Raises:
        OSError: the command cannot be started, e.g. `FileNotFoundError`.
    """

    def __init__(
        self,
        command: Hidden[list[str]],
        *,
        env: Hidden[dict[str, str]],
        cwd: str | Path | None,
        on_exit: Callable[[int], None],
    ) -> None:
        program, *words = [HiddenWord(word) for word in command.reveal()]
        watcher = subprocess.Popen(  # noqa: S603  fixed command
            _watcher_command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin"},
            cwd="/",
            process_group=0,
            bufsize=0,
        )
        process: subprocess.Popen[bytes] | None = None
        failure: Exception | None = None
        try:
            process = subprocess.Popen(  # noqa: S603  the user named this command
                [program.reveal(), *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=env.reveal(),
                cwd=cwd,
                process_group=watcher.pid,
                bufsize=0,
            )
        except Exception as error:
            # Its frames hold the command line and the environment.
            failure = error.with_traceback(None)
            failure.__context__ = None
        finally:
            if process is None:
                watcher.kill()
                watcher.wait()
                _close(watcher.stdin)
        if process is None:
            raise failure or OSError("the command could not be started")
        self.pid = process.pid
        self.returncode: int | None = None
        self._watcher = watcher
        self._process = process
        self._gone = False
        self._exited = threading.Event()
        self._reaped = threading.Event()
        self._on_exit = on_exit
        _groups.add(self)
        threading.Thread(target=self._reap, name=f"rejoinder-mcp-{self.pid}", daemon=True).start()

    @property
    def stdin(self) -> Any:
        return self._process.stdin

    @property
    def stdout(self) -> Any:
        return self._process.stdout

    @property
    def stderr(self) -> Any:
        return self._process.stderr

    def _reap(self) -> None:
        returncode = self._process.wait()
        self.returncode = returncode
        self._exited.set()
        self._on_exit(returncode)
        self._watcher.wait()
        self._gone = True
        _close(self._watcher.stdin)
        self._reaped.set()

    def send(self, number: int) -> None:
        """Signal the whole group. Does nothing if it is gone."""
        if self._gone:
            return
        # macOS answers EPERM for a group that holds only zombies.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._watcher.pid, number)

    def wait_exit(self, timeout: float) -> bool:
        """Block until the server process has ended. Returns False after `timeout` seconds."""
        return self._exited.wait(timeout)

    def stop(self, *, grace: float, term: float) -> None:
        """End the whole group: wait `grace` seconds, TERM, wait `term` seconds, KILL. Blocking."""
        left_alone = self.wait_exit(grace)
        self.send(signal.SIGTERM)
        # A server that has ended may have left descendants: they also get a moment.
        if left_alone:
            self._reaped.wait(_ORPHANS)
        else:
            self.wait_exit(term)
        self.send(signal.SIGKILL)
        self._reaped.wait(1.0)

    def discard(self) -> None:
        """End a group that is no longer needed. Blocking."""
        self.stop(grace=0.0, term=0.3)
        self.close_pipes()

    def close_pipes(self) -> None:
        """Close our ends of the server's three pipes, unless they are closed."""
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            _close(pipe)

    def forget(self) -> None:
        """Close our end of the watcher's pipe in a forked copy of this process."""
        _close(self._watcher.stdin)


def _close(stream: object) -> None:
    close = method(stream, "close")
    if close is not None:
        with contextlib.suppress(OSError):
            close()
