"""The microphone and the speaker, through the package `sounddevice` (extra ``talk``)."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Generator
from typing import Any, Final

from rejoinder.cli.outcome import CommandError, Exit
from rejoinder.cli.playback import Playback
from rejoinder.media import AudioFrame
from rejoinder.providers.sessions.sound import SoundInput

__all__ = ["microphone", "speaker"]

_RATE: Final = 24000
"""The preferred rate in samples a second: most services accept it, and all send it."""
_FILES: Final = "or use files: --in FILE --out FILE"


class SpeakerOut:
    """Plays frames of any rate; see `Playback`."""

    def __init__(self, playback: Playback, rate: int) -> None:
        self._playback = playback
        self._rate = rate
        self._input = SoundInput(rate)

    def play(self, message_id: str, frame: AudioFrame) -> None:
        """Play a frame after those that were given before."""
        if frame.sample_rate != self._rate:
            data = self._input.feed(frame)
            if data is None:
                return
            frame = AudioFrame(data, self._rate, 1, len(memoryview(data).cast("B")) // 2)
        self._playback.feed(message_id, frame)

    def cut(self) -> list[tuple[str, int]]:
        """Stop at once. Return what was heard of each message that was cut, in milliseconds."""
        self._input.clear()
        return self._playback.cut()

    async def drained(self) -> None:
        """Wait until everything was played."""
        await self._playback.drained()


@contextlib.contextmanager
def speaker() -> Generator[SpeakerOut]:
    """The default speaker. Needs a running event loop.

    Raises:
        CommandError: the extra or PortAudio is missing, or there is no speaker.
    """
    sounddevice = _sounddevice()
    playback: list[Playback] = []

    def play(out: Any, frames: int, time: Any, status: Any) -> None:
        out[:] = playback[0].take(2 * frames) if playback else bytes(2 * frames)

    with _opened(sounddevice, sounddevice.RawOutputStream, "speaker", "output", play) as stream:
        rate = int(stream.samplerate)
        playback.append(Playback(rate, latency=float(stream.latency)))
        yield SpeakerOut(playback[0], rate)


@contextlib.contextmanager
def microphone(heard: Callable[[AudioFrame], None]) -> Generator[None]:
    """The default microphone. `heard` is called with each 50 ms of sound, in a thread of its own.

    Raises:
        CommandError: the extra or PortAudio is missing, or there is no microphone.
    """
    sounddevice = _sounddevice()
    rate = _RATE

    def record(data: Any, frames: int, time: Any, status: Any) -> None:
        heard(AudioFrame(bytes(data), rate, 1, frames))

    with _opened(sounddevice, sounddevice.RawInputStream, "microphone", "input", record) as stream:
        rate = int(stream.samplerate)
        yield


def _sounddevice() -> Any:
    try:
        with _quiet():
            return importlib.import_module("sounddevice")
    except ImportError:
        raise CommandError(
            "the microphone and the speaker need the package sounddevice: "
            f"pip install 'rejoinder[talk]'; {_FILES}",
            Exit.SETUP,
        ) from None
    except OSError as error:
        raise CommandError(
            "the microphone and the speaker need PortAudio, which is not installed (Debian and "
            f"Ubuntu: apt install libportaudio2; Fedora: dnf install portaudio): {error}; {_FILES}",
            Exit.SETUP,
        ) from None


@contextlib.contextmanager
def _opened(
    sounddevice: Any, make: Any, name: str, kind: str, callback: Callable[..., None]
) -> Generator[Any]:
    """A running stream of one channel, at the usual rate or at the one of the device."""
    refused: list[Exception] = []
    stream: Any = None
    with _quiet():
        for rate in (_RATE, None):  # None: the device's own rate
            try:
                stream = make(
                    samplerate=rate,
                    channels=1,
                    dtype="int16",
                    blocksize=0 if rate is None else rate // 20,
                    callback=callback,
                )
                stream.start()
                break
            except (sounddevice.PortAudioError, ValueError) as error:
                stream = None
                refused.append(error)
    if stream is None:
        raise CommandError(
            f"the {name} cannot be opened: {refused[0]}; `python -m sounddevice` lists the devices, "
            f"{_FILES}",
            Exit.SETUP,
        )
    try:
        yield stream
    finally:
        stream.close()


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Hide what the libraries of the sound system print while they look for devices."""
    if os.environ.get("REJOINDER_DEBUG"):
        yield
        return
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
