"""Strict checkers of histories: they refuse what each provider's API refuses.

Law: our own rules only, no vendor's package; values in, a list of problems out, nothing raised for
any value. A checker is stricter than its API only where clones of that API, or its older models,
are stricter; it does not know models, and what depends on one is a keyword.

    problems = check_history("anthropic", body)
    assert_legal("openai", messages)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from rejoinder._options import checked
from rejoinder.testing.history._blocks import Anthropic, Bedrock
from rejoinder.testing.history._checks import HistoryCheck
from rejoinder.testing.history._google import Google
from rejoinder.testing.history._openai import (
    LONG_ID,
    Completions,
    Conversations,
    Mistral,
    Responses,
)

__all__ = ["PROVIDERS", "IllegalHistoryError", "assert_legal", "check_history"]


class IllegalHistoryError(AssertionError):
    """A history that the provider would refuse; `problems` has the reasons, one text each."""

    def __init__(self, provider: str, problems: list[str]) -> None:
        super().__init__(
            f"{provider} would refuse this history:" + "".join(f"\n  {text}" for text in problems)
        )
        self.provider = provider
        self.problems = problems


@checked()
def check_history(
    provider: str,
    history: Any,
    *,
    system: Any = None,
    prefill: bool = False,
    thinking: bool = False,
    signatures: bool = False,
    long_ids: bool = False,
) -> list[str]:
    """The problems for which `provider` would refuse `history`; empty if it would accept it.

    Args:
        provider: one of `PROVIDERS`, named as the formats are.
        history: the messages, or the whole body of a request.
        system: system texts that go beside the messages; taken from the body if one is given.
        prefill: the model continues a last message of the assistant, so there may be one.
        thinking: extended thinking is on (Anthropic): the assistant turns since the user last
            spoke must begin with it.
        signatures: the model demands thought signatures (Gemini 3 and later).
        long_ids: call ids of chat completions may have any length, as at servers other than
            OpenAI's and Azure's.

    Raises:
        ValueError: no checker has this name.
    """
    checker = _CHECKERS.get(provider)
    if checker is None:
        raise ValueError(
            f"no checker for {provider!r}: expected one of {', '.join(sorted(_CHECKERS))}"
        )
    check = checker(prefill=prefill, thinking=thinking, signatures=signatures)
    if long_ids and isinstance(check, Completions):
        check.call_id = LONG_ID
    messages = history
    if isinstance(history, Mapping):
        body = cast("Mapping[str, Any]", history)
        messages = next((body[key] for key in check.keys if key in body), None)
        if system is None:
            system = next((body[key] for key in check.system_keys if key in body), None)
        check.body(body)
        if messages is None and check.continues:
            return check.problems
    if not isinstance(messages, list):
        if not (isinstance(messages, str) and check.takes_text):
            check.add("", f"expected a list of messages, got {type(messages).__name__}")
        return check.problems
    if system is not None:
        check.system(system)
    check.strings(cast("list[Any]", messages), check.keys[0])
    if not messages:
        check.add(check.keys[0], "there must be at least one")
    else:
        check.run(cast("list[Any]", messages))
    return check.problems


def assert_legal(provider: str, history: Any, **options: Any) -> None:
    """Raise `IllegalHistoryError` if `check_history` of the same arguments finds a problem."""
    problems = check_history(provider, history, **options)
    if problems:
        raise IllegalHistoryError(provider, problems)


_CHECKERS: dict[str, Callable[..., HistoryCheck]] = {
    "anthropic": Anthropic,
    "aws": Bedrock,
    "google": Google,
    "mistralai": Mistral,
    "mistralai.conversations": Conversations,
    "openai": Completions,
    "openai.responses": Responses,
}

PROVIDERS = tuple(sorted(_CHECKERS))
"""The names that `check_history` takes."""
