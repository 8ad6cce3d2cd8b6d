"""Every decoder: any bytes, any cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.rows import ROWS, Row
from rejoinder.errors import APIError
from rejoinder.providers.answering.decoder import State
from rejoinder.testing._dialects import DIALECTS, Call, Usage
from rejoinder.testing.chunking import byte_by_byte, sized_cuts

every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


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


@every_row
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


@every_row
@given(data=st.binary(max_size=400), cut=sizes)
def test_any_bytes_are_survived(row: Row, data: bytes, cut: list[int]) -> None:
    whole = run(row, [data])
    assert run(row, sized_cuts(data, cut)) == whole


@every_row
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


@every_row
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
