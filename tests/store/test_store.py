"""Conversations in a SQLite file: what is read back, found, refused and erased."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.conversation import Conversation
from rejoinder.store import ConflictError, Found, Record, SqliteStore, Store, StoreError
from rejoinder.store._media import lift, lower, names_in


def message(item: str, text: str, *, role: str = "user", at: float = 1.0) -> Record:
    data = {"id": item, "type": "message", "role": role, "content": [text]}
    return Record("item", item=item, data=data, at=at)


async def test_what_is_appended_is_read(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "log.sqlite")
    assert isinstance(store, Store)
    assert await store.read("a") == []
    records = [
        message("1", "Hi"),
        Record("start", item="c", parent=None, turn="t", key="k", at=2.0),
        Record("usage", usage={"total_tokens": 3}, cost=0.5, planned=True, at=3.0),
        Record("about", data={"title": "\ud800 half a pair", "float": float("inf")}, at=4.0),
    ]
    await store.append("a", records[:1], after=0)
    await store.append("a", records[1:], after=1)
    assert await store.read("a") == records
    assert await store.read("a", after=2) == records[2:]
    await store.aclose()
    assert await store.read("a") == records  # opens again
    await store.aclose()


async def test_of_two_writers_one_wins(tmp_path: Path) -> None:
    a, b = SqliteStore(tmp_path / "log.sqlite"), SqliteStore(tmp_path / "log.sqlite")
    done = await asyncio.gather(
        *(
            store.append("c", [message(f"{n}{i}", "x") for i in range(3)], after=0)
            for n, store in enumerate((a, b, a, b))
        ),
        return_exceptions=True,
    )
    assert done.count(None) == 1
    assert sum(isinstance(error, ConflictError) for error in done) == 3
    assert len(await a.read("c")) == 3
    await a.aclose()
    await b.aclose()


async def test_calls_run_beside_the_loop(tmp_path: Path) -> None:
    """A file that another program holds makes a call wait, and nothing else."""
    store = SqliteStore(tmp_path / "log.sqlite", patience=30)
    await store.append("a", [message("1", "x")], after=0)
    other = sqlite3.connect(tmp_path / "log.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(store.append("a", [message("2", "x")], after=1))
    for _ in range(100):
        await asyncio.sleep(0.001)
    assert not writing.done()
    other.execute("ROLLBACK")
    await writing
    other.close()
    assert len(await store.read("a")) == 2
    await store.aclose()


async def test_a_held_file_a_foreign_file_and_a_missing_folder(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "log.sqlite", patience=0.02)
    await store.append("a", [message("1", "x")], after=0)
    other = sqlite3.connect(tmp_path / "log.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        await store.append("a", [message("2", "x")], after=1)
    other.execute("ROLLBACK")
    other.execute("PRAGMA user_version=99")
    other.close()
    await store.aclose()
    with pytest.raises(StoreError, match="newer version"):
        await store.read("a")
    (tmp_path / "text").write_text("not a database, but a text of some length\n" * 100)
    for path in (tmp_path / "text", tmp_path / "no" / "log.sqlite", tmp_path):
        with pytest.raises(StoreError, match="expected a SQLite file"):
            await SqliteStore(path).read("a")


async def test_an_error_names_the_remedy_for_its_cause(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    store = SqliteStore(path)
    await store.append("a", [message(str(n), "x" * 500) for n in range(50)], after=0)
    await store.aclose()
    sound = path.read_bytes()

    async def told() -> str:
        store = SqliteStore(path)
        with pytest.raises(StoreError) as caught:
            await store.read("a")
        await store.aclose()
        return str(caught.value)

    path.write_bytes(sound[:4096] + b"\x55" * (len(sound) - 4096))
    assert "move this one away" in await told()
    path.write_bytes(sound)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")
    newer = await told()
    assert "update rejoinder" in newer
    assert "local disk" not in newer
    path.unlink()
    path.symlink_to(tmp_path / "no" / "log.sqlite")
    missing = await told()
    assert "No such file or directory; expected a SQLite file on a local disk" in missing
    assert "Errno" not in missing


async def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "log.sqlite")
    await store.append("a", [message("1", "x")], after=0)
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    await store.aclose()


async def test_search(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "log.sqlite")
    long = "x " * 200 + "Grüße aus Köln" + " y" * 200
    await store.append("a", [message("1", "The Eiffel Tower"), message("2", long, at=2.0)], after=0)
    call = {"type": "function_call", "name": "pay", "arguments": '{"to": "Ada"}'}
    await store.append("b", [Record("item", item="3", data=call, at=3.0), message("4", "東京タワー", at=4.0)], after=0)  # fmt: skip

    async def found(text: str, **options: Any) -> list[str]:
        return [hit.item for hit in await store.search(text, **options)]

    assert await found("eiffel") == ["1"]
    assert await found("tower EIF") == ["1"]
    assert await found("tower köln") == []
    assert await found("KÖLN") == ["2"]
    assert await found("ada") == ["3"]
    assert await found("タワ") == ["4"]
    assert await found("a") == ["3", "2"]
    assert await found("a", conversation="a") == ["2"]
    assert await found("a", limit=1) == ["3"]
    assert await found('"') == ["3"]
    assert await found('x" OR "y') == []
    assert await found("  ") == []
    (hit,) = await store.search("grüße")
    assert hit == Found("a", "2", hit.excerpt, 2.0)
    assert hit.excerpt.startswith("...x x")
    assert "Grüße aus Köln" in hit.excerpt
    changed = Record("change", item="1", data=message("1", "The Louvre").data)
    await store.append("a", [changed], after=2)
    assert await found("eiffel") == []
    assert await found("louvre") == ["1"]
    await store.aclose()


@given(st.text(max_size=30))
def test_whatever_is_searched_for_is_no_error(text: str) -> None:
    async def main() -> None:
        store = SqliteStore(":memory:")
        await store.search(text)
        await store.aclose()

    try:
        asyncio.run(main())
    finally:
        Path(":memory:").unlink(missing_ok=True)


async def test_the_list_and_what_is_erased_is_gone(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "log.sqlite")
    await store.append("a", [message("0", "Be brief", role="system"), message("1", "My secret is zebra", at=5.0)], after=0)  # fmt: skip
    await store.append("b", [message("1", "Hello " * 40, at=9.0)], after=0)
    await store.append("b", [Record("about", data={"title": "Greetings", "x": 1}, at=9.5)], after=1)
    await store.append("b", [Record("about", data={"x": 2}, at=10.0)], after=2)
    b, a = await store.conversations()
    assert (a.id, a.title, a.items, a.created, a.updated) == ("a", "My secret is zebra", 2, 1, 5)
    assert (b.title, b.items, b.about) == ("Greetings", 1, {"title": "Greetings", "x": 2})
    assert [each.id for each in await store.conversations(limit=1)] == ["b"]
    assert await store.remove("a")
    assert not await store.remove("a")
    assert await store.search("zebra") == []
    await store.aclose()
    assert not any(b"zebra" in file.read_bytes() for file in tmp_path.iterdir())


@pytest.mark.may_block
async def test_several_loops_share_a_store(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "log.sqlite")

    def work(name: str) -> None:
        for number in range(10):
            asyncio.run(store.append(name, [message(str(number), "x")], after=number))

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(await store.read(name)) for name in "abc"] == [10, 10, 10]
    await store.aclose()


def picture(size: int) -> dict[str, str]:
    return {"type": "image_content", "image": "x" * size}


PARTS: st.SearchStrategy[Any] = st.one_of(st.text(), st.builds(picture, st.integers(0, 20_000)))


@given(st.lists(PARTS))
def test_large_parts_leave_and_come_back(parts: list[Any]) -> None:
    data = {"type": "message", "content": parts}
    lifted, kept = lift(data)
    assert names_in([lifted]) == set(kept)
    assert lower(lifted, kept) == data
    assert all(len(str(part)) < 9000 for part in lifted["content"] if not isinstance(part, str))
    if kept:
        assert "(image that is no longer kept)" in lower(lifted, {})["content"]
        for damaged in (b"", b"\xff", b"{}", "text", b"[" * 10_000):
            told = lower(lifted, dict.fromkeys(kept, damaged))  # type: ignore[arg-type]
            assert "(image whose content is damaged)" in told["content"]


DAMAGE: dict[str, list[Any]] = {
    "data": ["null", "[]", "1", "{", "[" * 20_000, "\x00", b"\xff\xfe", 5, '{"id":{},"type":[]}'],
    "usage": ["[]", "{", '"x"', b"\x00"],
    "kind": [5, b"\xff", "brand new"],
    "item": [5, b"\xff", "x" * 10_000],
    "parent": [5, "of nothing"],
    "turn": [b"x"],
    "key": [b"y"],
    "at": ["x", b"\x00"],
    "cost": ["x", b"z"],
}


@pytest.mark.parametrize("column", DAMAGE)
async def test_a_damaged_record_is_an_error_of_the_store(tmp_path: Path, column: str) -> None:
    for number, value in enumerate(DAMAGE[column]):
        path = tmp_path / f"{number}.sqlite"
        store = SqliteStore(path)
        await store.append("c", [message("1", "Hello"), message("2", "there")], after=0)
        await store.aclose()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(f"UPDATE log SET {column} = ? WHERE seq = 1", (value,))
            connection.commit()
        for read in (store.read("c"), Conversation(store, "c").load(), store.conversations()):
            with contextlib.suppress(StoreError):  # some values are none of our business
                await read
        await store.aclose()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER x AFTER INSERT ON log BEGIN DELETE FROM log; END",
        """ALTER TABLE log RENAME TO old; CREATE VIEW log AS WITH RECURSIVE r(i) AS
        (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT i AS seq FROM r""",
    ],
)
async def test_a_file_with_code_of_others_is_refused(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "log.sqlite"
    store = SqliteStore(path)
    await store.append("c", [message("1", "Hello")], after=0)
    await store.aclose()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(statement)
    with pytest.raises(StoreError, match="which rejoinder did not create"):
        await store.read("c")
    await store.aclose()
