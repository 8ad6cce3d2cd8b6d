"""The file that processes share: what one writes the others read, whoever dies or holds the lock."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import threading
import time
from pathlib import Path

import pytest

from rejoinder.store import StoreError
from rejoinder.store._sqlite import SqliteTexts

pytestmark = pytest.mark.may_block


def test_what_one_process_writes_the_other_reads(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    a, b = SqliteTexts(path), SqliteTexts(path)
    assert a.read(["x", "y"]) == [None, None]
    a.update("x", lambda old: f"{old}1")
    assert b.read(["y", "x"]) == [None, "None1"]
    b.update("x", lambda old: None)  # nothing to change
    b.update("x", lambda old: f"{old}2")
    assert a.read(["x"]) == ["None12"]
    a.close()
    a.close()
    assert a.read(["x"]) == ["None12"]  # opens again
    a.close()
    b.close()


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    store = SqliteTexts(tmp_path / "state.sqlite")
    store.update("x", lambda _: "1")
    with pytest.raises(ZeroDivisionError):
        store.update("x", lambda _: str(1 // 0))
    assert store.read(["x"]) == ["1"]
    store.close()


def test_a_locked_file_fails_and_a_missing_folder_says_so(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    store = SqliteTexts(path, patience=0.02)
    store.update("x", lambda _: "1")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        store.update("x", lambda _: "2")
    assert store.read(["x"]) == ["1"]  # readers go on
    other.execute("ROLLBACK")
    other.close()
    store.close()
    with pytest.raises(StoreError, match="folder that exists"):
        SqliteTexts(tmp_path / "no" / "state.sqlite").read(["x"])
    (tmp_path / "text").write_text("not a database, but a text of some length\n" * 100)
    with pytest.raises(StoreError):
        SqliteTexts(tmp_path / "text").read(["x"])


def test_a_file_that_is_removed_or_replaced_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.sqlite"
    store = SqliteTexts(path)
    store.update("x", lambda _: "old")
    for file in tmp_path.iterdir():
        file.unlink()
    other = SqliteTexts(path)
    other.update("x", lambda _: "new")
    before = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: before() + 5)
    assert store.read(["x"]) == ["new"]
    store.update("x", lambda old: f"{old}er")
    assert other.read(["x"]) == ["newer"]
    store.close()
    other.close()


def test_threads_take_turns(tmp_path: Path) -> None:
    store = SqliteTexts(tmp_path / "state.sqlite", patience=5.0)
    store.update("x", lambda _: "0")

    def count() -> None:
        for _ in range(100):
            store.update("x", lambda old: str(int(old or 0) + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read(["x"]) == ["400"]
    store.close()


COUNTER = """
import sys
from rejoinder.store._sqlite import SqliteTexts
store = SqliteTexts(sys.argv[1], patience=10)
assert store.read(["x"]) is not None
print("open", flush=True)
sys.stdin.readline()
while True:
    store.update("x", lambda old: str(int(old or 0) + 1))
"""


async def test_processes_that_start_together_and_die_while_they_write(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    script = tmp_path / "counter.py"
    script.write_text(COUNTER)
    pipe = asyncio.subprocess.PIPE
    workers = await asyncio.gather(
        *(
            asyncio.create_subprocess_exec(
                sys.executable, str(script), str(path), stdin=pipe, stdout=pipe
            )
            for _ in range(12)
        )
    )
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert await worker.stdout.readline() == b"open\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(b"go\n")
        store = SqliteTexts(path, patience=10)
        reached = 0
        for worker in workers:
            seen = reached
            while reached < seen + 50:
                reached = int(store.read(["x"])[0] or 0)
                await asyncio.sleep(0.002)
            worker.kill()  # in the middle of a write, more likely than not
            await worker.wait()
        store.close()
        reached = int(store.read(["x"])[0] or 0)
        store.update("x", lambda old: str(int(old or 0) + 1))
        assert store.read(["x"]) == [str(reached + 1)]
        store.close()
    finally:
        for worker in workers:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()
    whole = sqlite3.connect(path)
    assert whole.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    whole.close()


def test_a_forked_child_opens_the_file_for_itself(tmp_path: Path) -> None:
    store = SqliteTexts(tmp_path / "state.sqlite")
    store.update("x", lambda _: "parent")
    child = os.fork()
    if child == 0:
        good = False
        try:
            good = store.read(["x"]) == ["parent"]
            store.update("x", lambda old: f"{old} and child")
            store.close()
        finally:
            os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.read(["x"]) == ["parent and child"]
    store.close()
