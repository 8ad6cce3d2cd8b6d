"""Sound at another rate: the same tone, the same length, and nothing that was not there."""

from __future__ import annotations

import math
from array import array

import pytest

from rejoinder._core.realtime.resampling import Resampler, mono


def tone(rate: int, hertz: float, seconds: float = 0.5) -> array[int]:
    return array(
        "h",
        (
            round(8000 * math.sin(2 * math.pi * hertz * n / rate))
            for n in range(int(rate * seconds))
        ),
    )


def strength(samples: array[int], rate: int, hertz: float) -> float:
    """How much of this tone is in the middle of `samples`; 8000 for all of it."""
    middle = samples[len(samples) // 4 : 3 * len(samples) // 4]
    real = sum(s * math.cos(2 * math.pi * hertz * n / rate) for n, s in enumerate(middle))
    imaginary = sum(s * math.sin(2 * math.pi * hertz * n / rate) for n, s in enumerate(middle))
    return 2 * math.hypot(real, imaginary) / len(middle)


def converted(samples: array[int], source: int, target: int, piece: int = 1 << 20) -> array[int]:
    resampler = Resampler(source, target)
    found = array("h")
    for start in range(0, len(samples), piece):
        found.frombytes(resampler.feed(samples[start : start + piece]))
    return found


@pytest.mark.parametrize("target", [16_000, 24_000])
@pytest.mark.parametrize("source", [8000, 16_000, 22_050, 24_000, 44_100, 48_000])
def test_a_tone_stays_what_it_is(source: int, target: int) -> None:
    found = converted(tone(source, 440.0), source, target)
    assert abs(len(found) - target // 2) < 40
    assert 7900 < strength(found, target, 440.0) < 8100
    assert max(abs(s) for s in found) < 8200


@pytest.mark.parametrize("hertz", [9000.0, 11_000.0, 20_000.0])
def test_what_the_lower_rate_cannot_hold_is_gone(hertz: float) -> None:
    found = converted(tone(48_000, hertz), 48_000, 16_000)
    middle = found[1000:-1000]
    assert max(abs(s) for s in middle) < 80  # 40 dB down


@pytest.mark.parametrize("piece", [1, 7, 160, 4801])
def test_where_pieces_end_does_not_matter(piece: int) -> None:
    samples = tone(24_000, 300.0, 0.1)
    assert converted(samples, 24_000, 16_000, piece) == converted(samples, 24_000, 16_000)


def test_the_loudest_sound_does_not_wrap_around() -> None:
    square = array("h", ([32767] * 40 + [-32768] * 40) * 50)
    found = converted(square, 48_000, 16_000)
    for index in range(30, len(found) - 30):
        near = square[max(0, index * 3 - 3) : index * 3 + 4]
        if min(near) == max(near) == 32767:
            assert found[index] > 20_000


def test_channels_become_one() -> None:
    assert list(mono(array("h", [100, 300, -5, -7]), 2)) == [200, -6]
    assert list(mono(array("h", [1, 2]), 1)) == [1, 2]
    assert list(mono(array("h", [3, 6, 9]), 3)) == [6]
