"""Fields that several providers build the same way."""

from __future__ import annotations

from typing import Any

import pytest

from rejoinder.errors import ConfigurationError
from rejoinder.providers.asking.fields import HttpExtras, build_url, path_part, tool_choice_name


def test_queries() -> None:
    assert build_url("http://x/y") == "http://x/y"
    assert build_url("http://x/y?a=1", query={"b": "c d&e"}) == "http://x/y?a=1&b=c%20d%26e"


def test_reasoning_in_portable_words_is_told_from_a_member_of_the_body() -> None:
    extras = HttpExtras({"reasoning": "low", "user": "u"})
    assert (extras.reasoning, extras.body) == ("low", {"user": "u"})
    assert HttpExtras({"reasoning": 2_000}).reasoning == 2_000
    for own in ({"effort": "low"}, True):
        extras = HttpExtras({"reasoning": own})
        assert (extras.reasoning, extras.body) == (None, {"reasoning": own})
    with pytest.raises(ConfigurationError, match=r"reasoning: expected .* got 'much'"):
        HttpExtras({"reasoning": "much"})


@pytest.mark.parametrize("choice", [{}, {"type": "function"}, {"function": {"name": ""}}])
def test_choices_that_name_nothing(choice: Any) -> None:
    with pytest.raises(ConfigurationError, match="tool_choice"):
        tool_choice_name(choice)


@pytest.mark.parametrize(
    ("text", "safe", "part"),
    [
        ("gpt-4.1", "", "gpt-4.1"),
        ("a/b", "", "a%2Fb"),
        ("../b", "", "..%2Fb"),
        ("a/b:c?d#e", "/", "a/b%3Ac%3Fd%23e"),
        ("%2e%2e", "/", "%252e%252e"),
        ("...", "/", "..."),
    ],
)
def test_names_in_addresses(text: str, safe: str, part: str) -> None:
    assert path_part("model", text, safe=safe) == part


@pytest.mark.parametrize(
    ("text", "safe"), [("..", ""), (".", ""), ("", ""), ("a/../b", "/"), ("a//b", "/"), ("/a", "/")]
)
def test_names_that_lead_elsewhere(text: str, safe: str) -> None:
    with pytest.raises(ConfigurationError, match=r"model: .* cannot be part of a URL"):
        path_part("model", text, safe=safe)


@pytest.mark.parametrize("option", ["extra_headers", "extra_query"])
def test_values_of_fields(option: str) -> None:
    extras = HttpExtras({option: {"a": "x", "b": 3, "c": None, "d": 0.5}})
    found = extras.headers if option == "extra_headers" else extras.query
    assert found == {"a": "x", "b": "3", "d": "0.5"}
    for wrong in (b"x", ["x"], {"x": 1}, object()):
        with pytest.raises(ConfigurationError, match=rf"{option}\['a'\]: expected a string, got"):
            HttpExtras({option: {"a": wrong}})
