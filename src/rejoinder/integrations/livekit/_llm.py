"""A `rejoinder` model as a LiveKit model, and a LiveKit model as one of ours."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from livekit.agents import APIError as TheirError
from livekit.agents import llm as lk
from livekit.agents import metrics as their_metrics
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS as THEIR_DEFAULT
from livekit.agents.types import NOT_GIVEN as THEIR_NOT_GIVEN
from livekit.agents.types import APIConnectOptions as TheirOptions

from rejoinder import errors
from rejoinder._foreign import read
from rejoinder._sections import explained
from rejoinder.integrations._replies import (
    ReplyState,
    StateMemory,
    check_llm,
    speaker,
    whole_arguments,
)
from rejoinder.integrations.livekit._context import (
    context_from_livekit,
    context_to_livekit,
    error_from_livekit,
    error_to_livekit,
    tools_from_livekit,
    tools_to_livekit,
)
from rejoinder.llm import llm as ours
from rejoinder.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectOptions,
    NotGivenOr,
    is_given,
)

__all__ = ["LLM", "FromLiveKit", "LLMStream", "from_livekit"]

TheirLLM: TypeAlias = "lk.LLM[Any]"

_CARRIES_EXTRA = "extra" in lk.ChoiceDelta.model_fields
_CALL_FIELDS = frozenset(lk.FunctionToolCall.model_fields)
_USAGE_FIELDS = frozenset(lk.CompletionUsage.model_fields)
_METRIC_FIELDS = frozenset(their_metrics.LLMMetrics.model_fields)


class LLM(lk.LLM[Literal["llm_availability_changed"]]):
    """Any `rejoinder` model, usable wherever LiveKit takes an ``LLM``.

    Retries, deadlines, hedging and fallback are those of `llm`; LiveKit does not retry again. The
    events ``"metrics_collected"``, ``"error"`` and, from a `FallbackAdapter`,
    ``"llm_availability_changed"`` are emitted as LiveKit's own. Closing the adapter closes `llm`.

    If a fallback continues a broken reply (``on_cut="resume"``), the text simply continues. If it
    restarts the reply, the words before the break were already spoken; they stay in the history,
    followed by a line break and the new reply.

    Args:
        llm: the model.
        conn_options: retries and deadlines of `llm`, used instead of LiveKit's default ones. Options
            that a session sets itself (``conn_options=`` of ``AgentSession``) take precedence.

    Raises:
        TypeError: `llm` is not a `rejoinder` model.
    """

    def __init__(
        self,
        llm: ours.LLM[Any],
        *,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> None:
        super().__init__()
        self._inner = check_llm(llm, "integrations.livekit.LLM", conn_options)
        self._options = conn_options
        self._memory = StateMemory()
        self._handlers = {
            "error": self._forward_error,
            "metrics_collected": self._forward_metrics,
            "llm_availability_changed": self._forward_availability,
        }
        for event, handler in self._handlers.items():
            self._inner.on(event, handler)

    @property
    def model(self) -> str:
        return speaker(self._inner)[0]

    @property
    def provider(self) -> str:
        return speaker(self._inner)[1]

    def chat(
        self,
        *,
        chat_ctx: lk.ChatContext,
        tools: list[Any] | None = None,
        conn_options: TheirOptions = THEIR_DEFAULT,
        parallel_tool_calls: Any = THEIR_NOT_GIVEN,
        tool_choice: Any = THEIR_NOT_GIVEN,
        extra_kwargs: Any = THEIR_NOT_GIVEN,
        response_format: Any = THEIR_NOT_GIVEN,
    ) -> LLMStream:
        """Ask the model to continue the conversation. Needs a running event loop, as all of LiveKit does.

        Raises:
            RuntimeError: no event loop is running.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                explained(
                    "integrations.livekit.LLM.chat: no event loop is running; call it from a coroutine",
                    "no loop",
                )
            ) from None
        given = {
            "parallel_tool_calls": parallel_tool_calls,
            "tool_choice": tool_choice,
            "extra_kwargs": extra_kwargs,
            "response_format": response_format,
        }
        return LLMStream(
            self,
            chat_ctx=chat_ctx,
            tools=tools or [],
            conn_options=conn_options,
            arguments={
                name: value for name, value in given.items() if value is not THEIR_NOT_GIVEN
            },
        )

    def prewarm(self, *, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Open connections in the background, those of fallback models too."""
        self._inner.prewarm(loop=loop)

    async def aclose(self) -> None:
        for event, handler in self._handlers.items():
            self._inner.off(event, handler)
        await self._inner.aclose()
        await super().aclose()

    def _deadlines(self, given: TheirOptions) -> APIConnectOptions:
        if given == THEIR_DEFAULT:
            return self._options
        return replace(
            self._options,
            max_retry=given.max_retry,
            retry_interval=given.retry_interval,
            timeout=given.timeout,
        )

    def _forward_error(self, event: ours.LLMError) -> None:
        # The last failure of a reply is emitted by LiveKit's own stream.
        if not event.recoverable:
            return
        error = event.error
        self.emit(
            "error",
            lk.LLMError(
                timestamp=event.timestamp,
                label=self.label,
                error=error_to_livekit(error) if isinstance(error, errors.APIError) else error,
                recoverable=True,
            ),
        )

    def _forward_metrics(self, metrics: Any) -> None:
        # LiveKit's own stream measures the reply that is heard; the others were paid for too.
        if metrics.purpose == "reply":
            return
        fields = {name: value for name, value in metrics.__dict__.items() if name in _METRIC_FIELDS}
        if metrics.metadata is not None and "metadata" in _METRIC_FIELDS:
            fields["metadata"] = metrics.metadata.model_dump()
        self.emit("metrics_collected", their_metrics.LLMMetrics(**fields))

    def _forward_availability(self, event: Any) -> None:
        member = event.llm
        self.emit(
            "llm_availability_changed",
            lk.AvailabilityChangedEvent(
                llm=member.livekit_llm if isinstance(member, FromLiveKit) else member,
                available=event.available,
            ),
        )


class LLMStream(lk.LLMStream):
    """One reply of a `rejoinder` model as LiveKit's stream."""

    def __init__(
        self,
        llm: LLM,
        *,
        chat_ctx: lk.ChatContext,
        tools: list[Any],
        conn_options: TheirOptions,
        arguments: dict[str, Any],
    ) -> None:
        self._adapter = llm
        self._arguments = arguments
        self._inner_options = llm._deadlines(conn_options)
        # No second layer of retries: the model's own stream has already retried.
        single = replace(conn_options, max_retry=0)
        super().__init__(  # pyright: ignore[reportUnknownMemberType]  # their LLM names no events
            llm, chat_ctx=chat_ctx, tools=tools, conn_options=single
        )

    async def _run(self) -> None:
        adapter = self._adapter
        chat_ctx = context_from_livekit(self._chat_ctx)
        adapter._memory.restore(chat_ctx.items)
        state = ReplyState()
        send = self._event_ch.send_nowait
        try:
            async with adapter._inner.chat(
                chat_ctx=chat_ctx,
                tools=tools_from_livekit(self._tools),
                conn_options=self._inner_options,
                **self._arguments,
            ) as stream:
                async for chunk in stream:
                    made = self._chunk(chunk, state)
                    if made is not None:
                        send(made)
        except errors.APIError as error:
            raise error_to_livekit(error) from error
        finally:
            adapter._memory.remember(state)

    def _chunk(self, chunk: ours.ChatChunk, state: ReplyState) -> lk.ChatChunk | None:
        delta = chunk.delta
        made: lk.ChoiceDelta | None = None
        if delta is not None:
            content = state.add(delta)
            calls = [self._call(call) for call in delta.tool_calls] if delta.tool_calls else []
            extra: dict[str, Any] = {}
            if delta.extra and _CARRIES_EXTRA:
                kept = {key: value for key, value in delta.extra.items() if key != "rejoinder"}
                if kept:
                    extra["extra"] = kept
            if content or calls or extra:
                made = lk.ChoiceDelta(
                    role="assistant", content=content or None, tool_calls=calls, **extra
                )
        usage: lk.CompletionUsage | None = None
        if chunk.usage is not None:
            counts = chunk.usage.__dict__
            usage = lk.CompletionUsage(
                **{name: counts[name] for name in _USAGE_FIELDS if name in counts}
            )
        if made is None and usage is None:
            return None
        return lk.ChatChunk(id=chunk.id, delta=made, usage=usage)

    def _call(self, call: ours.FunctionToolCall) -> lk.FunctionToolCall:
        self._adapter._memory.remember_call(call.call_id, call.extra)
        fields = {name: value for name, value in call.__dict__.items() if name in _CALL_FIELDS}
        fields["arguments"] = whole_arguments(call)
        return lk.FunctionToolCall(**fields)


class FromLiveKit(ours.LLM[Any]):
    """A LiveKit model as a `rejoinder` model; see `from_livekit`."""

    def __init__(self, llm: TheirLLM) -> None:
        super().__init__()
        self._theirs = llm

    @property
    def livekit_llm(self) -> TheirLLM:
        """The LiveKit model."""
        return self._theirs

    @property
    def model(self) -> str:
        return self._theirs.model

    @property
    def provider(self) -> str:
        return read(self._theirs, "provider", str) or "unknown"  # 1.2.17 has none

    def chat(
        self,
        *,
        chat_ctx: Any,
        tools: list[Any] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[Any] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
        response_format: NotGivenOr[Any] = NOT_GIVEN,
    ) -> ours.LLMStream:
        given = {
            "parallel_tool_calls": parallel_tool_calls,
            "tool_choice": tool_choice,
            "extra_kwargs": extra_kwargs,
            "response_format": response_format,
        }
        return _TheirReply(
            self,
            chat_ctx=chat_ctx,
            tools=tools or [],
            conn_options=conn_options,
            arguments={name: value for name, value in given.items() if is_given(value)},
        )

    async def _prewarm_impl(self) -> None:
        self._theirs.prewarm()

    async def aclose(self) -> None:
        await super().aclose()
        await self._theirs.aclose()


class _TheirReply(ours.LLMStream):
    """One reply of a LiveKit model; attempts, deadlines and retries are this package's."""

    def __init__(self, llm: FromLiveKit, *, arguments: dict[str, Any], **common: Any) -> None:
        self._theirs = llm.livekit_llm
        self._arguments = arguments
        super().__init__(llm, **common)

    async def _run(self) -> None:
        # One attempt of LiveKit's stream counts as one attempt of ours.
        timeout = self._conn_options.first_output_timeout
        options = TheirOptions(max_retry=0, timeout=min(timeout, 1e6))
        stream = self._theirs.chat(
            chat_ctx=context_to_livekit(self._chat_ctx),
            tools=tools_to_livekit(self._tools),
            conn_options=options,
            **self._arguments,
        )
        try:
            async with stream:
                async for chunk in stream:
                    self._event_ch.send_nowait(_our_chunk(chunk))
        except TheirError as error:
            raise error_from_livekit(error) from error


def _our_chunk(chunk: lk.ChatChunk) -> ours.ChatChunk:
    delta = chunk.delta
    return ours.ChatChunk(
        id=chunk.id,
        delta=None
        if delta is None
        else ours.ChoiceDelta(
            role=delta.role,
            content=delta.content,
            tool_calls=[ours.FunctionToolCall(**call.model_dump()) for call in delta.tool_calls],
            extra=read(delta, "extra"),  # 1.2.17 has none
        ),
        usage=None
        if chunk.usage is None
        else ours.CompletionUsage(
            **{
                name: value
                for name, value in chunk.usage.__dict__.items()
                if name in ours.CompletionUsage.model_fields
            }
        ),
    )


def from_livekit(llm: TheirLLM) -> FromLiveKit:
    """Any LiveKit model as a `rejoinder` model, for example as a member of a `FallbackAdapter`.

    Deadlines, retries and closing are this package's; LiveKit's own retries are off.

    Raises:
        TypeError: `llm` is not a LiveKit model.
    """
    if not isinstance(llm, lk.LLM):
        raise TypeError(
            "integrations.livekit.from_livekit: expected a livekit.agents LLM, got "
            f"{type(llm).__name__}"
        )
    return FromLiveKit(llm)
