"""WAV files, and the queue in front of the speaker."""

from __future__ import annotations

import asyncio
import io
import struct
import wave
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.cli.playback import Playback
from rejoinder.cli.spoken import pieces
from rejoinder.cli.wav import WavError, WavWriter, read_wav
from rejoinder.media import AudioFrame


def wav(form: bytes, sound: bytes, *, between: bytes = b"") -> bytes:
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + between
    chunks += b"data" + struct.pack("<I", len(sound)) + sound
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def form(encoding: int, channels: int, rate: int, bits: int) -> bytes:
    frame = channels * bits // 8
    return struct.pack("<HHIIHH", encoding, channels, rate, rate * frame, frame, bits)


@pytest.mark.parametrize(
    ("encoding", "bits", "sound"),
    [
        (1, 8, bytes([0, 128, 255])),
        (1, 16, struct.pack("<3h", -32768, 0, 32767)),
        (1, 24, b"\x00\x00\x80" + b"\x00\x00\x00" + b"\xff\xff\x7f"),
        (1, 32, struct.pack("<3i", -(1 << 31), 0, (1 << 31) - 1)),
        (3, 32, struct.pack("<3f", -1.0, 0.0, 1.0)),
        (3, 64, struct.pack("<3d", -9.0, float("nan"), 9.0)),
    ],
)
def test_every_kind_of_sample_becomes_16_bits(encoding: int, bits: int, sound: bytes) -> None:
    frame = read_wav(wav(form(encoding, 1, 8000, bits), sound))
    low, middle, high = frame.data
    assert low <= -32767
    assert middle == 0
    assert high >= 32512
    assert (frame.sample_rate, frame.num_channels) == (8000, 1)


def test_the_extensible_header_and_other_chunks_are_read() -> None:
    extended = form(0xFFFE, 2, 48000, 16) + struct.pack("<HHI", 22, 16, 3)
    extended += struct.pack("<H", 1) + bytes(14)
    odd = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    frame = read_wav(wav(extended, bytes(range(8)), between=odd))
    assert (frame.num_channels, frame.samples_per_channel) == (2, 2)
    assert bytes(frame.data) == bytes(range(8))


@given(st.binary(max_size=200), st.integers(0, 60))
def test_any_bytes_are_a_frame_or_a_clear_error(noise: bytes, at: int) -> None:
    good = wav(form(1, 1, 8000, 16), bytes(20))
    with suppress(WavError):
        assert read_wav(good[:at] + noise).samples_per_channel > 0


@pytest.mark.parametrize("length", [1, 2399, 2400, 2401, 10_000])
def test_pieces_are_the_whole(length: int) -> None:
    frame = AudioFrame(bytes(range(256)) * (4 * length // 256 + 1), 24000, 2, length)
    cut = pieces(frame)
    assert sum(piece.samples_per_channel for piece in cut) == length
    assert b"".join(bytes(piece.data) for piece in cut) == bytes(frame.data)[: 4 * length]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    frame = AudioFrame(bytes(range(200)), 24000, 1, 100)
    with WavWriter(tmp_path / "x.wav") as writer:
        writer.write(frame)
        writer.write(frame)
    assert bytes(read_wav((tmp_path / "x.wav").read_bytes()).data) == bytes(range(200)) * 2
    with wave.open(io.BytesIO((tmp_path / "x.wav").read_bytes())) as sound:
        assert sound.getnframes() == 200


def ms(count: int) -> AudioFrame:
    return AudioFrame(bytes([1]) * (48 * count), 24000, 1, 24 * count)


async def test_the_speaker_is_given_silence_where_there_is_no_sound() -> None:
    playback = Playback(24000)
    playback.feed("a", ms(10))
    assert playback.take(480) == bytes([1]) * 480
    assert playback.take(48) == bytes(48)


async def test_what_was_heard_of_each_message_is_known() -> None:
    playback = Playback(24000, latency=0.02)
    for message in ("a", "b", "b", "c"):
        playback.feed(message, ms(100))
    playback.take(48 * 250)
    assert playback.cut() == [("b", 130), ("c", 0)]
    assert playback.cut() == []
    assert playback.take(48) == bytes(48)


async def test_the_end_of_the_sound_is_waited_for() -> None:
    playback = Playback(24000)
    await playback.drained()
    playback.feed("a", ms(100))
    waiting = asyncio.ensure_future(playback.drained())
    await asyncio.to_thread(playback.take, 48 * 60)
    await asyncio.sleep(0)
    assert not waiting.done()
    await asyncio.to_thread(playback.take, 48 * 60)
    await asyncio.wait_for(waiting, 5)
