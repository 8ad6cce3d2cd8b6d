"""`rejoinder` models in the OpenAI Agents SDK, 0.24 or newer.

    from rejoinder.integrations.openai_agents import Model

    agent = Agent(name="Assistant", model=Model(any_rejoinder_llm))

No account of the platform is needed: with another provider, turn its tracing off by
``agents.set_tracing_disabled(True)``.

Raises:
    ImportError: ``openai-agents`` is missing or too old.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import cache
from typing import Any, cast

from rejoinder import _stamps, errors
from rejoinder._options import FUNCTION, NAME, check
from rejoinder.integrations._replies import (
    ReplyState,
    StateMemory,
    check_llm,
    declare_tool,
    framework_version,
    portable_reasoning,
    refuse_unknown_parts,
    speaker,
    tell_ignored,
    whole_arguments,
)

framework_version("openai-agents", at_least=(0, 24, 0), extra="openai-agents")

import agents  # noqa: E402
from agents.items import ModelResponse, TResponseOutputItem  # noqa: E402
from agents.models.interface import Model as _Model  # noqa: E402
from agents.models.interface import ModelProvider as _ModelProvider  # noqa: E402
from agents.models.interface import ModelTracing  # noqa: E402
from agents.retry import ModelRetryAdvice, ModelRetryAdviceRequest  # noqa: E402
from agents.usage import Usage  # noqa: E402
from openai.types import responses as r  # noqa: E402
from openai.types.responses.response_reasoning_item import Summary  # noqa: E402
from openai.types.responses.response_reasoning_summary_part_added_event import (  # noqa: E402
    Part as AddedPart,
)
from openai.types.responses.response_reasoning_summary_part_done_event import (  # noqa: E402
    Part as DonePart,
)
from openai.types.responses.response_usage import (  # noqa: E402
    InputTokensDetails,
    OutputTokensDetails,
)

from rejoinder.llm.chat_context import ChatContext, ChatMessage  # noqa: E402
from rejoinder.llm.llm import (  # noqa: E402
    LLM,
    ChatChunk,
    ChoiceDelta,
    CompletionUsage,
    FunctionToolCall,
    LLMStream,
)
from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions  # noqa: E402

__all__ = ["Model", "ModelProvider"]

_OUR_REASONING = "rs_rejoinder_"
"""Prefix of the ids of reasoning items that show a model's thinking."""

_PASSED = frozenset(
    {
        *("temperature", "top_p", "frequency_penalty", "presence_penalty", "max_tokens"),
        *("metadata", "verbosity", "truncation"),
    }
)
"""Settings that are passed on under their own names."""

_SEEN_TO = frozenset(
    {
        *("extra_args", "extra_body", "extra_headers", "extra_query", "parallel_tool_calls"),
        *("reasoning", "timeout", "tool_choice"),
        # Settings that the runner handles itself, and settings that always apply here.
        *("include_usage", "retry"),
    }
)


class Model(_Model):
    """Any `rejoinder` model as a model of the Agents SDK.

    Retries, deadlines, hedging and fallback are those of `llm`; the SDK's own retries see only the
    remaining errors. This object keeps provider state that must be sent back and that the SDK's items
    cannot hold.

    Args:
        llm: the model.
        conn_options: deadlines and retries of requests; ``ModelSettings.timeout`` replaces its
            `timeout`.

    Raises:
        TypeError: `llm` is not a `rejoinder` model.
    """

    def __init__(
        self, llm: LLM[Any], *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> None:
        self._llm = check_llm(llm, "integrations.openai_agents.Model", conn_options)
        self._options = conn_options
        self._memory = StateMemory()
        self._told: set[str] = set()
        _warm_up()

    async def get_response(
        self,
        system_instructions: str | None,
        input: Any,
        model_settings: agents.ModelSettings,
        tools: list[agents.Tool],
        output_schema: agents.AgentOutputSchemaBase | None,
        handoffs: list[agents.Handoff],
        tracing: ModelTracing,
        *,
        previous_response_id: str | None,
        conversation_id: str | None,
        prompt: Any,
    ) -> ModelResponse:
        stream = self._ask(
            system_instructions,
            input,
            model_settings,
            tools,
            output_schema,
            handoffs,
            previous_response_id or conversation_id,
            prompt,
        )
        reply = _Reply(speaker(self._llm)[0], self._memory)
        async for _ in self._events(reply, stream, tracing):
            pass
        return ModelResponse(output=reply.output, usage=reply.usage, response_id=None)

    async def stream_response(
        self,
        system_instructions: str | None,
        input: Any,
        model_settings: agents.ModelSettings,
        tools: list[agents.Tool],
        output_schema: agents.AgentOutputSchemaBase | None,
        handoffs: list[agents.Handoff],
        tracing: ModelTracing,
        *,
        previous_response_id: str | None,
        conversation_id: str | None,
        prompt: Any,
    ) -> AsyncIterator[Any]:
        stream = self._ask(
            system_instructions,
            input,
            model_settings,
            tools,
            output_schema,
            handoffs,
            previous_response_id or conversation_id,
            prompt,
        )
        reply = _Reply(speaker(self._llm)[0], self._memory)
        async with aclosing(self._events(reply, stream, tracing)) as events:
            async for event in events:
                yield event

    async def close(self) -> None:
        await self._llm.aclose()

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice | None:
        """Advise against more retries, because the model's own stream has already retried."""
        if not isinstance(request.error, errors.APIError):
            return None
        return ModelRetryAdvice(suggested=False, reason="rejoinder has retried already")

    async def _events(
        self, reply: _Reply, stream: LLMStream, tracing: ModelTracing
    ) -> AsyncGenerator[Any]:
        """The events of one reply, with the span that the SDK records for it."""
        span = agents.generation_span(model=speaker(self._llm)[0], disabled=tracing.is_disabled())
        # Not the current span, because a generator may be closed in another context.
        span.start(mark_as_current=False)
        try:
            async for event in reply.read(stream):
                yield event
            span.span_data.usage = {
                "input_tokens": reply.usage.input_tokens,
                "output_tokens": reply.usage.output_tokens,
            }
        except Exception as error:
            message = str(error) if tracing.include_data() else ""
            span.set_error({"message": type(error).__name__, "data": {"message": message}})
            raise
        finally:
            await stream.aclose()
            span.finish(reset_current=False)

    def _ask(
        self,
        system_instructions: str | None,
        given: Any,
        settings: agents.ModelSettings,
        tools: list[agents.Tool],
        output_schema: agents.AgentOutputSchemaBase | None,
        handoffs: list[agents.Handoff],
        stored: str | None,
        prompt: Any,
    ) -> LLMStream:
        if stored is not None or prompt is not None:
            raise agents.UserError(
                "integrations.openai_agents.Model: `previous_response_id`, `conversation_id` and "
                "`prompt` refer to data stored at OpenAI; pass the conversation itself"
            )
        chat_ctx = _context(given)
        self._memory.restore(chat_ctx.items)
        if system_instructions:
            chat_ctx.items.insert(0, ChatMessage(role="system", content=[system_instructions]))
        arguments: dict[str, Any] = {}
        given_settings: dict[str, Any] = {
            name: value for name, value in vars(settings).items() if value is not None
        }
        extra = {name: value for name, value in given_settings.items() if name in _PASSED}
        ignored = given_settings.keys() - _PASSED - _SEEN_TO
        if settings.reasoning is not None:
            # The object may hold an effort, and members that only OpenAI supports.
            said = settings.reasoning.model_dump(exclude_none=True)
            if (effort := said.pop("effort", None)) is not None:
                extra["reasoning"] = portable_reasoning(effort)
            ignored |= {f"reasoning.{name}" for name in said}
        tell_ignored("integrations.openai_agents.Model", ignored, self._told)
        if settings.extra_headers:
            extra["extra_headers"] = dict(settings.extra_headers)
        if settings.extra_query:
            extra["extra_query"] = dict(settings.extra_query)
        body: Any = settings.extra_body
        if isinstance(body, Mapping):
            extra.update(cast("Mapping[str, Any]", body))
        extra.update(settings.extra_args or {})
        if extra:
            arguments["extra_kwargs"] = extra
        if settings.parallel_tool_calls is not None:
            arguments["parallel_tool_calls"] = settings.parallel_tool_calls
        if settings.tool_choice is not None:
            choice = settings.tool_choice
            arguments["tool_choice"] = (
                choice
                if choice in ("auto", "required", "none")
                else {"type": "function", "function": {"name": choice}}
            )
        if output_schema is not None and not output_schema.is_plain_text():
            arguments["response_format"] = {
                "type": "json_schema",
                "json_schema": {
                    "name": "final_output",
                    "schema": output_schema.json_schema(),
                    "strict": output_schema.is_strict_json_schema(),
                },
            }
        options = self._options
        if settings.timeout is not None:
            options = replace(options, timeout=float(settings.timeout))
        try:
            return self._llm.chat(
                chat_ctx=chat_ctx,
                tools=[*map(_declared, tools), *map(_handed_off, handoffs)],
                conn_options=options,
                **arguments,
            )
        except errors.ConfigurationError as error:
            raise _sdk_error(error) from error


@cache
def _warm_up() -> None:
    """Do once what would delay the first turn of the process by a fifth of a second: import the code
    that reads the SDK's items, and build the schemas of events, which `openai` builds lazily."""
    _context([])
    reply = _Reply("", StateMemory())
    call = FunctionToolCall(name="a", arguments="{}", call_id="a")
    counted = CompletionUsage(completion_tokens=0, prompt_tokens=0, total_tokens=0)
    for delta in (
        ChoiceDelta(thinking="a"),
        ChoiceDelta(content="a"),
        ChoiceDelta(tool_calls=[call]),
    ):
        for _ in reply.take(ChatChunk(id="a", delta=delta, usage=counted)):
            pass
    for _ in (*reply.begin(), *reply.end()):
        pass


class ModelProvider(_ModelProvider):
    """Finds models by name for the Agents SDK.

    Args:
        make: makes a `rejoinder` model from a name; by default `rejoinder.catalog.create`, so that
            names are ``"provider/model"``. Models are made once per name.
        default: the model of agents that name none.
    """

    def __init__(
        self, make: Callable[[str], LLM[Any]] | None = None, *, default: str | None = None
    ) -> None:
        check(
            "integrations.openai_agents.ModelProvider",
            make=(make, FUNCTION.optional),
            default=(default, NAME.optional),
        )
        self._make = make
        self._default = default
        self._models: dict[str, Model] = {}

    def get_model(self, model_name: str | None) -> Model:
        """The model of this name.

        Raises:
            agents.UserError: neither the agent nor `default` names a model.
        """
        name = model_name or self._default
        if name is None:
            raise agents.UserError(
                "integrations.openai_agents.ModelProvider: the agent names no model; pass "
                "Agent(model=...) or default="
            )
        known = self._models.get(name)
        if known is None:
            make = self._make
            if make is None:
                from rejoinder.catalog import create as make
            known = self._models[name] = Model(make(name))
        return known

    async def aclose(self) -> None:
        for model in self._models.values():
            await model.close()


def _context(given: Any) -> ChatContext:
    """The conversation in the SDK's items.

    Raises:
        agents.UserError: an item or a part of one cannot be passed on.
    """
    if isinstance(given, str):
        return ChatContext([ChatMessage(role="user", content=[given])])
    entries: list[Any] = []
    returned: list[Any] = []  # results of tools other than text follow the last output
    for entry in given:
        kind = entry.get("type")
        if kind == "reasoning" and str(entry.get("id", "")).startswith(_OUR_REASONING):
            continue  # made here; no provider knows this id
        output: Any = entry.get("output") if kind == "function_call_output" else None
        if kind != "function_call_output" and returned:
            entries.append({"role": "user", "content": returned})
            returned = []
        if isinstance(output, list):
            parts = cast("list[Any]", output)
            texts = [part["text"] for part in parts if part.get("type") == "input_text"]
            returned += [part for part in parts if part.get("type") != "input_text"]
            entry = {**entry, "output": "\n".join(texts)}
        entries.append(entry)
    if returned:
        entries.append({"role": "user", "content": returned})
    try:
        chat_ctx = ChatContext.from_provider_format("openai.responses", entries)
        refuse_unknown_parts(chat_ctx.items, "integrations.openai_agents.Model")
    except (ValueError, errors.ConfigurationError) as error:
        raise agents.UserError(str(error)) from error
    return chat_ctx


def _declared(tool: Any) -> Any:
    if isinstance(tool, agents.FunctionTool):
        return declare_tool(tool.name, tool.description, tool.params_json_schema)
    raise agents.UserError(
        f"integrations.openai_agents.Model: {type(tool).__name__} runs at OpenAI and is not passed "
        "on; use function tools"
    )


def _handed_off(handoff: Any) -> Any:
    return declare_tool(handoff.tool_name, handoff.tool_description, handoff.input_json_schema)


# -- replies -------------------------------------------------------------------------------------


class _Reply:
    """One reply as events of the Responses API, which the runner reads.

    Their order is that of OpenAI: each item is opened, filled and closed before the next one.
    """

    def __init__(self, model: str, memory: StateMemory) -> None:
        self._model = model
        self._memory = memory
        self._id = _stamps.new_id("resp_")
        self._state = ReplyState()
        self._number = 0
        self._message: r.ResponseOutputMessage | None = None
        self._reasoning: r.ResponseReasoningItem | None = None
        self._written: list[str] = []
        """The text of the open item."""
        self._counted: CompletionUsage | None = None
        self.output: list[TResponseOutputItem] = []
        self.usage = Usage(requests=1)

    async def read(self, stream: LLMStream) -> AsyncIterator[Any]:
        for event in self.begin():
            yield event
        try:
            async for chunk in stream:
                for event in self.take(chunk):
                    yield event
        except (errors.APIError, errors.ConfigurationError) as error:
            raise _sdk_error(error) from error
        for event in self.end():
            yield event

    def begin(self) -> Iterator[Any]:
        yield r.ResponseCreatedEvent(
            response=self._response("in_progress"),
            type="response.created",
            sequence_number=self._next(),
        )
        yield r.ResponseInProgressEvent(
            response=self._response("in_progress"),
            type="response.in_progress",
            sequence_number=self._next(),
        )

    def end(self) -> Iterator[Any]:
        yield from self._close()
        self._memory.remember(self._state)
        yield r.ResponseCompletedEvent(
            response=self._response("completed"),
            type="response.completed",
            sequence_number=self._next(),
        )

    def take(self, chunk: ChatChunk) -> Iterator[Any]:
        delta = chunk.delta
        if delta is not None:
            text = self._state.add(delta)
            if delta.thinking:
                yield from self._think(delta.thinking)
            if text:
                yield from self._say(text)
            for call in delta.tool_calls:
                yield from self._call(call)
        if chunk.usage is not None:
            self._count(chunk.usage)

    def _say(self, text: str) -> Iterator[Any]:
        message = self._message
        if message is None:
            yield from self._close()
            part = r.ResponseOutputText(text="", type="output_text", annotations=[], logprobs=[])
            message = self._message = r.ResponseOutputMessage(
                id=_stamps.new_id("msg_"),
                content=[part],
                role="assistant",
                status="in_progress",
                type="message",
            )
            yield self._added(message, message.model_copy(update={"content": []}))
            yield r.ResponseContentPartAddedEvent(
                item_id=message.id,
                output_index=len(self.output) - 1,
                content_index=0,
                part=part.model_copy(),
                type="response.content_part.added",
                sequence_number=self._next(),
            )
        self._written.append(text)
        # Validated: that takes a tenth of the time of `model_construct`.
        yield r.ResponseTextDeltaEvent(
            item_id=message.id,
            output_index=len(self.output) - 1,
            content_index=0,
            delta=text,
            logprobs=[],
            type="response.output_text.delta",
            sequence_number=self._next(),
        )

    def _think(self, text: str) -> Iterator[Any]:
        item = self._reasoning
        if item is None:
            yield from self._close()
            item = self._reasoning = r.ResponseReasoningItem(
                id=_stamps.new_id(_OUR_REASONING), summary=[], type="reasoning"
            )
            yield self._added(item, item.model_copy())
            yield r.ResponseReasoningSummaryPartAddedEvent(
                item_id=item.id,
                output_index=len(self.output) - 1,
                summary_index=0,
                part=AddedPart(text="", type="summary_text"),
                type="response.reasoning_summary_part.added",
                sequence_number=self._next(),
            )
        self._written.append(text)
        yield r.ResponseReasoningSummaryTextDeltaEvent(
            item_id=item.id,
            output_index=len(self.output) - 1,
            summary_index=0,
            delta=text,
            type="response.reasoning_summary_text.delta",
            sequence_number=self._next(),
        )

    def _close(self) -> Iterator[Any]:
        """End the open item, if there is one."""
        text = "".join(self._written)
        self._written = []
        index = len(self.output) - 1
        message, self._message = self._message, None
        if message is not None:
            part = r.ResponseOutputText(text=text, type="output_text", annotations=[], logprobs=[])
            message.content = [part]
            message.status = "completed"
            yield r.ResponseTextDoneEvent(
                item_id=message.id,
                output_index=index,
                content_index=0,
                text=text,
                logprobs=[],
                type="response.output_text.done",
                sequence_number=self._next(),
            )
            yield r.ResponseContentPartDoneEvent(
                item_id=message.id,
                output_index=index,
                content_index=0,
                part=part,
                type="response.content_part.done",
                sequence_number=self._next(),
            )
            yield self._done(message, index)
        item, self._reasoning = self._reasoning, None
        if item is not None:
            item.summary = [Summary(text=text, type="summary_text")]
            yield r.ResponseReasoningSummaryTextDoneEvent(
                item_id=item.id,
                output_index=index,
                summary_index=0,
                text=text,
                type="response.reasoning_summary_text.done",
                sequence_number=self._next(),
            )
            yield r.ResponseReasoningSummaryPartDoneEvent(
                item_id=item.id,
                output_index=index,
                summary_index=0,
                part=DonePart(text=text, type="summary_text"),
                type="response.reasoning_summary_part.done",
                sequence_number=self._next(),
            )
            yield self._done(item, index)

    def _call(self, call: FunctionToolCall) -> Iterator[Any]:
        yield from self._close()
        self._memory.remember_call(call.call_id, call.extra)
        item = r.ResponseFunctionToolCall(
            id=_stamps.new_id("fc_"),
            call_id=call.call_id,
            name=call.name,
            arguments=whole_arguments(call),
            type="function_call",
            status="completed",
        )
        yield self._added(item, item.model_copy(update={"arguments": "", "status": "in_progress"}))
        index = len(self.output) - 1
        yield r.ResponseFunctionCallArgumentsDeltaEvent(
            item_id=item.id or "",
            output_index=index,
            delta=item.arguments,
            type="response.function_call_arguments.delta",
            sequence_number=self._next(),
        )
        yield r.ResponseFunctionCallArgumentsDoneEvent(
            item_id=item.id or "",
            output_index=index,
            arguments=item.arguments,
            type="response.function_call_arguments.done",
            sequence_number=self._next(),
        )
        yield self._done(item, index)

    def _added(self, item: TResponseOutputItem, shown: TResponseOutputItem) -> Any:
        self.output.append(item)
        return r.ResponseOutputItemAddedEvent(
            item=shown,
            output_index=len(self.output) - 1,
            type="response.output_item.added",
            sequence_number=self._next(),
        )

    def _done(self, item: TResponseOutputItem, index: int) -> Any:
        return r.ResponseOutputItemDoneEvent(
            item=item,
            output_index=index,
            type="response.output_item.done",
            sequence_number=self._next(),
        )

    def _count(self, counted: CompletionUsage) -> None:
        self._counted = counted
        self.usage = Usage(
            requests=1,
            input_tokens=counted.prompt_tokens,
            output_tokens=counted.completion_tokens,
            total_tokens=counted.total_tokens,
            input_tokens_details=_input_details(counted),
            output_tokens_details=OutputTokensDetails(reasoning_tokens=counted.reasoning_tokens),
        )

    def _response(self, status: Any) -> r.Response:
        counted = self._counted
        return r.Response(
            id=self._id,
            created_at=time.time(),
            model=self._model,
            object="response",
            output=list(self.output) if status == "completed" else [],
            tool_choice="auto",
            tools=[],
            parallel_tool_calls=False,
            status=status,
            usage=None
            if counted is None
            else r.ResponseUsage(
                input_tokens=counted.prompt_tokens,
                output_tokens=counted.completion_tokens,
                total_tokens=counted.total_tokens,
                input_tokens_details=_input_details(counted),
                output_tokens_details=OutputTokensDetails(
                    reasoning_tokens=counted.reasoning_tokens
                ),
            ),
        )

    def _next(self) -> int:
        self._number += 1
        return self._number - 1


def _input_details(counted: CompletionUsage) -> InputTokensDetails:
    return InputTokensDetails.model_validate(
        {
            "cached_tokens": counted.cache_read_tokens or counted.prompt_cached_tokens,
            "cache_write_tokens": counted.cache_creation_tokens,
        }
    )


def _sdk_error(error: errors.APIError | errors.ConfigurationError) -> Exception:
    if isinstance(error, errors.ConfigurationError):
        return agents.UserError(str(error))
    if isinstance(error, errors.RefusalError):
        return agents.ModelBehaviorError(error.message)
    return error
