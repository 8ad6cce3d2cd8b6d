"""Checks of options, and options from the environment, shared by the shells of several providers.

Only functions and small values: a provider combines them and does not inherit from them.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

from rejoinder._options import (
    ANYTHING,
    CONNECT,
    COUNT,
    FLAG,
    FUNCTION,
    NAME,
    NUMBER,
    STRING,
    WHOLE,
    Rule,
    checked,
    instance,
    mapping,
)
from rejoinder._secrets import redacted_url
from rejoinder._sections import explained
from rejoinder.errors import ConfigurationError
from rejoinder.llm._option_rules import CHAT_CTX, TOOL_CHOICE, TOOLS
from rejoinder.transport.http import HttpTransport
from rejoinder.types import NotGiven, NotGivenOr

__all__ = [
    "check_base_url",
    "OPTION_RULES",
    "checked_options",
    "environment",
    "or_none",
]


def _is_session(value: object) -> bool:
    # Checked by class name, because importing aiohttp takes longer than everything else here.
    return any(
        base.__name__ == "ClientSession" and base.__module__.startswith("aiohttp")
        for base in type(value).__mro__
    )


def _names_a_model(text: str) -> bool:
    """Whether `name` is safe as a part of a URL, where two dots would lead elsewhere."""
    return bool(text.strip()) and not {".", ".."}.intersection(text.split("/"))


OPTION_RULES: Final = dict[str, Rule](
    model=replace(NAME, expected="the name of a model", value_fits=_names_a_model),
    base_url=replace(STRING, expected="an absolute URL like 'https://host/path'"),
    chat_ctx=CHAT_CTX,
    tools=TOOLS.optional,
    tool_choice=TOOL_CHOICE.optional,
    parallel_tool_calls=FLAG.optional,
    conn_options=CONNECT,
    response_format=ANYTHING,  # refused where it is read
    extra_kwargs=mapping().optional,
    extra_body=mapping().optional,
    extra_headers=mapping().optional,
    extra_query=mapping().optional,
    temperature=NUMBER.optional,
    top_p=NUMBER.optional,
    presence_penalty=NUMBER.optional,
    frequency_penalty=NUMBER.optional,
    max_tokens=COUNT.optional,
    max_completion_tokens=COUNT.optional,
    max_output_tokens=COUNT.optional,
    max_retries=WHOLE.optional,
    report=FUNCTION.optional,
    http_session=Rule("an aiohttp.ClientSession", _is_session).optional,
    transport=instance(HttpTransport).optional,
    top_k=NUMBER.optional,
)
"""Rules for options by name; an option means the same in every provider."""

checked_options = checked(**OPTION_RULES)
"""Checks the arguments of a constructor or of `chat`, by the rules or else by their annotations."""


def environment(*names: str) -> str | None:
    """The first of these variables that is set and not blank."""
    for name in names:
        value = os.environ.get(name)
        if value is not None and value.strip():
            return value.strip()
    return None


def or_none(value: NotGivenOr[Any]) -> Any:
    """`value`, or ``None`` if it is `NOT_GIVEN`."""
    return None if isinstance(value, NotGiven) else value


def check_base_url(
    url: object, option: str = "base_url", *, endpoints: tuple[str, ...] = ()
) -> str:
    """`url` without a slash at its end.

    Args:
        endpoints: endings that are removed, because the provider adds them to every URL.

    Raises:
        ConfigurationError: it is not an absolute http(s) URL.
    """
    text = url.strip() if isinstance(url, str) else ""
    if not _is_address(text):
        guess = f"http://{text}"
        hint = f"; did you mean {redacted_url(guess)!r}?" if text and "://" not in text else ""
        if hint and not _is_address(guess):
            hint = ""
        shown = redacted_url(url) if isinstance(url, str) else url
        raise ConfigurationError(
            explained(
                f"{option}: expected an absolute URL like 'https://host/path', got {shown!r}{hint}",
                "address",
            )
        )
    # Web consoles show the whole URL of an endpoint, with its query, for copying.
    path, mark, query = text.partition("?")
    path = path.rstrip("/")
    for endpoint in endpoints:
        if path.endswith(endpoint):
            path = path[: -len(endpoint)].rstrip("/")
            break
    return f"{path}{mark}{query}"


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    sound = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    return sound and not any(character.isspace() for character in text)
