"""Ways of cutting the same bytes, to prove that a decoder's result does not depend on the cuts.

`outcome` runs a decoder over pieces and returns its results and its error. They must be equal for
every cut::

    expected = outcome(SSEDecoder, [body])
    for pieces in every_cut(body):
        assert outcome(SSEDecoder, pieces) == expected
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from rejoinder._options import COUNT, checked
from rejoinder.errors import APIError
from rejoinder.wire.decoder import Decoder

__all__ = ["Outcome", "byte_by_byte", "every_cut", "outcome", "random_cuts", "sized_cuts"]

T = TypeVar("T")


class Outcome(NamedTuple):
    """A decoder's results, and the error that ended it, if any."""

    results: list[object]
    error: str | None
    """Class and text of the error."""


@checked()
def every_cut(data: bytes) -> Iterator[list[bytes]]:
    """The bytes whole, byte by byte, and cut in two at each place."""
    yield [data]
    yield byte_by_byte(data)
    for position in range(1, len(data)):
        yield [data[:position], data[position:]]


@checked()
def byte_by_byte(data: bytes) -> list[bytes]:
    """Each byte as a piece of its own."""
    return [data[index : index + 1] for index in range(len(data))]


@checked()
def sized_cuts(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    """Pieces of the given sizes, in order, then the rest."""
    pieces: list[bytes] = []
    position = 0
    for size in sizes:
        if position >= len(data):
            break
        pieces.append(data[position : position + size])
        position += size
    if position < len(data):
        pieces.append(data[position:])
    return pieces


@checked(pieces=COUNT)
def random_cuts(data: bytes, *, seed: int, pieces: int = 8) -> list[bytes]:
    """About `pieces` pieces, cut anywhere, even within a UTF-8 character. Equal for equal seeds."""
    source = random.Random(seed)  # noqa: S311  repeatable, not secret
    positions = sorted(source.randrange(len(data) + 1) for _ in range(pieces - 1))
    bounds = [0, *positions, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


def outcome(make: Callable[[], Decoder[T]], pieces: Iterable[bytes]) -> Outcome:
    """Feed `pieces` to a fresh decoder, close it, and return what came out.

    Only an `APIError` is an outcome; any other exception is a defect and is raised. After an error
    the decoder must refuse with the same one: that is checked here.
    """
    decoder = make()
    results: list[object] = []
    try:
        for piece in pieces:
            results.extend(decoder.feed(piece))
        results.extend(decoder.close())
    except APIError as error:
        for again in (lambda: decoder.feed(b""), decoder.close):
            try:
                again()
            except APIError as repeated:
                if repr(repeated) != repr(error):
                    raise AssertionError("a failed decoder raised a different error") from repeated
            else:
                raise AssertionError("a failed decoder accepted more") from error
        return Outcome(results, f"{type(error).__name__}: {error}")
    return Outcome(results, None)
