"""`rejoinder talk` with files: each service is played by a server on this machine."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
import struct
import subprocess
import wave
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cli.commands import COMMAND, Ran, environment, run
from published import client_faults
from rejoinder.cli.commands import make_parser
from rejoinder.cli.loop import LoopThread
from rejoinder.cli.outcome import CommandError
from rejoinder.cli.screen import Screen
from rejoinder.cli.spoken import Spoken, TextTold
from rejoinder.cli.talk import _FileOut, _model
from rejoinder.media import AudioFrame
from rejoinder.providers.openai.live import GPTLiveModel
from rejoinder.testing import (
    GeminiConnection,
    LiveConnection,
    RealtimeFault,
    RealtimeServer,
    RealtimeService,
    ServerCall,
    ServerReply,
)
from rejoinder.testing.sonic_server import SonicReply, SonicServer

pytestmark = pytest.mark.timeout(180)


class Service:
    """A realtime service in a thread of its own, and the options that lead to it."""

    def __init__(self, vendor: str, server: Any) -> None:
        self.vendor = vendor
        self.server = server
        url = server.url.removesuffix("/v1") if vendor == "google" else server.url
        self.options = ["--model", MODELS[vendor], "--base-url", url]
        self.keys: dict[str, Any] = {
            "OPENAI_API_KEY": "sk-test",
            "GOOGLE_API_KEY": "any",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "a-secret",
        }

    def will(self, *words: str, ms: int = 100, calls: Any = ()) -> None:
        make: Any = SonicReply if self.vendor == "aws" else ServerReply
        self.server.reply(make(words, ms=ms, calls=calls))

    def talk(self, *arguments: str, **more: Any) -> Ran:
        return run("talk", *self.options, *arguments, **{**self.keys, **more})


MODELS = {
    "openai": "openai/gpt-realtime-2.1",
    "google": "google/gemini-3.8-live",
    "aws": "aws/amazon.nova-2-sonic-v1:0",
}


def heard_by_nova(server: SonicServer) -> Any:
    """Nova finds the end of a turn itself: here after half a second of the user's sound."""
    answered: list[Any] = []

    async def answer(connection: Any, kind: str, _: Any) -> bool:
        if kind == "audioInput" and len(connection.grammar.audio) > 16_000 and not answered:
            answered.append(connection)
            await connection.speech("What is the weather?")
            connection.later(connection.speak(server.next_reply()))
        return False

    return answer


@pytest.fixture(params=["openai", "google", "aws"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    yield from serving(request.param)


@pytest.fixture
def openai() -> Iterator[Service]:
    yield from serving("openai")


def serving(vendor: str) -> Iterator[Service]:
    client_faults({"type": "response.create"})  # imports what the server's loop must not wait for
    server: Any
    if vendor == "aws":
        server = SonicServer()
        server.on_event = heard_by_nova(server)
    elif vendor == "google":
        server = RealtimeServer(connection=GeminiConnection)
    else:
        server = RealtimeServer()
    with LoopThread() as loop:
        loop.run(server.__aenter__())
        try:
            yield Service(vendor, server)
        finally:
            loop.run(server.__aexit__(None, None, None))
        assert not getattr(server, "illegal", [])


def tone(rate: int = 24000, channels: int = 1, seconds: float = 0.6, width: int = 2) -> bytes:
    """A WAV file with a tone."""
    count = round(rate * seconds)
    samples = [0.5 * math.sin(2 * math.pi * 440 * at / rate) for at in range(count)]
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        top = 1 << (8 * width - 1)
        file.writeframes(
            b"".join(
                (round(value * (top - 1)) + (128 if width == 1 else 0)).to_bytes(
                    width, "little", signed=width > 1
                )
                * channels
                for value in samples
            )
        )
    return made.getvalue()


@pytest.fixture
def question(tmp_path: Path) -> Path:
    file = tmp_path / "question.wav"
    file.write_bytes(tone())
    return file


def seconds_of(file: Path) -> float:
    with wave.open(str(file)) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, 24000)
        return sound.getnframes() / sound.getframerate()


def test_a_question_is_answered(service: Service, question: Path, tmp_path: Path) -> None:
    service.will("It rains.", ms=400)
    answer = tmp_path / "answer.wav"
    ran = service.talk("--in", str(question), "--out", str(answer), "-s", "Be kind.")
    assert (ran.code, ran.out) == (0, "It rains.\n"), ran.err
    assert seconds_of(answer) == pytest.approx(0.4)
    assert "first sound" in ran.err
    assert "end of reply" in ran.err
    assert "0.4 s of sound" in ran.err
    connection = service.server.connections[0]
    if service.vendor == "aws":
        assert "you: What is the weather?" in ran.err
        assert "Be kind." in str(connection.events)
    else:
        rate = 24000 if service.vendor == "openai" else 16000
        assert len(connection.audio) == pytest.approx(0.6 * rate * 2, rel=0.05)
        assert "Be kind." in str(getattr(connection, "setup", None) or connection.session)


def test_a_full_duplex_model_answers(question: Path) -> None:
    """It hears all the time and speaks when it wants to: here after half a second of sound."""
    answered: list[Any] = []

    async def answer(connection: Any, event: dict[str, Any]) -> bool:
        if len(connection.audio) > 12_000 and not answered:
            answered.append(connection)
            await connection.words_of_user("What is the weather?")
            await connection.begin_reply(ServerReply(["It ", "rains."]))
            server.keep(asyncio.create_task(quiet(connection)))
        return False

    async def quiet(connection: Any) -> None:
        await asyncio.sleep(0.2)
        await connection.silence()

    server = RealtimeServer(connection=LiveConnection, on_event=answer)
    with LoopThread() as loop:
        loop.run(server.__aenter__())
        ran = run(
            "talk", "--model", "openai.live/gpt-live-1", "--base-url", server.url,
            "--in", str(question), "--mute", OPENAI_API_KEY="k",
        )  # fmt: skip
        loop.run(server.__aexit__(None, None, None))
    assert (ran.code, ran.out) == (0, "It rains.\n"), ran.err
    assert "first sound" in ran.err


def test_a_tool_runs_before_the_answer(
    service: Service, question: Path, tmp_path: Path, tools: Path
) -> None:
    service.will(calls=[ServerCall("add", '{"a": 2, "b": 3}')])
    service.will("Five.")
    answer = tmp_path / "answer.wav"
    ran = service.talk("--in", str(question), "--out", str(answer), "--tool", f"{tools}:add")
    assert (ran.code, ran.out) == (0, "Five.\n"), ran.err
    assert "-> add(a=2, b=3)" in ran.err
    assert "<- 5" in ran.err
    assert seconds_of(answer) == pytest.approx(0.1)


def test_the_question_from_standard_input(openai: Service) -> None:
    openai.will("Hello.")
    sound = bytearray(tone())
    sound[40:44] = (
        b"\xff\xff\xff\xff"  # a recorder that writes into a pipe does not know the length
    )
    ran = openai.talk("--in", "-", "--mute", "-q", input=bytes(sound))
    assert (ran.code, ran.out, ran.err) == (0, "Hello.\n", "")


def test_events_as_json(openai: Service, question: Path) -> None:
    openai.will("Good ", "day.")
    ran = openai.talk("--in", str(question), "--mute", "--json")
    events = [json.loads(line) for line in ran.out.splitlines()]
    assert [event["event"] for event in events] == ["text", "text", "done"]
    done = events[-1]
    assert done["outcome"] == "completed"
    assert 0 <= done["first_sound"] <= done["end"]
    assert done["sound"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("rate", "channels", "width"), [(8000, 1, 1), (44100, 2, 2), (48000, 1, 3), (16000, 2, 4)]
)
def test_a_question_of_any_form(
    openai: Service, tmp_path: Path, rate: int, channels: int, width: int
) -> None:
    openai.will("Yes.")
    file = tmp_path / "question.wav"
    file.write_bytes(tone(rate, channels, 1.0, width))
    ran = openai.talk("--in", str(file), "--mute")
    assert ran.code == 0, ran.err
    sent = bytes(openai.server.connections[0].audio)
    samples = struct.unpack(f"<{len(sent) // 2}h", sent)
    assert len(samples) == pytest.approx(24000, rel=0.05)
    assert max(samples[6000:18000]) == pytest.approx(0.5 * 32767, rel=0.05)


def test_without_a_converter_the_error_says_how_to_get_it(openai: Service, tmp_path: Path) -> None:
    file = tmp_path / "question.wav"
    file.write_bytes(tone(8000))
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['soxr'] = None\n")
    ran = openai.talk("--in", str(file), "--mute", PYTHONPATH=without(tmp_path))
    assert ran.code == 3
    assert "pip install 'rejoinder[audio]'" in ran.err
    assert "8000 Hz" in ran.err


def without(folder: Path) -> str:
    """A path for Python on which `folder` comes first."""
    before = environment().get("PYTHONPATH", "")
    return f"{folder}:{before}" if before else str(folder)


def test_an_answer_without_sound_is_shown_and_leaves_no_sound(
    openai: Service, question: Path, tmp_path: Path
) -> None:
    openai.server.reply(ServerReply())
    ran = openai.talk("--in", str(question), "--out", str(tmp_path / "answer.wav"))
    assert ran.code == 1
    assert "answered without sound" in ran.err


# -- what is wrong is said before anything is sent -------------------------------------------------


def refused(*arguments: str) -> tuple[int, str]:
    """The exit code and the sentence of an error, without the cost of a process."""
    args = make_parser().parse_args(["talk", *arguments])
    with pytest.raises(CommandError) as caught:
        args.run(args)
    return caught.value.code, str(caught.value)


REALTIME = ("--model", "openai/gpt-realtime-2.1")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "expected a WAV file"),
        (b"ID3\x04 this is an MP3", "begins with b'ID3"),
        (b"RIFF\0\0\0\0WAVE", "holds no sound"),
        (tone(seconds=0.05), "at least 0.1 s"),
        (tone()[:20] + struct.pack("<H", 85) + tone()[22:], "encoding 85"),
    ],
)
def test_a_file_that_is_no_question(tmp_path: Path, data: bytes, told: str) -> None:
    file = tmp_path / "question.wav"
    file.write_bytes(data)
    code, text = refused(*REALTIME, "--in", str(file), "--mute")
    assert code == 2
    assert told in text


def test_a_question_that_is_not_there(tmp_path: Path) -> None:
    code, text = refused(*REALTIME, "--in", str(tmp_path / "nothing.wav"), "--mute")
    assert (code, "No such file" in text) == (2, True)


def test_an_answer_that_cannot_be_written(
    question: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    place = tmp_path / "no" / "answer.wav"
    code, text = refused(*REALTIME, "--in", str(question), "--out", str(place))
    assert (code, "No such file" in text) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--model", "openai"], 2, "expected provider/model"),
        (["--model", "opnai/x"], 3, "did you mean 'openai'?"),
        (["--model", "anthropic/claude"], 3, "no provider of realtime models"),
        (["--model", "openai/gpt-4.1"], 3, "it is a text model"),
        (["--model", "google/gemini-2.5-flash"], 3, "Live API"),
        (["--model", "aws/amazon.nova-pro-v1:0"], 3, "Nova Sonic"),
        (["--model", "aws/amazon.nova-2-sonic-v1:0", "--voice", "greta"], 3, "greta"),
        ([*REALTIME, "--base-url", "nonsense"], 2, "--base-url"),
        ([*REALTIME, "--out", "x.wav"], 2, "--mute"),
    ],
)
def test_wrong_words(
    question: Path,
    arguments: list[str],
    code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    found, text = refused("--in", str(question), "--mute", *arguments)
    assert told in text
    assert found == code


def test_a_missing_key_is_said(question: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    code, text = refused(*REALTIME, "--in", str(question), "--mute")
    assert (code, "OPENAI_API_KEY" in text) == (3, True)


def test_a_key_that_was_kept_is_used(openai: Service, question: Path) -> None:
    run("keys", "set", "openai", input=b"sk-kept\n")
    openai.will("Hello.")
    openai.keys.pop("OPENAI_API_KEY")
    ran = openai.talk("--in", str(question), "--mute")
    assert ran.code == 0, ran.err
    (request,) = openai.server.requests
    assert request.headers["Authorization"] == "Bearer sk-kept"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (RealtimeFault.REFUSE_401, "the key is wrong or has expired"),
        (RealtimeFault.REFUSED, "too odd"),
        (RealtimeFault.QUOTA, "No."),
        (RealtimeFault.FAILED, "It broke."),
    ],
)
def test_a_service_that_fails(
    openai: Service, question: Path, fault: RealtimeFault, told: str
) -> None:
    openai.server.fault(fault)
    ran = openai.talk("--in", str(question), "--mute")
    assert ran.code == 1, ran.err
    assert told in ran.err


@pytest.mark.parametrize(
    "fault",
    [RealtimeFault.REFUSE_401, RealtimeFault.REFUSED, RealtimeFault.QUOTA, RealtimeFault.FAILED],
)
def test_a_service_that_fails_shows_no_key(
    openai: Service, question: Path, fault: RealtimeFault
) -> None:
    key = "sk-canary-0123456789abcdef"
    url = openai.server.url
    for address in (url, url.replace("://", f"://user:{key}@"), f"{url}?api-key={key}"):
        openai.server.fault(fault)
        openai.options[-1] = address
        ran = openai.talk("--in", str(question), "--mute", OPENAI_API_KEY=key)
        assert ran.code == 1, ran.out
        assert "canary" not in ran.out + ran.err, address
        # An account in the address wins over the key, as with OpenAI's own client.
        account = base64.b64encode(f"user:{key}".encode()).decode()
        sent = f"Basic {account}" if "@" in address else f"Bearer {key}"
        assert openai.server.requests[-1].headers["Authorization"] == sent


def test_a_service_that_says_nothing(openai: Service, question: Path) -> None:
    openai.server.fault(RealtimeFault.NEVER_ANSWERS)
    ran = openai.talk("--in", str(question), "--mute", "--timeout", "0.5")
    assert ran.code == 1
    assert "did not answer within 0.5 s" in ran.err


def test_without_portaudio_the_error_names_the_package(openai: Service, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import ctypes.util\nctypes.util.find_library = lambda name: None\n"
    )
    ran = openai.talk(PYTHONPATH=without(tmp_path))
    assert ran.code == 3
    assert "libportaudio2" in ran.err
    assert "--in FILE --out FILE" in ran.err
    assert not openai.server.connections


def test_without_the_extra_the_error_names_it(openai: Service, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['sounddevice'] = None\n")
    ran = openai.talk(PYTHONPATH=without(tmp_path))
    assert ran.code == 3
    assert "pip install 'rejoinder[talk]'" in ran.err


def test_ctrl_c_ends_it_and_keeps_what_was_said(
    openai: Service, question: Path, tmp_path: Path
) -> None:
    openai.server.reply(ServerReply(["One "], ms=300, hold=True))
    answer = tmp_path / "answer.wav"
    with subprocess.Popen(
        [*COMMAND, "talk", *openai.options, "--in", str(question), "--out", str(answer)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(**openai.keys),
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.read(4) == "One "
        child.send_signal(2)
        child.communicate(timeout=30)
    assert child.returncode == 130
    assert seconds_of(answer) == pytest.approx(0.3)


@pytest.mark.looptime
async def test_the_time_for_an_answer_counts_once_from_the_end_of_the_question() -> None:
    service = RealtimeService(connection=LiveConnection)
    transport = service.transport()
    model = GPTLiveModel(transport=transport, api_key="any")
    loop = asyncio.get_running_loop()
    told = TextTold(Screen(quiet=True))
    options = {"system": None, "one_turn": True, "tools": [], "out": _FileOut(None)}
    async with model, Spoken.begin(model, told=told, timeout=4.0, **options) as spoken:
        began = loop.time()
        with pytest.raises(CommandError, match="within 4 s"):
            await spoken.ask(AudioFrame.create(24000, 1, 24000))
        assert loop.time() - began == pytest.approx(5, abs=0.2)
    await transport.aclose()
    await service.aclose()


@pytest.mark.parametrize("name", [*MODELS.values(), "openai.live/gpt-live-1"])
def test_the_time_for_an_answer_reaches_the_model(name: str, monkeypatch: Any) -> None:
    for key in ("OPENAI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.setenv(key, "any")
    model: Any = _model(make_parser().parse_args(["talk", "-m", name, "--timeout", "33"]))
    assert model._options.reply_timeout == 33


class Words(TextTold):
    """Keeps what the model has said."""

    def __init__(self) -> None:
        super().__init__(Screen(quiet=True))
        self.words: list[str] = []

    def text(self, text: str) -> None:
        self.words.append(text)


async def hearing_all(model_options: dict[str, Any], turn: Any) -> tuple[list[str], float]:
    """Ask a full-duplex model, which does `turn`. Return its words and when the program ended."""
    begun: list[Any] = []

    async def answer(connection: Any, _: dict[str, Any]) -> bool:
        if len(connection.audio) > 12_000 and not begun:
            begun.append(connection)
            service.keep(asyncio.create_task(turn(connection)))
        return False

    service = RealtimeService(connection=LiveConnection, on_event=answer)
    transport = service.transport()
    model = GPTLiveModel(transport=transport, api_key="any", **model_options)
    told = Words()
    options = {"system": None, "one_turn": True, "tools": [], "out": _FileOut(None)}
    async with model, Spoken.begin(model, told=told, timeout=20.0, **options) as spoken:
        session: Any = spoken._session

        def later(event: Any) -> None:
            again = partial(session.append_commentary, "It rains.", delegation_id=event.id)
            asyncio.get_running_loop().call_later(6, again)

        if model_options:
            session.on("delegation_created", later)
        await spoken.ask(AudioFrame.create(24000, 1, 24000))
        assert not session.working
        ended = asyncio.get_running_loop().time()
    await transport.aclose()
    await service.aclose()
    return told.words, ended


@pytest.mark.looptime
async def test_a_turn_is_over_when_the_backend_has_answered() -> None:
    async def turn(connection: Any) -> None:
        await connection.words_of_user("What is the weather?")
        task = await connection.thinks()
        await connection.begin_reply(ServerReply(["One moment."]))
        await asyncio.sleep(6)
        await connection.thought(task)
        await asyncio.sleep(1)
        await connection.begin_reply(ServerReply(["It rains."]))

    words, _ = await hearing_all({}, turn)
    assert words == ["One moment.", "It rains."]


@pytest.mark.looptime
async def test_a_turn_is_over_when_the_application_has_done_its_task() -> None:
    async def turn(connection: Any) -> None:
        await connection.words_of_user("What is the weather?")
        await connection.delegate()
        await connection.begin_reply(ServerReply(["One moment."]))

    words, _ = await hearing_all({"delegation": "client"}, turn)
    assert words == ["One moment.", "It rains."]


@pytest.mark.looptime
async def test_a_task_that_is_done_while_the_model_speaks_is_told_too() -> None:
    async def turn(connection: Any) -> None:
        await connection.words_of_user("What is the weather?")
        task = await connection.thinks()
        await connection.begin_reply(ServerReply(["One moment."], hold=True))
        await asyncio.sleep(1)
        await connection.thought(task)
        await asyncio.sleep(1)
        connection.release()
        await asyncio.sleep(2)
        await connection.begin_reply(ServerReply(["It rains."]))

    words, _ = await hearing_all({}, turn)
    assert words == ["One moment.", "It rains."]


@pytest.mark.looptime
async def test_a_turn_without_a_task_ends_with_its_reply() -> None:
    async def turn(connection: Any) -> None:
        await connection.words_of_user("What is the weather?")
        await connection.begin_reply(ServerReply(["It rains."]))

    words, ended = await hearing_all({}, turn)
    assert words == ["It rains."]
    assert ended < 3


@pytest.mark.looptime
async def test_a_task_that_is_never_done_ends_the_program_with_an_error() -> None:
    async def turn(connection: Any) -> None:
        await connection.words_of_user("What is the weather?")
        await connection.thinks()
        await connection.begin_reply(ServerReply(["One moment."]))

    with pytest.raises(CommandError, match="did not finish its turn within 20 s"):
        await hearing_all({}, turn)
