"""Shared handling of replies in adapters: provider state, restarts, unsupported content.

The messages of frameworks cannot hold everything that providers need back: thinking signatures,
encrypted reasoning and reasoning items. `StateMemory` keeps this state beside them, and restores it when
the same reply is part of a later request.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, cast

from pydantic_core import from_json, to_json

from rejoinder._core.arguments import parse_arguments
from rejoinder._core.chunks import ChoiceDelta, FunctionToolCall
from rejoinder._core.collecting import is_restart, merge_extra
from rejoinder._core.items import ChatItem, ChatMessage, FunctionCall
from rejoinder._core.tools import ToolError
from rejoinder._core.unread import UNREAD
from rejoinder._options import CONNECT, check
from rejoinder._sections import explained
from rejoinder.errors import APIConnectionError, APIError, APIStatusError, ConfigurationError
from rejoinder.llm.llm import LLM
from rejoinder.llm.tool_context import RawFunctionTool, function_tool
from rejoinder.providers.answering.reasons import FinishReason, portable_reason

logger = logging.getLogger("rejoinder")

__all__ = [
    "RESTART_BREAK",
    "FinishReason",
    "ReplyState",
    "StateMemory",
    "check_llm",
    "declare_tool",
    "framework_version",
    "last_failure",
    "portable_reason",
    "portable_reasoning",
    "refuse_unknown_parts",
    "speaker",
    "tell_ignored",
    "whole_arguments",
]

RESTART_BREAK = "\n"
"""Text between a broken reply and the reply that restarts it. Frameworks cannot revoke text, so the
words before the break stay; the line break separates them from the new reply."""

_REMEMBERED = 512
_REPEATED = 32
"""Maximum number of states kept for one text; the oldest is dropped."""


class ReplyState:
    """The provider state of one reply, collected from its deltas."""

    __slots__ = ("_extra", "_first_call", "_text")

    def __init__(self) -> None:
        self._extra: dict[str, Any] = {}
        self._text: list[str] = []
        self._first_call = ""

    def add(self, delta: ChoiceDelta) -> str:
        """Record one delta. Return its text for the framework, with a break where the reply restarts."""
        text = delta.content or ""
        if delta.extra:
            if is_restart(delta):
                self._extra = {}
                if self._text:
                    text = RESTART_BREAK + text
            state = {key: value for key, value in delta.extra.items() if key != "rejoinder"}
            if state:
                merge_extra(self._extra, state)
        if text:
            self._text.append(text)
        if delta.tool_calls and not self._first_call:
            self._first_call = delta.tool_calls[0].call_id
        return text

    @property
    def extra(self) -> dict[str, Any]:
        """The state so far, by provider name."""
        return self._extra

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    @property
    def first_call(self) -> str:
        """Id of the first tool call, or an empty string."""
        return self._first_call


class StateMemory:
    """Keeps the provider state of the last replies of one model, for frameworks that drop it.

    A reply is found by the ids of its tool calls, or by its exact text if it has no calls. If several
    replies have the same text, each message gets the state of its own reply, because a provider refuses
    the same reasoning item twice. Bounded: the oldest entries are dropped first.
    """

    def __init__(self) -> None:
        self._by_call: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._by_text: OrderedDict[str, list[dict[str, Any]]] = OrderedDict()

    def remember_call(self, call_id: str, extra: dict[str, Any] | None) -> None:
        """Keep the state of one tool call."""
        if extra:
            self._put_call(call_id, extra)

    def remember(self, state: ReplyState) -> None:
        """Keep the state of a whole reply."""
        if not state.extra:
            return
        if state.text:
            said = self._by_text.setdefault(state.text, [])
            said.append(state.extra)
            del said[:-_REPEATED]
            _bound(self._by_text, state.text)
        elif state.first_call:
            self._put_call(state.first_call, state.extra)

    def restore(self, items: Sequence[ChatItem]) -> None:
        """Put remembered state into the `extra` of items that lack it, in place."""
        if not self._by_call and not self._by_text:
            return
        given: Counter[str] = Counter()
        for item in reversed(items):  # the newest of several equal texts comes last
            if isinstance(item, FunctionCall):
                known = self._by_call.get(item.call_id)
                if known is not None:
                    item.extra = {**known, **item.extra}
            elif isinstance(item, ChatMessage) and item.role == "assistant":
                text = item.text_content or ""
                states = self._by_text.get(text)
                if states is not None and given[text] < len(states):
                    given[text] += 1
                    item.extra = {**states[-given[text]], **item.extra}

    def _put_call(self, call_id: str, extra: dict[str, Any]) -> None:
        self._by_call[call_id] = {**self._by_call.get(call_id, {}), **extra}
        _bound(self._by_call, call_id)


def _bound(entries: OrderedDict[str, Any], newest: str) -> None:
    entries.move_to_end(newest)
    if len(entries) > _REMEMBERED:
        entries.popitem(last=False)


def refuse_unknown_parts(items: Iterable[ChatItem], adapter: str) -> None:
    """Refuse content of instructions and user messages that this package cannot send.

    Raises:
        ConfigurationError: a message holds a part that cannot be sent. It names the part's type.
    """
    for item in items:
        if not isinstance(item, ChatMessage) or item.role == "assistant":
            continue  # only its own messages contain the activity of a provider's tools
        if (kind := _foreign_part(item)) is not None:
            raise ConfigurationError(
                f"{adapter}: a message holds content of the type {kind!r}, which cannot be passed "
                "on; expected text, pictures, or documents with their data or address"
            )


def _foreign_part(message: ChatMessage) -> str | None:
    parts: list[Any] = []
    for key, state in message.extra.items():
        if not isinstance(state, dict):
            continue
        held = cast("dict[str, Any]", state)
        if key == "rejoinder":
            parts += [part for _, part in held.get("content", [])]
        else:
            kept: dict[str, Any] = held.get(UNREAD) or {}
            parts += [each["part"] for each in kept.get("content", []) if not each.get("read")]
    if not parts:
        return None
    part = parts[0]  # of Gemini and Bedrock, which name the type by the member that holds it
    return str(part.get("type") or next(iter(part), "unknown"))


def whole_arguments(call: FunctionToolCall) -> str:
    """The arguments of a call as the JSON text of an object.

    Broken JSON is mended if its meaning is unambiguous. Otherwise it is returned unchanged, and the
    framework reports the error to the model.
    """
    text = call.arguments
    if not text.strip():
        return "{}"
    try:
        if isinstance(from_json(text), dict):
            return text
    except ValueError:
        pass
    try:
        return to_json(parse_arguments(text, tool=call.name)).decode()
    except ToolError:
        return text


def declare_tool(
    name: str, description: str | None, parameters: dict[str, Any] | None
) -> RawFunctionTool[Any, Any]:
    """A tool that is shown to the model and run by the framework."""
    return function_tool(
        _run_by_the_framework,
        raw_schema={
            "name": name,
            "description": description or "",
            "parameters": parameters or {"type": "object", "properties": {}},
        },
    )


def _run_by_the_framework(raw_arguments: dict[str, object]) -> None:
    raise RuntimeError("the framework runs its tools itself; this declaration cannot be called")


def check_llm(llm: object, adapter: str, conn_options: object) -> LLM[Any]:
    """Return `llm` after checking its type and that of `conn_options`.

    Raises:
        TypeError: one of them has a wrong type.
    """
    check(adapter, conn_options=(conn_options, CONNECT))
    if not isinstance(llm, LLM):
        raise TypeError(
            f"{adapter}: expected a rejoinder LLM, for example rejoinder.providers.openai.LLM(), "
            f"got {type(llm).__name__}"
        )
    return cast("LLM[Any]", llm)


def speaker(llm: LLM[Any]) -> tuple[str, str]:
    """The names of the model and its provider; for a fallback, those of the last reply."""
    names = llm.metrics_metadata
    return names.get("model_name", llm.model), names.get("model_provider", llm.provider)


def portable_reasoning(wanted: str | bool) -> str:
    """A framework's measure of reasoning as our option ``reasoning``.

    Args:
        wanted: a level of effort. True stands for a model's own measure, which no common option
            names: it becomes ``"medium"``. False and ``"none"`` turn reasoning off.
    """
    if wanted is True:
        return "medium"
    return "off" if wanted is False or wanted == "none" else wanted


def tell_ignored(adapter: str, names: Iterable[str], logged: set[str]) -> None:
    """Log the settings that an adapter does not pass on, each once for a model.

    Args:
        logged: names that have been logged; new ones are added.
    """
    new = sorted(set(names) - logged)
    if new:
        logged.update(new)
        logger.warning(
            "%s: these settings are not passed on: %s; set the provider's own settings on the rejoinder "
            "model instead",
            adapter,
            ", ".join(new),
        )


def last_failure(error: APIError) -> APIError:
    """The provider's error response to the last of several attempts, if it responded.

    After the last attempt a stream raises `APIConnectionError`; frameworks decide by the status.
    """
    cause = error.__cause__
    answered = isinstance(error, APIConnectionError) and isinstance(cause, APIStatusError)
    return cast("APIStatusError", cause) if answered else error


def framework_version(
    distribution: str, *, at_least: tuple[int, ...], extra: str
) -> tuple[int, ...]:
    """The installed version of a framework, as numbers.

    Raises:
        ImportError: it is not installed, or older than `at_least`.
    """
    wanted = ".".join(map(str, at_least))
    remedy = f"pip install 'rejoinder[{extra}]'"
    try:
        text = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError as error:
        raise ImportError(
            explained(
                f"rejoinder.integrations needs {distribution} {wanted} or newer here: {remedy}",
                "missing package",
            )
        ) from error
    version = tuple(int(part) for part in text.split(".")[:3] if part.isdigit())
    if version < at_least:
        raise ImportError(
            f"rejoinder.integrations needs {distribution} {wanted} or newer, found {text}: {remedy}"
        )
    return version
