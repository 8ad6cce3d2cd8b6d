"""``rejoinder talk``: a spoken conversation with a realtime model: a question and an answer as WAV
files, or the microphone and the speaker."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any, Final

from rejoinder.cli.kept import path_of
from rejoinder.cli.keys import lent_keys
from rejoinder.cli.llms import find_tools
from rejoinder.cli.loop import LoopThread
from rejoinder.cli.numbers import seconds
from rejoinder.cli.outcome import CommandError, Exit
from rejoinder.cli.screen import Screen
from rejoinder.errors import ConfigurationError

if TYPE_CHECKING:
    from rejoinder.cli.spoken import Out
    from rejoinder.cli.wav import WavWriter
    from rejoinder.llm.realtime import RealtimeModel
    from rejoinder.media import AudioFrame

__all__ = ["add_options", "run"]

_SYSTEM: Final = "You are a helpful assistant. Answer briefly."
_SHORTEST: Final = 0.1
"""Seconds; services refuse shorter turns."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "-m", "--model", metavar="NAME", required=True,
        help="provider/model, such as openai/gpt-realtime-2.1, google/gemini-3.8-live or "
        "aws/amazon.nova-2-sonic-v1:0",
    )  # fmt: skip
    parser.add_argument("--base-url", metavar="URL", help="address of the provider's API")
    parser.add_argument("-s", "--system", metavar="TEXT", default=_SYSTEM, help="instructions")
    parser.add_argument("--voice", metavar="NAME", help="the voice of the model")
    parser.add_argument(
        "--in", dest="question", metavar="FILE",
        help="the question, a WAV file, or `-` for standard input; without it the microphone is used",
    )  # fmt: skip
    parser.add_argument(
        "--out", dest="answer", metavar="FILE",
        help="write the answer to this WAV file; without it the speaker is used",
    )  # fmt: skip
    parser.add_argument("--mute", action="store_true", help="show the transcript, play no sound")
    parser.add_argument(
        "--tool", metavar="MODULE:FUNCTION", action="append", default=[],
        help="offer this function to the model; may be given often; `demo` are the demo tools",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=seconds, default=20.0,
        help="how long the model may take to begin its answer (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print events as JSON, one per line")
    parser.add_argument("-q", "--quiet", action="store_true", help="no times, no notes")


def run(args: argparse.Namespace) -> Exit:
    """Run the command.

    Raises:
        CommandError: the options, the file or the devices cannot be used, or there was no answer.
        KeyboardInterrupt: Ctrl-C, while a question from a file is answered.
    """
    from rejoinder.llm.realtime import RealtimeError

    if args.mute and args.answer is not None:
        raise CommandError("--mute and --out exclude each other; choose one")
    screen = Screen(quiet=args.quiet or args.json)
    question = None if args.question is None else _question(args.question)
    tools = find_tools(args.tool)
    model = _model(args)
    stop = asyncio.Event()
    with contextlib.ExitStack() as files:
        kept = None if args.mute or args.answer is None else _writer(args.answer)
        if kept is not None:
            files.enter_context(kept)
        out = _FileOut(kept) if kept is not None or args.mute else None
        work = _talk(args, screen, model, tools, question, out, stop)
        loop = files.enter_context(LoopThread())
        files.enter_context(screen.alone())
        try:
            loop.run(work, interrupt=stop.set if question is None else None)
        except RealtimeError as error:
            raise CommandError(str(error), Exit.FAILED) from error
    return Exit.OK


async def _talk(
    args: argparse.Namespace,
    screen: Screen,
    model: RealtimeModel,
    tools: list[Any],
    question: AudioFrame | None,
    file: _FileOut | None,
    stop: asyncio.Event,
) -> None:
    from rejoinder.cli.devices import microphone, speaker
    from rejoinder.cli.spoken import JsonTold, Spoken, TextTold

    told = JsonTold(screen) if args.json else TextTold(screen)
    async with model:
        with contextlib.ExitStack() as devices:
            # Open the devices first, so that their errors occur before anything is sent.
            out: Out = devices.enter_context(speaker()) if file is None else file
            begun: list[Spoken] = []
            if question is None:
                loop = asyncio.get_running_loop()

                def heard(frame: AudioFrame) -> None:
                    if begun:
                        loop.call_soon_threadsafe(begun[0].push, frame)

                devices.enter_context(microphone(heard))
            async with Spoken.begin(
                model,
                system=args.system,
                one_turn=question is not None,
                tools=tools,
                out=out,
                told=told,
                timeout=args.timeout,
            ) as spoken:
                if question is not None:
                    await spoken.ask(question)
                else:
                    told.note("Speak. Ctrl-C ends the conversation.")
                    begun.append(spoken)
                    await spoken.converse(stop)
    if args.answer is not None and file is not None and not file.seconds:
        raise CommandError(
            f"the model answered without sound, so {args.answer} is empty", Exit.FAILED
        )


def _model(args: argparse.Namespace) -> RealtimeModel:
    from rejoinder import catalog
    from rejoinder.providers.asking.checks import check_base_url

    name: str = args.model
    if args.base_url is not None:
        try:
            check_base_url(args.base_url, "--base-url")
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        if "/" not in name:
            name = f"openai/{name}"  # the protocol that most servers speak
    provider, _, model = name.partition("/")
    if not provider.strip() or not model.strip():
        raise CommandError(
            "--model: expected provider/model, such as openai/gpt-realtime-2.1, got "
            f"{args.model!r}; providers: {', '.join(catalog.realtime_provider_names())}"
        )
    options: dict[str, Any] = {"reply_timeout": args.timeout}
    if args.voice is not None:
        options["voice"] = args.voice
    try:
        with lent_keys(provider):
            return catalog.create_realtime(name, base_url=args.base_url, **options)
    except (ImportError, ValueError, TypeError) as error:
        raise CommandError(str(error), Exit.SETUP) from error


def _question(place: str) -> AudioFrame:
    from rejoinder.cli.wav import WavError, read_wav

    try:
        if place == "-":
            if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
                raise CommandError("--in -: expected a WAV file that is piped into standard input")
            data = sys.stdin.buffer.read()
        else:
            data = path_of(place).read_bytes()
    except OSError as error:
        raise CommandError(f"--in {place}: {error.strerror or error}") from error
    try:
        frame = read_wav(data)
    except WavError as error:
        raise CommandError(f"--in {place}: {error}") from error
    if frame.duration < _SHORTEST:
        raise CommandError(
            f"--in {place}: expected at least {_SHORTEST} s of sound, got {frame.duration:.3f} s"
        )
    return frame


class _FileOut:
    """Writes the answer to a file."""

    def __init__(self, writer: WavWriter | None) -> None:
        self._writer = writer
        self.seconds = 0.0

    def play(self, message_id: str, frame: AudioFrame) -> None:
        self.seconds += frame.duration
        if self._writer is not None:
            self._writer.write(frame)

    def cut(self) -> list[tuple[str, int]]:
        return []

    async def drained(self) -> None:
        return


def _writer(place: str) -> WavWriter:
    from rejoinder.cli.wav import WavWriter

    try:
        return WavWriter(path_of(place))
    except OSError as error:
        raise CommandError(f"--out {place}: {error.strerror or error}") from error
