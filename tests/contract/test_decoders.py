"""Every decoder: any bytes, any cut."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.hostile import GENERATORS, LARGE, frame, pieces
from contract.rows import ROWS, Row
from rejoinder.errors import APIError
from rejoinder.providers.answering.decoder import State
from rejoinder.testing._dialects import DIALECTS, Call, Usage
from rejoinder.testing.chunking import byte_by_byte, sized_cuts
from rejoinder.testing.leaks import measure_memory

# Some providers have the same decoder of the same format: one of them each.
DECODERS = list({(row.format, row.decoder): row for row in reversed(ROWS)}.values())
every_decoder = pytest.mark.parametrize("row", DECODERS, ids=lambda row: row.name)


def run(row: Row, pieces: list[bytes]) -> tuple[str, list[Any], Any, str | None]:
    """Text, calls, usage and error of a body in pieces. Texts are joined: where a stream of text
    is parted is not a promise."""
    decoder = row.decoder()
    text = ""
    calls: list[Any] = []
    usage: Any = None
    error: str | None = None

    def take(chunks: list[Any]) -> None:
        nonlocal text, usage
        for chunk in chunks:
            if chunk.delta is not None:
                text += chunk.delta.content or ""
                calls.extend((call.name, call.arguments) for call in chunk.delta.tool_calls)
            if chunk.usage is not None:
                usage = chunk.usage.model_dump()

    try:
        for piece in pieces:
            take(decoder.feed(piece))
            if decoder.state is State.ENDED:
                break
        take(decoder.close())
        if decoder.failure is not None:
            raise decoder.failure
    except APIError as caught:
        error = f"{type(caught).__name__}: {caught}"
        with pytest.raises(APIError):
            decoder.feed(b"x")
        with pytest.raises(APIError):
            decoder.close()
    return text, calls, usage, error


def body_of(row: Row, text: tuple[str, ...], calls: tuple[Call, ...]) -> bytes:
    """A proper answer, as the dialect of the row writes it."""
    dialect = DIALECTS[row.format]
    parts = dialect.render(text, calls, "", Usage())
    start, between, end = dialect.frame
    return start + between.join([*parts.opening, *parts.outputs, *parts.closing]) + end


texts = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5).map(tuple)
tool_calls = st.lists(
    st.builds(
        Call,
        name=st.sampled_from(["look_up", "book"]),
        arguments=st.sampled_from(["{}", '{"city":"Köln"}', '{"a":[1,2,{"b":null}]}']),
        call_id=st.sampled_from(["call_a", "call_b", "call_c"]),
    ),
    max_size=3,
    unique_by=lambda call: call.call_id,
).map(tuple)
sizes = st.lists(st.integers(1, 60), max_size=60)


@every_decoder
@given(text=texts, calls=tool_calls, cut=sizes)
def test_every_cut_says_the_same(
    row: Row, text: tuple[str, ...], calls: tuple[Call, ...], cut: list[int]
) -> None:
    body = body_of(row, text, calls)
    whole = run(row, [body])
    assert whole[0] == "".join(text)
    assert [name for name, _ in whole[1]] == [call.name for call in calls]
    assert whole[3] is None
    assert run(row, sized_cuts(body, cut)) == whole
    assert run(row, byte_by_byte(body)) == whole


@every_decoder
@given(data=st.binary(max_size=400), cut=sizes)
def test_any_bytes_are_survived(row: Row, data: bytes, cut: list[int]) -> None:
    whole = run(row, [data])
    assert run(row, sized_cuts(data, cut)) == whole


@every_decoder
@given(
    text=texts,
    calls=tool_calls,
    place=st.integers(0, 10_000),
    junk=st.binary(min_size=1, max_size=12),
    cut=sizes,
)
def test_damaged_answers_are_survived(
    row: Row,
    text: tuple[str, ...],
    calls: tuple[Call, ...],
    place: int,
    junk: bytes,
    cut: list[int],
) -> None:
    body = body_of(row, text, calls)
    place %= len(body)
    damaged = body[:place] + junk + body[place + len(junk) :]
    assert run(row, sized_cuts(damaged, cut)) == run(row, [damaged])


@every_decoder
@given(text=texts, place=st.integers(1, 10_000))
def test_a_cut_answer_is_never_taken_as_whole(row: Row, text: tuple[str, ...], place: int) -> None:
    """Up to the end of its text: what follows is only the usage."""
    dialect = DIALECTS[row.format]
    parts = dialect.render(text, (), "", Usage())
    start, between, _ = dialect.frame
    body = start + between.join([*parts.opening, *parts.outputs])
    said, _, _, error = run(row, [body[: place % len(body)]])
    assert error is not None
    assert "".join(text).startswith(said)


# -- bounds ----------------------------------------------------------------------------------------

SHORT = 200_000

every_generator = pytest.mark.parametrize("generator", GENERATORS)


def feed(row: Row, body: bytes) -> Any:
    decoder = row.decoder()
    try:
        for piece in pieces(body):
            decoder.feed(piece)
        decoder.close()
    except APIError:
        pass
    return decoder


def peak(row: Row, generator: str, size: int) -> int:
    """Bytes that decoding a body of `size` bytes takes at the worst moment."""
    body = GENERATORS[generator](row, size)
    with measure_memory() as memory:
        feed(row, body)
    return memory.peak


@every_decoder
@every_generator
def test_memory_is_bounded_for_any_short_body(row: Row, generator: str) -> None:
    """At most 32 bytes for each byte of the body, which is 64 MiB for 2 MB. What many small events
    leave behind does not grow faster than their number, so a short body shows it."""
    many = peak(row, generator, SHORT)
    assert many < 32 * SHORT
    if generator not in LARGE:
        assert many < 6 * peak(row, generator, SHORT // 4) + 100_000


# The body is one event, or a few large ones, which are held as a whole until a bound applies.
LONG = [name for name in GENERATORS if name in LARGE or name == "long texts"]


@pytest.mark.slow
@every_decoder
@pytest.mark.parametrize("generator", LONG)
def test_memory_is_bounded_for_any_large_event(row: Row, generator: str) -> None:
    """At most 64 MiB for any one reply."""
    assert peak(row, generator, 8_000_000) < 64 << 20


def lines(row: Row, body: bytes) -> int:
    """Lines of Python that decoding executes: what work is, and no clock of a busy machine."""
    count = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        if "rejoinder" not in frame.f_code.co_filename:
            return None
        if event == "line":
            count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        feed(row, body)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.slow
@every_decoder
@every_generator
def test_work_is_linear_in_what_arrives(row: Row, generator: str) -> None:
    few, many = (lines(row, GENERATORS[generator](row, size)) for size in (20_000, 80_000))
    assert many < 6 * few + 2_000


@every_decoder
@given(text=texts, calls=tool_calls)
def test_unknown_events_are_skipped_and_counted(
    row: Row, text: tuple[str, ...], calls: tuple[Call, ...]
) -> None:
    dialect = DIALECTS[row.format]
    parts = dialect.render(text, calls, "", Usage())
    start, between, end = dialect.frame
    events = [*parts.opening, *parts.outputs, *parts.closing]
    unknown = frame(row, b'{"type":"brand.new","brand":{"new":[1]}}', "brandNew")
    if between:  # the events are elements of an array
        unknown = b'{"brand":{"new":[1]}}'
    mixed = [piece for event in events for piece in (event, unknown)][:-1]
    body = start + between.join(mixed) + end
    assert run(row, [body])[:2] == run(row, [start + between.join(events) + end])[:2]
    assert run(row, [body])[3] is None


@every_decoder
def test_what_was_counted_is_known_of_a_cut_reply(row: Row) -> None:
    """At every event the usage so far is a value; where the reply is whole, it is all of it."""
    dialect = DIALECTS[row.format]
    usage = Usage()
    parts = dialect.render(("one ", "two"), (), "", usage)
    start, between, end = dialect.frame
    decoder = row.decoder()
    decoder.feed(start)
    for event in [*parts.opening, *parts.outputs, *parts.closing]:
        decoder.feed(event + between)
        counted = decoder.usage_so_far
        assert counted is None or counted.total_tokens >= 0
    decoder.feed(end)
    assert decoder.usage_so_far is not None
    assert decoder.usage_so_far.completion_tokens > 0


@every_decoder
def test_the_state_is_declared(row: Row) -> None:
    decoder = row.decoder()
    assert decoder.state is State.OPENING
    assert (decoder.finish_reason, decoder.failure) == (None, None)
    assert (decoder.output_count, decoder.skipped) == (0, 0)
    body = body_of(row, ("one",), ())
    decoder.feed(body)
    decoder.close()
    assert decoder.state is State.ENDED
    assert decoder.finish_reason
    assert decoder.output_count > 0
