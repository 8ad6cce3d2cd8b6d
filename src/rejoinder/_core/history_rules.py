"""Combines the rules for histories of an API, a model and a host.

Pure. The dialect of a provider holds the rules of its API, the family those of a model, and the host
those of a server.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec.structs import replace

from rejoinder._core.dialects import Dialect
from rejoinder._core.families import Family
from rejoinder._core.hosts import API, Host
from rejoinder._core.rules import digest

__all__ = ["fitted_dialect"]

# Ids of calls: no server accepts blanks and control characters. The makers of Claude and Mistral check
# ids further, even behind gateways.
_ANY_ID: Final = r"[^\s\x00-\x1f\ud800-\udfff]"
_CLAUDE_LIMIT: Final = 64
_NINE: Final = re.compile(r"[a-zA-Z0-9]{9}")
_RESPONSES_LIMIT: Final = 64


def _nine(seed: str) -> str:
    return digest(seed)[:9]


_SHOWN_RESULTS: Final[dict[API, frozenset[str]]] = {
    "chat": frozenset(),  # tool messages take only text
    "converse": frozenset({"amazon", "anthropic"}),
    "gemini": frozenset({"google"}),
    "messages": frozenset({"anthropic"}),
    "mistral": frozenset(),
    "responses": frozenset({"openai"}),
}
"""The makers whose models accept pictures as results of tools, by API (the references of Anthropic's
``tool_result``, of ``ToolResultContentBlock``, ``FunctionResponsePart`` and ``function_call_output``)."""


def fitted_dialect(dialect: Dialect, family: Family, host: Host, api: API) -> Dialect:
    """`dialect` with the rules for a model at its host.

    Args:
        dialect: the dialect of the API.
        family: the model's family.
        host: the host that serves it.
        api: the dialect of the request.
    """
    rules = dialect.rules
    if rules is None:
        return dialect
    if family.inputs is not None and "image" not in family.inputs:
        rules = replace(rules, images=False)
    if rules.images and family.maker in _SHOWN_RESULTS[api]:
        # "Multimodal function responses" came with Gemini 3, as did signed calls.
        rules = replace(rules, result_images=api != "gemini" or family.signed_calls)
    if api == "gemini" and family.system == "user":
        rules = replace(rules, instructions="user", folds_instructions=False)
    if api not in ("chat", "responses"):
        return dialect if rules is dialect.rules else replace(dialect, rules=rules)
    limit = host.call_id_limit
    if limit is not None and api == "responses":
        limit = _RESPONSES_LIMIT
    rules = replace(
        rules,
        call_id=re.compile(f"{_ANY_ID}{{1,{limit}}}" if limit is not None else f"{_ANY_ID}+"),
        developer=family.maker == "openai" if host.developer is None else host.developer,
    )
    if family.ids == "nine":
        rules = replace(rules, call_id=_NINE, new_call_id=_nine)
    elif family.ids == "kimi":
        rules = replace(rules, numbered_ids=True)
    elif family.maker == "anthropic":
        longest = min(_CLAUDE_LIMIT, limit or _CLAUDE_LIMIT)
        rules = replace(rules, call_id=re.compile(f"[a-zA-Z0-9_-]{{1,{longest}}}"))
    if family.reply_after_tools:
        rules = replace(
            rules,
            instructions="beside_user",
            reply_after_tools=True,
            calls_first=False,
            developer=False,
            lone_user=".",
        )
    if family.ends_with_user:
        rules = replace(rules, last_user=rules.last_user or ".")
    if family.alternates or host.alternates:
        rules = replace(
            rules,
            alternates=True,
            reply_after_tools=True,
            calls_first=False,
            first_user=rules.first_user or "(empty)",
            last_user=rules.last_user or ".",
            instructions="first",
        )
    if host.system_first and rules.instructions == "anywhere":
        rules = replace(rules, instructions="first")
    if family.system == "user":
        rules = replace(rules, instructions="user", developer=False)
    return replace(dialect, rules=rules)
