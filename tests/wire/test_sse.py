from __future__ import annotations

import functools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.errors import WireError
from rejoinder.testing.chunking import byte_by_byte, every_cut, outcome, random_cuts
from rejoinder.wire.sse import SSEDecoder


def events(*pieces: bytes) -> list[object]:
    result = outcome(SSEDecoder, pieces)
    assert result.error is None
    return result.results


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_line_ends(end: bytes) -> None:
    body = b"event: greeting\ndata: hi\n\ndata: there\n\n".replace(b"\n", end)
    expected = [("greeting", b"hi"), (None, b"there")]
    for pieces in every_cut(body):
        assert events(*pieces) == expected


def test_line_ends_may_be_mixed() -> None:
    assert events(b"data: a\r\n\ndata: b\r\rdata: c\n\r\n") == [
        (None, b"a"),
        (None, b"b"),
        (None, b"c"),
    ]


def test_a_crlf_cut_in_two_is_one_line_end() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a\r") == []
    assert decoder.feed(b"\ndata: b\r") == []
    assert decoder.feed(b"\n\r") == [(None, b"a\nb")]
    assert decoder.feed(b"\ndata: c\n\n") == [(None, b"c")]


def test_several_data_lines_are_joined() -> None:
    assert events(b"data: one\ndata:two\ndata:  three\ndata\n\n") == [(None, b"one\ntwo\n three\n")]


def test_only_one_space_after_the_colon_is_dropped() -> None:
    assert events(b"data:x\n\ndata:  y\n\n") == [(None, b"x"), (None, b" y")]


def test_comments_ids_and_retries_carry_nothing() -> None:
    body = b": ping\n\nid: 7\nretry: 100\n\n:\n\ndata: x\n: in between\nid\n\n"
    assert events(body) == [(None, b"x")]


def test_the_name_holds_for_one_event_only() -> None:
    assert events(b"event: a\nevent: b\ndata: 1\n\ndata: 2\n\n") == [("b", b"1"), (None, b"2")]


def test_a_name_without_data_is_counted_and_not_an_event() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"event: lonely\n\ndata: x\n\n") == [(None, b"x")]
    assert decoder.skipped == 1


def test_empty_data_is_an_event() -> None:
    assert events(b"data:\n\ndata\n\n") == [(None, b""), (None, b"")]


def test_a_byte_order_mark_at_the_start_is_dropped() -> None:
    body = b"\xef\xbb\xbfdata: x\n\ndata: \xef\xbb\xbfy\n\n"
    for pieces in every_cut(body):
        assert events(*pieces) == [(None, b"x"), (None, b"\xef\xbb\xbfy")]


def test_part_of_a_byte_order_mark_is_not_lost() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"\xef\xbb") == []
    assert decoder.close() == []
    assert decoder.stray == b"\xef\xbb\n"


def test_the_last_event_may_lack_its_empty_line() -> None:
    assert events(b"data: a\n\ndata: b") == [(None, b"a"), (None, b"b")]
    assert events(b"data: a\n\nevent: e\ndata: b\n") == [(None, b"a"), ("e", b"b")]


def test_what_is_no_event_stream_can_be_quoted() -> None:
    body = b'{\n  "error": {"message": "no"}\n}'
    for pieces in every_cut(body):
        decoder = SSEDecoder()
        for piece in pieces:
            assert decoder.feed(piece) == []
        assert decoder.close() == []
        assert decoder.stray == body + b"\n"


@pytest.mark.parametrize(
    ("before", "body", "expected"),
    [
        (b"data: 0\n\n", b"data: a\rdata: b\n\n", (None, b"a\nb")),
        (b"data: 0\n\r", b"\ndata: a\n\n", (None, b"a")),
        (b"data: 0\n\nevent: e\n", b"data: a\n\n", ("e", b"a")),
        (b"data: 0\n\nda", b"ta: a\n\n", (None, b"a")),
        (b"data: 0\n\ndata: a\n", b"data: b\n\n", (None, b"a\nb")),
    ],
)
def test_the_short_cut_is_taken_only_between_events(
    before: bytes, body: bytes, expected: tuple[str | None, bytes]
) -> None:
    decoder = SSEDecoder()
    assert decoder.feed(before) == [(None, b"0")]
    assert decoder.feed(body) == [expected]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("space", [b"", b" ", b"  "])
@pytest.mark.parametrize("data", [b"x", b"", b"a\rb", b"a\nb", b"a\r\nb"])
@pytest.mark.parametrize("name", [b"", b"event: n", b"event:n", b"id: 1"])
def test_one_event_a_read(end: bytes, space: bytes, data: bytes, name: bytes) -> None:
    body = (name + end if name else b"") + b"data:" + space + data + end * 2
    assert events(b"data: 0\n\n", body, body) == [(None, b"0"), *plain(body), *plain(body)]


def test_the_short_cut_knows_the_limits() -> None:
    decoder = SSEDecoder(max_line=10)
    assert decoder.feed(b"data: 0\n\n") == [(None, b"0")]
    assert decoder.feed(b"data: 12345\n\n") == []
    with pytest.raises(WireError):
        decoder.feed(b"")


def test_comments_are_not_quoted() -> None:
    decoder = SSEDecoder()
    decoder.feed(b": ping\n:\n\nid: 1\nretry\nevent\n\n")
    assert decoder.stray == b""


def test_the_quote_is_bounded() -> None:
    decoder = SSEDecoder()
    for _ in range(100):
        decoder.feed(b"x" * 10_000 + b"\n")
    assert 1 << 16 <= len(decoder.stray) <= (1 << 16) + 1


def test_a_line_that_is_too_long() -> None:
    body = b"data: 1\n\n" + b"data: " + b"x" * 20 + b"\n\ndata: 2\n\n"
    for pieces in every_cut(body):
        result = outcome(functools.partial(SSEDecoder, max_line=20), pieces)
        assert result.results == [(None, b"1")]
        assert result.error is not None
        assert result.error.startswith("WireError: a line of the event stream is longer than 20")


def test_an_event_that_is_too_long() -> None:
    body = b"data: 1\n\n" + b"data: 123\n" * 4 + b"\ndata: 2\n\n"
    fits = functools.partial(SSEDecoder, max_event=15)
    too_small = functools.partial(SSEDecoder, max_event=14)
    for pieces in every_cut(body):
        assert outcome(fits, pieces).results[1:] == [(None, b"123\n123\n123\n123"), (None, b"2")]
        result = outcome(too_small, pieces)
        assert result.results == [(None, b"1")]
        assert result.error is not None
        assert result.error.startswith("WireError: an event holds more than 14 bytes")


def test_limits_are_exact_at_every_cut() -> None:
    body = b"data: 12345678\n\n"
    for pieces in every_cut(body):
        assert outcome(functools.partial(SSEDecoder, max_line=14), pieces).error is None
        assert outcome(functools.partial(SSEDecoder, max_line=13), pieces).error is not None
        assert outcome(functools.partial(SSEDecoder, max_event=8), pieces).error is None
        assert outcome(functools.partial(SSEDecoder, max_event=7), pieces).error is not None


def test_events_before_an_error_are_returned_and_the_error_waits() -> None:
    decoder = SSEDecoder(max_line=10)
    assert decoder.feed(b"data: 1\n\n" + b"x" * 11) == [(None, b"1")]
    assert isinstance(decoder.failure, WireError)
    for _ in range(2):
        with pytest.raises(WireError):
            decoder.feed(b"data: 2\n\n")
        with pytest.raises(WireError):
            decoder.close()


def test_a_line_without_end_costs_no_more_than_its_limit() -> None:
    decoder = SSEDecoder(max_line=1 << 20)
    block = b"x" * (1 << 16)
    tracemalloc.start()
    try:
        for _ in range(17):
            assert decoder.failure is None
            assert decoder.feed(block) == []
        assert isinstance(decoder.failure, WireError)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_a_dripping_event_costs_linear_time() -> None:
    # Quadratic copying would move half a terabyte here and run into the time limit.
    body = b"data: " + b"x" * 1_000_000 + b"\n\n"
    decoder = SSEDecoder()
    found: list[object] = []
    for piece in byte_by_byte(body):
        found += decoder.feed(piece)
    assert found == [(None, b"x" * 1_000_000)]


def plain(body: bytes) -> list[tuple[str | None, bytes]]:
    """The standard's algorithm, line by line and without any cleverness."""
    if body.startswith(b"\xef\xbb\xbf"):
        body = body[3:]
    lines = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    found: list[tuple[str | None, bytes]] = []
    data: list[bytes] = []
    name: str | None = None
    # Ours ends the last line and event, where the standard drops them.
    for line in [*lines, b""]:
        if not line:
            if data:
                found.append((name, b"\n".join(data)))
            data, name = [], None
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
    return found


PIECES = st.sampled_from(
    [
        b"data: ", b"data", b":", b" ", b"event: ", b"id: 1", b"retry: 2", b"x", b"\xc3\xa9", b"\xff",
        b"\n", b"\r", b"\r\n", b"\n\n", b'{"a": 1}', b"[DONE]", b"\xef\xbb\xbf", b"\x00", b": note",
    ]
)  # fmt: skip
BODIES = st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=40).map(b"".join))


@given(body=BODIES)
def test_agrees_with_the_plain_algorithm(body: bytes) -> None:
    assert events(body) == plain(body)
    assert events(b"data: 0\n\n", body) == plain(b"data: 0\n\n" + body)


@given(body=BODIES, seed=st.integers(0, 1000), limit=st.sampled_from([1, 8, 30, 1 << 24]))
def test_any_bytes_any_cut(body: bytes, seed: int, limit: int) -> None:
    make = functools.partial(SSEDecoder, max_line=limit, max_event=limit)
    whole = outcome(make, [body])
    assert outcome(make, random_cuts(body, seed=seed)) == whole
    assert outcome(make, byte_by_byte(body)) == whole
    # A decoder between two events takes a short cut that a fresh one does not.
    begun = [b"data:\n\n"]
    assert outcome(make, [*begun, body]) == outcome(make, [begun[0] + body])
    assert outcome(make, [*begun, *random_cuts(body, seed=seed)]) == outcome(make, [*begun, body])
