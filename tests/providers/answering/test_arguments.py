"""Arguments of a call in every way that servers send them, and the work that it takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.providers.answering import arguments
from rejoinder.providers.answering.arguments import Arguments, canonical, extends, is_object

WHOLE = '{"city": "Paris", "n": [1, {"a": "}"}]}'


def made(*pieces: str) -> Arguments:
    found = Arguments()
    for piece in pieces:
        found.add(piece)
    return found


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (('{"a"', ":1}"), '{"a":1}'),
        (("{}",), "{}"),
        (("{}", '{"a"', ":1}"), '{"a":1}'),
        (("{}", "{}", '{"a":1}'), '{"a":1}'),
        (("{} ", "\n", '{"a":1}'), '{"a":1}'),
        (('{"a', '{"a": "P', '{"a": "Paris"}'), '{"a": "Paris"}'),
        (("", '{"a', '{"a":1}'), '{"a":1}'),
        (('{"a"', ":1}", '{"a":1}'), '{"a":1}'),
        (('{"a":1}', '{"a":1}'), '{"a":1}'),
        (('{"a":1}', '{"a":1}', '{"a":1}'), '{"a":1}'),
        (("null", '{"a"', ":1}"), '{"a":1}'),
        (('""', '{"a":1}'), '{"a":1}'),
        (("null", "{}", ' {"a":1}'), '{"a":1}'),
        (('"{\\"a\\":1}"',), '"{\\"a\\":1}"'),
        (("null",), "null"),
        (("[1]",), None),
        (('{"a":1}', '{"b":2}'), None),
        (('{"a":1', ' "b"'), None),
        (('{"a": "{}', '{}"}'), '{"a": "{}{}"}'),
        ((), None),
    ],
    ids=repr,
)
def test_deltas_snapshots_repeats_and_placeholders(
    pieces: tuple[str, ...], text: str | None
) -> None:
    found = made(*pieces)
    assert found.text() == ("".join(pieces) if text is None else text)
    if text not in (None, "null"):  # a bare word has no bracket that tells its end
        assert found.whole() == text


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (("{}", '{"a":"x"}', '{"a":"xy"}', '{"a":"xy","b":[1]}'), '{"a":"xy","b":[1]}'),
        (('{"a":{"b":1}}', '{"a":{"b":1,"c":2}}'), '{"a":{"b":1,"c":2}}'),
        (("null", '{"a":[1]}', '{"a":[1,2]}'), '{"a":[1,2]}'),
        (('{"a":"xy"}', '{"a":"x"}'), '{"a":"xy"}{"a":"x"}'),
        (('{"a":1}', '{"a":1} x'), '{"a":1}{"a":1} x'),
    ],
    ids=repr,
)
def test_objects_that_grow_are_known_at_the_end(pieces: tuple[str, ...], text: str) -> None:
    """Decoded objects, each grown out of the one before: the last one may not be the last."""
    assert made(*pieces).text() == text


def test_whole_is_known_at_the_piece_that_ends_the_object() -> None:
    found = Arguments()
    for size, piece in enumerate(WHOLE, 1):
        assert found.whole() is None
        found.add(piece)
        assert bool(found.whole()) is (size == len(WHOLE))
    found.add(" \n")
    assert found.whole() == WHOLE + " \n"
    found.add("x")
    assert found.whole() is None


@pytest.mark.parametrize(
    ("before", "piece", "is_output"),
    [
        ("", "\n", False),
        ('{"a":', " \n\t ", False),
        ('{"a": "b', " ", True),
        ('{"a": "b\\"', " ", True),
        ('{"a": "b"', " ", False),
        ('{"a": "b', "x", True),
        ('{"a"', "", False),
    ],
    ids=repr,
)
def test_white_space_between_tokens_is_no_output(before: str, piece: str, is_output: bool) -> None:
    assert made(before).add(piece) is is_output


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        ('{"a":1}', "{}", True),
        ('{"a":"Paris","b":1}', '{"a":"Pa"}', True),
        ('{"a":[1,{"b":"xy"}]}', '{"a":[1,{"b":"x"}]}', True),
        ('{"a":2}', '{"a":1}', False),
        ("{}", '{"a":1}', False),
        ('{"a":[1]}', '{"a":[1,2]}', False),
        ("{", "{}", False),
    ],
    ids=repr,
)
def test_a_later_snapshot_holds_all_of_the_earlier(new: str, old: str, expected: bool) -> None:
    assert extends(new, old) is expected


def test_spellings_of_the_same_arguments() -> None:
    assert canonical('{"b":1, "a":2}') == canonical('{ "a": 2, "b": 1 }')
    assert canonical(" ") == canonical("{}")
    assert canonical("{") != canonical("{}")


objects = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=6),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=6,
    ),
    max_size=4,
)


@given(objects, st.lists(st.integers(1, 6), min_size=1), st.booleans(), st.booleans())
def test_any_object_in_any_pieces(
    value: dict[str, Any], sizes: list[int], opens: bool, repeats: bool
) -> None:
    text = json.dumps(value)
    pieces = ["{}"] if opens else []
    at = number = 0
    while at < len(text):
        size = sizes[number % len(sizes)]
        pieces.append(text[at : at + size])
        at, number = at + size, number + 1
    if repeats and not opens:
        pieces.append(text)
    found = made(*pieces)
    assert json.loads(found.text()) == value
    assert is_object(found.text())


@given(objects, st.integers(1, 5))
def test_any_object_in_growing_snapshots(value: dict[str, Any], step: int) -> None:
    text = json.dumps(value)
    pieces = [text[:size] for size in range(step, len(text), step)] + [text]
    assert json.loads(made(*pieces).text()) == value


def test_the_work_is_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a text is whole is asked at each piece that repeats its name: to read the text each
    time took 44 s for 134 KB."""
    parsed = 0

    def counting(text: str) -> bool:
        nonlocal parsed
        parsed += len(text)
        return is_object(text)

    monkeypatch.setattr(arguments, "is_object", counting)
    found = Arguments()
    pieces = ["{", *(f'"a{number}":{{"b":[1,2,3]}},' for number in range(3000)), '"z":1}']
    for piece in pieces:
        found.add(piece)
        found.whole()
    assert found.whole() is not None
    assert parsed <= 2 * len("".join(pieces))
