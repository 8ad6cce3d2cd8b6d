from __future__ import annotations

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.errors import WireError
from rejoinder.testing.chunking import byte_by_byte, every_cut, outcome, random_cuts
from rejoinder.wire.lines import LineDecoder


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_at_every_cut(end: bytes) -> None:
    body = '{"a": 1}\n\n  {"b": "é👋"} \n{"c": 3}'.encode().replace(b"\n", end)
    expected = [b'{"a": 1}', '{"b": "é👋"}'.encode(), b'{"c": 3}']
    for pieces in every_cut(body):
        assert outcome(LineDecoder, pieces).results == expected


def test_a_byte_order_mark_is_dropped() -> None:
    for pieces in every_cut(b"\xef\xbb\xbf{}\n"):
        assert outcome(LineDecoder, pieces).results == [b"{}"]


def test_a_line_that_is_too_long() -> None:
    make = functools.partial(LineDecoder, max_line=5)
    for pieces in every_cut(b"12345\n123456\n1\n"):
        result = outcome(make, pieces)
        assert result.results == [b"12345"]
        assert result.error is not None
        assert result.error.startswith("WireError: a line is longer than 5 bytes")


def test_the_error_stays() -> None:
    decoder = LineDecoder(max_line=1)
    assert decoder.feed(b"xx") == []
    with pytest.raises(WireError):
        decoder.feed(b"\n")
    with pytest.raises(WireError):
        decoder.close()


BODIES = st.one_of(
    st.binary(max_size=100),
    st.lists(
        st.sampled_from([b"\n", b"\r", b"\r\n", b" ", b"\t", b"{}", b"\xc3\xa9", b"\xef\xbb\xbf"])
    ).map(b"".join),
)


@given(body=BODIES, seed=st.integers(0, 1000), limit=st.sampled_from([1, 6, 1 << 20]))
def test_any_bytes_any_cut(body: bytes, seed: int, limit: int) -> None:
    make = functools.partial(LineDecoder, max_line=limit)
    whole = outcome(make, [body])
    assert outcome(make, random_cuts(body, seed=seed)) == whole
    assert outcome(make, byte_by_byte(body)) == whole
