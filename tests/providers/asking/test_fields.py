"""Fields that several providers build the same way."""

from __future__ import annotations

from typing import Any

import pytest

from rejoinder.errors import ConfigurationError
from rejoinder.providers.asking.fields import build_url, tool_choice_name


def test_queries() -> None:
    assert build_url("http://x/y") == "http://x/y"
    assert build_url("http://x/y?a=1", query={"b": "c d&e"}) == "http://x/y?a=1&b=c%20d%26e"


@pytest.mark.parametrize("choice", [{}, {"type": "function"}, {"function": {"name": ""}}])
def test_choices_that_name_nothing(choice: Any) -> None:
    with pytest.raises(ConfigurationError, match="tool_choice"):
        tool_choice_name(choice)
