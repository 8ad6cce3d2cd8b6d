"""Servers that fail on purpose, and a look at what is left behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from rejoinder.llm import mcp

FAULTY = Path(__file__).with_name("faulty_server.py")
PATIENCE = 300.0
"""Seconds that a busy machine may take for an answer. Deadlines are tested in ``test_deadlines.py``."""
PYTHON = [sys.executable, "-I", "-S"]


def processes(mark: str) -> list[str]:
    """The processes whose command line holds `mark`, and all children of ours but `ps`."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True
    )
    found = []
    for line in listed.stdout.splitlines():
        _, parent, state, args = line.split(None, 3)
        ours = parent == str(os.getpid()) and not args.startswith(("ps -ww", "[ps]"))
        if (mark in args or ours) and "Z" not in state:
            found.append(line)
    return found


def sockets() -> int:
    count = 0
    for name in os.listdir("/dev/fd"):
        try:
            import stat

            count += stat.S_ISSOCK(os.fstat(int(name)).st_mode)
        except OSError:
            pass
    return count


async def eventually(check: Callable[[], Any]) -> Any:
    """The first true value of `check()`, or the last one when it had every chance."""
    for _ in range(1000):
        if value := check():
            return value
        await asyncio.sleep(0.02)
    return check()


class Laboratory:
    """Makes servers with a fault, and says what they leave behind."""

    def __init__(self) -> None:
        self.mark = f"mark-{uuid.uuid4().hex}"
        self._running: list[subprocess.Popen[str]] = []

    def command(self, fault: str = "none", step: str = "none") -> list[str]:
        return [*PYTHON, str(FAULTY), "stdio", fault, step, self.mark]

    def stdio(self, fault: str = "none", step: str = "none", **options: Any) -> mcp.MCPServerStdio:
        options.setdefault("client_session_timeout_seconds", PATIENCE)
        first, *rest = self.command(fault, step)
        return mcp.MCPServerStdio(first, rest, **options)

    def http(
        self, transport: str, fault: str = "none", step: str = "none", **options: Any
    ) -> mcp.MCPServerHTTP:
        port = self.serve(transport, fault, step)
        options.setdefault("client_session_timeout_seconds", PATIENCE)
        options.setdefault("timeout", PATIENCE)
        path = "sse" if transport == "sse" else "mcp"
        return mcp.MCPServerHTTP(f"http://127.0.0.1:{port}/{path}", **options)

    def serve(self, transport: str, fault: str = "none", step: str = "none", port: int = 0) -> int:
        # Without our mark: these servers are the test's own, not children of the client.
        process = subprocess.Popen(
            [*PYTHON[:1], "-S", str(FAULTY), transport, fault, step],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PORT": str(port)},
        )
        self._running.append(process)
        assert process.stdout is not None
        return int(process.stdout.readline())

    def make(self, transport: str, fault: str = "none", step: str = "none", **options: Any) -> Any:
        if transport == "stdio":
            return self.stdio(fault, step, **options)
        return self.http(transport, fault, step, **options)

    def kill_servers(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()

    def close(self) -> None:
        self.kill_servers()
        for process in self._running:
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
        self._running.clear()

    def leftovers(self) -> list[str]:
        own = {str(process.pid) for process in self._running}
        return [line for line in processes(self.mark) if line.split()[0] not in own]

    @asynccontextmanager
    async def nothing_left(self) -> AsyncIterator[None]:
        """Fails when tasks, sockets or children are left after the block."""
        tasks = asyncio.all_tasks()
        before = sockets()
        yield
        held: list[Any] = []

        def gone() -> bool:
            held[:] = [
                *(task for task in asyncio.all_tasks() - tasks),
                *self.leftovers(),
                *([f"{sockets() - before} sockets"] if sockets() > before else []),
            ]
            return not held

        await eventually(gone)
        assert held == []


@contextmanager
def laboratory() -> Iterator[Laboratory]:
    lab = Laboratory()
    try:
        yield lab
    finally:
        lab.close()


@pytest.fixture
def lab() -> Iterator[Laboratory]:
    with laboratory() as made:
        yield made
