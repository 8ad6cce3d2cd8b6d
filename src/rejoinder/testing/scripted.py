"""A model that plays the script of a test, and reports unused parts of the script.

::

    llm = ScriptedLLM(
        [FunctionToolCall(name="weather", arguments='{"city": "Oslo"}', call_id="call_1")],
        "It is raining in Oslo.",
    )
    ...
    llm.assert_used_up()
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from rejoinder import _stamps
from rejoinder._options import checked
from rejoinder._sections import explained
from rejoinder.llm._option_rules import TOOL_CHOICE, TOOLS
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.llm import (
    LLM,
    ChatChunk,
    ChoiceDelta,
    CompletionUsage,
    FunctionToolCall,
    LLMStream,
)
from rejoinder.llm.tool_context import ToolContext
from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, APIConnectOptions, NotGivenOr

__all__ = ["Reply", "ScriptExhaustedError", "ScriptedCall", "ScriptedLLM", "Step"]

Step: TypeAlias = (
    str | float | FunctionToolCall | ChoiceDelta | CompletionUsage | ChatChunk | BaseException
)
"""One step of a scripted reply: send a piece of text, wait (seconds on the loop's clock), call a tool,
send any other delta or chunk, report usage, or fail."""

Reply: TypeAlias = "str | Sequence[Step] | BaseException | Callable[[ScriptedCall], Reply]"
"""One attempt of the model: text, which is sent word by word; steps; an error; or a function that
receives the call and returns one of these."""


class ScriptExhaustedError(AssertionError):
    """The model received more requests than the script has replies."""


@dataclass(frozen=True, slots=True)
class ScriptedCall:
    """One call of `chat`. `chat_ctx` is a copy, made at the time of the call."""

    chat_ctx: ChatContext
    tools: list[Any]
    tool_choice: Any
    parallel_tool_calls: NotGivenOr[bool]
    conn_options: APIConnectOptions
    extra_kwargs: NotGivenOr[dict[str, Any]]
    response_format: NotGivenOr[Any] = NOT_GIVEN


class ScriptedLLM(LLM[Any]):
    """An `LLM` without a provider. Retries, deadlines, metrics and events are the real ones.

    Args:
        replies: one for each attempt, in order: a reply that fails with a retryable error is
            followed by the next one, as with a real model.
        model, provider: its names.
        prewarm: called by `prewarm`.

    Attributes:
        calls: one `ScriptedCall` for each `chat`.
        attempts: how many replies were begun.
    """

    @checked()
    def __init__(
        self,
        *replies: Reply,
        model: str = "scripted",
        provider: str = "testing",
        prewarm: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self._script: deque[Reply] = deque(replies)
        self._model = model
        self._provider = provider
        self._on_prewarm = prewarm
        self.calls: list[ScriptedCall] = []
        self.attempts = 0

    @property
    def model(self) -> str:
        return self._model

    @property
    def provider(self) -> str:
        return self._provider

    @property
    def unused(self) -> int:
        """Replies that were not requested."""
        return len(self._script)

    def then(self, *replies: Reply) -> None:
        """Append replies to the script."""
        self._script.extend(replies)

    def assert_used_up(self) -> None:
        """Raises:
        AssertionError: replies are left.
        """
        if self._script:
            raise AssertionError(
                explained(
                    f"{len(self._script)} scripted replies were not asked for (of "
                    f"{self.attempts + len(self._script)}); the next is {self._script[0]!r}",
                    "script left",
                )
            )

    @checked(tools=TOOLS.optional, tool_choice=TOOL_CHOICE.optional)
    def chat(
        self,
        *,
        chat_ctx: ChatContext,
        tools: list[Any] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[Any] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
        response_format: NotGivenOr[Any] = NOT_GIVEN,
    ) -> LLMStream:
        """Play the next reply of the script. The options are recorded in `calls` and have no effect.

        If the script is used up, the stream raises `ScriptExhaustedError`.
        """
        if tools:
            ToolContext.of(tools)  # as every provider checks them
        call = ScriptedCall(
            chat_ctx=chat_ctx.copy(),
            tools=list(tools or []),
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            conn_options=conn_options,
            extra_kwargs=extra_kwargs,
            response_format=response_format,
        )
        self.calls.append(call)
        return _ScriptedStream(self, call)

    async def _prewarm_impl(self) -> None:
        if self._on_prewarm is not None:
            self._on_prewarm()

    def _next(self, call: ScriptedCall) -> Sequence[Step]:
        if not self._script:
            raise ScriptExhaustedError(
                explained(
                    f"the scripted model was asked for reply {self.attempts + 1}; "
                    f"its script has {self.attempts}",
                    "script over",
                )
            )
        self.attempts += 1
        reply = self._script.popleft()
        while callable(reply) and not isinstance(reply, BaseException):
            reply = reply(call)
        if isinstance(reply, str):
            return _words(reply)
        if isinstance(reply, BaseException):
            return (reply,)
        return reply


class _ScriptedStream(LLMStream):
    def __init__(self, llm: ScriptedLLM, call: ScriptedCall) -> None:
        self._scripted = llm
        self._call = call
        super().__init__(
            llm, chat_ctx=call.chat_ctx, tools=call.tools, conn_options=call.conn_options
        )

    async def _run(self) -> None:
        response = _stamps.new_id("scripted_")
        for step in self._scripted._next(self._call):
            match step:
                case BaseException():
                    raise step
                case float() | int():
                    await asyncio.sleep(step)
                    continue
                case ChatChunk():
                    chunk = step
                case str():
                    chunk = _delta(response, ChoiceDelta(role="assistant", content=step))
                case FunctionToolCall():
                    chunk = _delta(response, ChoiceDelta(role="assistant", tool_calls=[step]))
                case ChoiceDelta():
                    chunk = _delta(response, step)
                case CompletionUsage():
                    chunk = ChatChunk(id=response, usage=step)
            self._event_ch.send_nowait(chunk)
            await asyncio.sleep(0)  # let the consumer read each chunk separately


def _delta(response: str, delta: ChoiceDelta) -> ChatChunk:
    return ChatChunk(id=response, delta=delta)


def _words(text: str) -> Sequence[Step]:
    words: list[Step] = []
    for word in text.split(" "):
        words.append(word if not words else f" {word}")
    return [word for word in words if word]
