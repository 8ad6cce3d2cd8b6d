"""What every adapter does with a reply: keep provider state, read restarts, name what is missing.

Frameworks keep less of a reply than providers want back: thinking signatures, encrypted reasoning
and reasoning items have no place in their messages. `StateMemory` keeps that state beside them and
puts it back when the same reply returns in a later request.
"""

from __future__ import annotations

import importlib.metadata
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, cast

from rejoinder._core.chunks import ChoiceDelta
from rejoinder._core.collecting import is_restart, merge_extra
from rejoinder._core.items import ChatItem, ChatMessage, FunctionCall
from rejoinder.llm.llm import LLM
from rejoinder.llm.tool_context import RawFunctionTool, function_tool

__all__ = [
    "RESTART_BREAK",
    "ReplyState",
    "StateMemory",
    "check_llm",
    "declare_tool",
    "framework_version",
]

RESTART_BREAK = "\n"
"""Text between a broken reply and the one that restarts it. Frameworks cannot take text back, so
the words before the break stay; the break keeps the last word and the first from being glued."""

_REMEMBERED = 512


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

    A reply is found again by the ids of its tool calls, or by its exact text where it has none.
    Bounded: the oldest entries are dropped first.
    """

    def __init__(self) -> None:
        self._by_call: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._by_text: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def remember_call(self, call_id: str, extra: dict[str, Any] | None) -> None:
        """Keep the state of one tool call."""
        if extra:
            _put(self._by_call, call_id, extra)

    def remember(self, state: ReplyState) -> None:
        """Keep the state of a whole reply."""
        if not state.extra:
            return
        if state.text:
            _put(self._by_text, state.text, state.extra)
        elif state.first_call:
            _put(self._by_call, state.first_call, state.extra)

    def restore(self, items: Iterable[ChatItem]) -> None:
        """Put remembered state into the `extra` of items that lack it, in place."""
        if not self._by_call and not self._by_text:
            return
        for item in items:
            if isinstance(item, FunctionCall):
                known = self._by_call.get(item.call_id)
            elif isinstance(item, ChatMessage) and item.role == "assistant":
                known = self._by_text.get(item.text_content or "")
            else:
                continue
            if known is not None:
                item.extra = {**known, **item.extra}


def _put(entries: OrderedDict[str, dict[str, Any]], key: str, extra: dict[str, Any]) -> None:
    entries[key] = {**entries.pop(key, {}), **extra}
    if len(entries) > _REMEMBERED:
        entries.popitem(last=False)


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


def check_llm(llm: object, adapter: str) -> LLM[Any]:
    """`llm`, if it is a model of this package.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(llm, LLM):
        raise TypeError(
            f"{adapter}: expected a rejoinder LLM, for example rejoinder.providers.openai.LLM(), "
            f"got {type(llm).__name__}"
        )
    return cast("LLM[Any]", llm)


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
            f"rejoinder.integrations needs {distribution} {wanted} or newer here: {remedy}"
        ) from error
    version = tuple(int(part) for part in text.split(".")[:3] if part.isdigit())
    if version < at_least:
        raise ImportError(
            f"rejoinder.integrations needs {distribution} {wanted} or newer, found {text}: {remedy}"
        )
    return version
