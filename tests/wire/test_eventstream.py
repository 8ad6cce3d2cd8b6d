from __future__ import annotations

import base64
import functools
import json
import struct
import uuid
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.errors import WireError
from rejoinder.testing.chunking import byte_by_byte, every_cut, outcome, random_cuts
from rejoinder.wire.eventstream import EventStreamDecoder, HeaderValue, Message, encode_message

EVENT = {
    ":event-type": "contentBlockDelta",
    ":content-type": "application/json",
    ":message-type": "event",
}
BODY = (
    encode_message(EVENT, b'{"a":1}')
    + encode_message(EVENT, b"")
    + encode_message(
        {":message-type": "exception", ":exception-type": "throttlingException"}, b"{}"
    )
)


def messages(data: bytes) -> list[Any]:
    result = outcome(EventStreamDecoder, [data])
    assert result.error is None, result.error
    return result.results


def frame(headers: bytes, payload: bytes = b"") -> bytes:
    """A frame with right checksums, whatever its headers are."""
    lengths = struct.pack("!II", len(headers) + len(payload) + 16, len(headers))
    data = lengths + struct.pack("!I", crc32(lengths)) + headers + payload
    return data + struct.pack("!I", crc32(data))


def test_messages_at_every_cut() -> None:
    for pieces in every_cut(BODY):
        result = outcome(EventStreamDecoder, pieces)
        assert result.error is None
        assert result.results == [
            Message("event", "contentBlockDelta", b'{"a":1}', EVENT),
            Message("event", "contentBlockDelta", b"", EVENT),
            Message(
                "exception",
                "throttlingException",
                b"{}",
                {":message-type": "exception", ":exception-type": "throttlingException"},
            ),
        ]


def test_an_error_frame() -> None:
    data = encode_message(
        {":message-type": "error", ":error-code": "InternalError", ":error-message": "oops"}, b""
    )
    (message,) = messages(data)
    assert (message.kind, message.name) == ("error", "InternalError")
    assert message.headers[":error-message"] == "oops"


def test_every_type_of_header() -> None:
    block = (
        b"\x01a\x00"
        b"\x01b\x01"
        b"\x01c\x02\xff"
        b"\x01d\x03\x80\x00"
        b"\x01e\x04\x7f\xff\xff\xff"
        b"\x01f\x05\x80\x00\x00\x00\x00\x00\x00\x00"
        b"\x01g\x06\x00\x02\xff\x00"
        b"\x01h\x07\x00\x03\xe2\x82\xac"
        b"\x01i\x08\x00\x00\x01\x8c\xc2Q\xf4\x00"
        b"\x01j\x09" + bytes(range(16))
    )
    (message,) = messages(frame(block, b"payload"))
    expected = {
        "a": True,
        "b": False,
        "c": -1,
        "d": -32768,
        "e": 2147483647,
        "f": -(2**63),
        "g": b"\xff\x00",
        "h": "€",
        "i": 1704067200000,
        "j": uuid.UUID(bytes=bytes(range(16))),
    }
    assert dict(message.headers) == expected
    assert [type(value) for value in message.headers.values()] == [
        type(value) for value in expected.values()
    ]
    assert message.payload == b"payload"
    assert (message.kind, message.name) == ("", "")


def test_headers_cannot_be_changed_by_one_reader_for_the_next() -> None:
    first, second, _ = messages(BODY)
    assert first.headers is second.headers
    with pytest.raises(TypeError):
        first.headers["x"] = "y"


@pytest.mark.parametrize(
    ("block", "says"),
    [
        (b"\x01", "cannot be read"),
        (b"\x05ab", "cannot be read"),
        (b"\x01a", "cannot be read"),
        (b"\x01a\x07\x00\x05abc", "cut short"),
        (b"\x01a\x07\x00", "cannot be read"),
        (b"\x01a\x05\x00", "cannot be read"),
        (b"\x01a\x09\x00", "cannot be read"),
        (b"\x01a\x07\x00\x01\xff", "cannot be read"),
        (b"\x02\xff\xfe\x00", "cannot be read"),
        (b"\x01a\x0a", "unknown type 10"),
    ],
)
def test_broken_headers(block: bytes, says: str) -> None:
    result = outcome(EventStreamDecoder, [BODY + frame(block)])
    assert len(result.results) == 3
    assert result.error is not None
    assert result.error.startswith("WireError: ")
    assert says in result.error


def test_each_flipped_bit_is_noticed() -> None:
    one = encode_message(EVENT, b'{"a":1}')
    for position in range(len(one)):
        for bit in range(8):
            broken = bytearray(one)
            broken[position] ^= 1 << bit
            result = outcome(EventStreamDecoder, [bytes(broken)])
            assert result.results == []
            assert result.error is not None
            assert result.error.startswith("WireError: ")


def test_a_broken_prelude_is_noticed_before_the_frame_is_awaited() -> None:
    broken = bytearray(encode_message(EVENT, b"x" * 100)[:12])
    broken[2] ^= 1  # 256 bytes more than there will ever be
    decoder = EventStreamDecoder()
    assert decoder.feed(bytes(broken)) == []
    assert isinstance(decoder.failure, WireError)
    assert "checksum of a frame's prelude" in str(decoder.failure)


@pytest.mark.parametrize("length", [0, 15, 2**31, 2**32 - 1])
def test_lengths_are_checked_before_they_are_believed(length: int) -> None:
    lengths = struct.pack("!II", length, 0)
    prelude = lengths + struct.pack("!I", crc32(lengths))
    decoder = EventStreamDecoder(max_message=1 << 20)
    assert decoder.feed(prelude) == []
    assert isinstance(decoder.failure, WireError)


def test_headers_longer_than_their_frame() -> None:
    lengths = struct.pack("!II", 20, 5)
    decoder = EventStreamDecoder()
    decoder.feed(lengths + struct.pack("!I", crc32(lengths)))
    with pytest.raises(WireError, match="claims 5 of headers"):
        decoder.close()


def test_the_limit_of_a_frame_is_exact() -> None:
    one = encode_message({}, b"12345678")
    for pieces in every_cut(one):
        fits = outcome(functools.partial(EventStreamDecoder, max_message=24), pieces)
        assert fits.error is None
        large = outcome(functools.partial(EventStreamDecoder, max_message=23), pieces)
        assert large.results == []
        assert large.error is not None


def test_a_stream_that_is_cut_short() -> None:
    whole = len(encode_message(EVENT, b'{"a":1}'))
    for size in range(1, whole):
        result = outcome(EventStreamDecoder, [BODY[:size]])
        assert result.error == (
            f"WireError: the event stream was cut short: {size} bytes of an unfinished frame"
        )


def test_many_different_headers_do_not_fill_the_memory() -> None:
    decoder = EventStreamDecoder()
    for number in range(5000):
        decoder.feed(encode_message({"n": str(number)}, b""))
    assert len(decoder._known) <= 32


HEADERS = st.dictionaries(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    st.one_of(
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.binary(max_size=50),
        st.text(st.characters(codec="utf-8"), max_size=50),
        st.uuids(),
    ),
    max_size=5,
)


@given(headers=HEADERS, payload=st.binary(max_size=100))
def test_what_is_encoded_comes_back(headers: dict[str, HeaderValue], payload: bytes) -> None:
    (message,) = messages(encode_message(headers, payload))
    assert dict(message.headers) == headers
    assert message.payload == payload


@given(headers=HEADERS, payload=st.binary(max_size=100))
def test_botocore_reads_what_is_encoded(headers: dict[str, Any], payload: bytes) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(encode_message(headers, payload))
    message = buffer.next()
    assert message.payload == payload
    ours = {k: v.bytes if isinstance(v, uuid.UUID) else v for k, v in headers.items()}
    assert message.headers == ours


@pytest.mark.parametrize("headers", [{"": "x"}, {"n" * 256: "x"}, {"a": 2**63}, {"a": "x" * 32768}])
def test_what_cannot_be_encoded(headers: dict[str, HeaderValue]) -> None:
    with pytest.raises(ValueError, match="event stream header"):
        encode_message(headers, b"")


def test_headers_that_are_too_large_together() -> None:
    with pytest.raises(ValueError, match="at most 131072 fit"):
        encode_message({f"n{i}": "x" * 30_000 for i in range(5)}, b"")


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Frames, some of them broken, with garbage in between or not."""
    data = b"".join(
        draw(
            st.lists(
                st.one_of(
                    st.just(BODY),
                    st.binary(max_size=30).map(frame),
                    st.builds(frame, st.just(b"\x01a\x00"), st.binary(max_size=30)),
                    st.binary(max_size=30),
                ),
                max_size=5,
            )
        )
    )
    return data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data


@given(data=streams(), seed=st.integers(0, 1000), limit=st.sampled_from([20, 150, 1 << 24]))
def test_any_bytes_any_cut(data: bytes, seed: int, limit: int) -> None:
    make = functools.partial(EventStreamDecoder, max_message=limit)
    whole = outcome(make, [data])
    assert outcome(make, random_cuts(data, seed=seed)) == whole
    assert outcome(make, byte_by_byte(data)) == whole


def test_recorded_streams_read_as_botocore_reads_them(recordings: Path) -> None:
    count = 0
    for path in sorted(recordings.glob("recorded/*/*/*.json")):
        response = json.loads(path.read_text("utf-8")).get("response") or {}
        if not response.get("body_b64"):
            continue
        data = base64.b64decode(response["body_b64"])
        buffer = EventStreamBuffer()
        buffer.add_data(data)
        expected = [(message.headers, message.payload) for message in buffer]
        result = outcome(EventStreamDecoder, random_cuts(data, seed=count, pieces=20))
        assert [(dict(m.headers), m.payload) for m in result.results] == expected, path.name
        count += 1
    assert count > 50
