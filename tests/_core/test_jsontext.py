"""JSON is read tolerantly and written strictly."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core import jsontext


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a":1}', {"a": 1}),
        ('{"a":1}', {"a": 1}),
        (b' {"a":1} \n', {"a": 1}),
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
        (b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        (b'{"a":"\\ud83d"}', {"a": "\ud83d"}),
        (b'{"a":"x\ty"}', {"a": "x\ty"}),
        (b'{"a":"\xff"}', {"a": "\ufffd"}),
        (b"[1e400]", [math.inf]),
        (b"[-Infinity]", [-math.inf]),
    ],
    ids=repr,
)
def test_reading(data: Any, value: Any) -> None:
    assert jsontext.decode(data) == value


def test_nan_is_read() -> None:
    assert math.isnan(jsontext.decode(b"[NaN]")[0])


@pytest.mark.parametrize("data", [b"", b"{", b"nope", b'{"a":}', "", b"[" * 100_000], ids=len)
def test_what_is_not_json(data: Any) -> None:
    with pytest.raises(ValueError):
        jsontext.decode(data)


def test_writing() -> None:
    assert jsontext.encode({"a": math.nan, "b": "ü"}) == '{"a":null,"b":"ü"}'.encode()
    assert json.loads(jsontext.encode({"\ud83d": ["a\ud83d", ("\ud83d\ude00",)]})) == {
        "\ufffd": ["a\ufffd", ["\U0001f600"]]
    }
    with pytest.raises(TypeError):
        jsontext.encode(object())


def test_healing() -> None:
    assert jsontext.heal("plain") == "plain"
    assert jsontext.heal("grün 👋") == "grün 👋"
    assert jsontext.heal("\ud83d\ude00 \ud83d") == "\U0001f600 \ufffd"


@given(st.text(st.characters(), max_size=30))
def test_healed_text_can_be_sent(text: str) -> None:
    healed = jsontext.heal(text)
    healed.encode()
    assert jsontext.heal(healed) == healed


@given(st.binary(max_size=60))
def test_bytes_are_json_or_a_value_error(data: bytes) -> None:
    try:
        jsontext.decode(data)
    except ValueError:
        pass
