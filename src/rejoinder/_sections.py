"""Maps errors to the sections of docs/troubleshooting.md that explain them.

This module holds one table, and makes the sentence that refers to a section. An `APIError` has the name
of its section as an attribute, and its text ends with the sentence; the message of any other error
includes the sentence. A house test compares the table with the page.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["SECTIONS", "explained", "extended", "plain", "section_of_status"]

_PAGE: Final = "docs/troubleshooting.md"

SECTIONS: Final[dict[str, str]] = {
    # before a request
    "no key": "no-api-key",
    "no credentials": "no-cloud-credentials",
    "missing package": "a-package-is-missing",
    "model name": "the-model-name-has-no-provider",
    "unknown provider": "unknown-provider",
    "address": "not-an-address",
    "arguments": "an-unexpected-argument",
    "context": "not-a-chatcontext",
    "tool": "not-a-tool",
    "tool parameter": "a-parameter-without-a-schema",
    "tool names": "two-tools-with-one-name",
    "no loop": "no-event-loop",
    "other loop": "another-event-loop",
    "closed": "a-closed-model",
    "option refused": "an-option-the-model-refuses",
    "pictures": "a-model-without-pictures",
    # a request
    "context too long": "the-conversation-is-too-long",
    "schema refused": "the-schema-of-a-tool-is-refused",
    "status 401": "status-401",
    "status 402": "status-402",
    "status 403": "status-403",
    "status 404": "status-404",
    "status 413": "the-conversation-is-too-long",
    "status 429": "status-429",
    "status 503": "status-503",
    "status 529": "status-503",
    "refusal": "the-model-refuses",
    "no connection": "no-connection",
    "certificate": "the-certificate-is-not-trusted",
    "no output": "no-output-in-time",
    "no further output": "no-further-output-in-time",
    "whole reply": "the-whole-reply-takes-too-long",
    "not read": "a-reply-that-is-not-read",
    "cut": "the-reply-was-cut",
    "web page": "a-web-page-instead-of-a-reply",
    "not JSON": "broken-events",
    "empty": "an-empty-reply",
    "output": "the-answer-does-not-fit-the-schema",
    "all failed": "all-models-failed",
    # a turn, conversations, MCP servers, tests
    "turn over": "a-turn-runs-once",
    "conflict": "the-conversation-was-continued-elsewhere",
    "not loaded": "the-conversation-is-not-loaded",
    "store": "the-store-cannot-be-used",
    "command": "the-command-of-an-mcp-server",
    "script over": "the-script-is-over",
    "script left": "the-script-is-not-used-up",
    "network": "the-network-is-forbidden",
}
"""A kind of error, and the anchor of its section."""

_SENTENCE: Final = re.compile(r"\.? More: docs/troubleshooting\.md#[a-z0-9-]+")


def explained(text: str, kind: str | None) -> str:
    """`text` with a reference to its explanation as the last sentence; unchanged without a kind."""
    if kind is None:
        return text
    text = plain(text)
    end = "" if text.endswith((".", "!", "?")) else "."
    return f"{text}{end} More: {_PAGE}#{SECTIONS[kind]}"


def plain(text: str) -> str:
    """`text` without the reference, for a text that becomes a part of another."""
    return _SENTENCE.sub("", text) if "More: " in text else text


def extended(text: str, addition: str) -> str:
    """`text` with `addition` at its end, but before the reference."""
    found = _SENTENCE.search(text)
    if found is None:
        return text + addition
    return text[: found.start()] + addition + text[found.start() :]


def section_of_status(status: int) -> str | None:
    """The kind of an error of which only the status is known."""
    kind = f"status {status}"
    return kind if kind in SECTIONS else None
