# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
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
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from rejoinder import _stamps, errors
from rejoinder.integrations._replies import (
    ReplyState,
    StateMemory,
    check_llm,
    declare_tool,
    framework_version,
)

framework_version("openai-agents", at_least=(0, 24, 0), extra="openai-agents")

import agents  # noqa: E402
from agents.items import ModelResponse  # noqa: E402
from agents.models.interface import Model as _Model  # noqa: E402
from agents.models.interface import ModelProvider as _ModelProvider  # noqa: E402
from agents.models.interface import ModelTracing  # noqa: E402
from agents.usage import Usage  # noqa: E402
from openai.types import responses as r  # noqa: E402
from openai.types.responses.response_reasoning_item import Summary  # noqa: E402
from openai.types.responses.response_usage import (  # noqa: E402
    InputTokensDetails,
    OutputTokensDetails,
)

from rejoinder.llm.chat_context import ChatContext  # noqa: E402
from rejoinder.llm.llm import (  # noqa: E402
    LLM,
    ChatChunk,
    CompletionUsage,
    FunctionToolCall,
    LLMStream,
)
from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions  # noqa: E402

__all__ = ["Model", "ModelProvider"]


class Model(_Model):
    """Any `rejoinder` model as a model of the Agents SDK.

    Retries, deadlines, hedging and fallback are those of `llm`; the SDK's own retries see only what
    is left. What providers want back of a reply and the SDK has no place for is kept here.

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
        self._llm = check_llm(llm, "integrations.openai_agents.Model")
        self._options = conn_options
        self._memory = StateMemory()

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
        reply = _Reply(self._llm.model, self._memory)
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
        reply = _Reply(self._llm.model, self._memory)
        async for event in self._events(reply, stream, tracing):
            yield event

    async def close(self) -> None:
        await self._llm.aclose()

    async def _events(
        self, reply: _Reply, stream: LLMStream, tracing: ModelTracing
    ) -> AsyncIterator[Any]:
        """The events of one reply, inside the span that the SDK records for it."""
        with agents.generation_span(model=self._llm.model, disabled=tracing.is_disabled()) as span:
            async for event in reply.read(stream):
                yield event
            span.span_data.usage = {
                "input_tokens": reply.usage.input_tokens,
                "output_tokens": reply.usage.output_tokens,
            }

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
                "`prompt` name what OpenAI stores; pass the conversation itself"
            )
        messages = [{"role": "user", "content": given}] if isinstance(given, str) else list(given)
        chat_ctx = ChatContext.from_provider_format("openai.responses", messages)
        self._memory.restore(chat_ctx.items)
        if system_instructions:
            from rejoinder.llm.chat_context import ChatMessage

            chat_ctx.items.insert(0, ChatMessage(role="system", content=[system_instructions]))
        arguments: dict[str, Any] = {}
        extra: dict[str, Any] = {
            name: value
            for name in (
                "temperature",
                "top_p",
                "frequency_penalty",
                "presence_penalty",
                "max_tokens",
                "metadata",
            )
            if (value := getattr(settings, name)) is not None
        }
        if settings.extra_headers:
            extra["extra_headers"] = dict(settings.extra_headers)
        if isinstance(settings.extra_body, Mapping):
            extra.update(settings.extra_body)
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
            raise agents.UserError(str(error)) from error


class ModelProvider(_ModelProvider):
    """Finds models by name for the Agents SDK.

    Args:
        make: makes a `rejoinder` model from a name; by default `rejoinder.catalog.create`, so that
            names are ``"provider/model"``. Models are made once per name.
        default: the name that is meant by agents that name none.
    """

    def __init__(
        self, make: Callable[[str], LLM[Any]] | None = None, *, default: str | None = None
    ) -> None:
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
    """One reply as events of the Responses API, which the runner reads."""

    def __init__(self, model: str, memory: StateMemory) -> None:
        self._model = model
        self._memory = memory
        self._id = _stamps.new_id("resp_")
        self._state = ReplyState()
        self._number = 0
        self._message: r.ResponseOutputMessage | None = None
        self._thinking: list[str] = []
        self.output: list[Any] = []
        self.usage = Usage(requests=1)
        self._counted: CompletionUsage | None = None

    async def read(self, stream: LLMStream) -> AsyncIterator[Any]:
        yield r.ResponseCreatedEvent(
            response=self._response("in_progress"),
            type="response.created",
            sequence_number=self._next(),
        )
        try:
            async with stream:
                async for chunk in stream:
                    for event in self._events(chunk):
                        yield event
        except errors.APIError as error:
            raise _sdk_error(error) from error
        for event in self._end_message():
            yield event
        self._memory.remember(self._state)
        yield r.ResponseCompletedEvent(
            response=self._response("completed"),
            type="response.completed",
            sequence_number=self._next(),
        )

    def _events(self, chunk: ChatChunk) -> Iterator[Any]:
        delta = chunk.delta
        if delta is not None:
            text = self._state.add(delta)
            if delta.thinking:
                self._thinking.append(delta.thinking)
            if text:
                yield from self._say(text)
            for call in delta.tool_calls:
                yield from self._call(call)
        if chunk.usage is not None:
            self._count(chunk.usage)

    def _say(self, text: str) -> Iterator[Any]:
        message = self._message
        if message is None:
            part = r.ResponseOutputText(text="", type="output_text", annotations=[])
            message = self._message = r.ResponseOutputMessage(
                id=_stamps.new_id("msg_"),
                content=[part],
                role="assistant",
                status="in_progress",
                type="message",
            )
            self.output.append(message)
            yield r.ResponseOutputItemAddedEvent(
                item=message.model_copy(update={"content": []}),
                output_index=len(self.output) - 1,
                type="response.output_item.added",
                sequence_number=self._next(),
            )
            yield r.ResponseContentPartAddedEvent(
                item_id=message.id,
                output_index=len(self.output) - 1,
                content_index=0,
                part=r.ResponseOutputText(text="", type="output_text", annotations=[]),
                type="response.content_part.added",
                sequence_number=self._next(),
            )
        message.content[0].text += text  # type: ignore[union-attr]
        yield r.ResponseTextDeltaEvent.model_construct(
            item_id=message.id,
            output_index=len(self.output) - 1,
            content_index=0,
            delta=text,
            logprobs=[],
            type="response.output_text.delta",
            sequence_number=self._next(),
        )

    def _end_message(self) -> Iterator[Any]:
        message, self._message = self._message, None
        if message is None:
            return
        message.status = "completed"
        index = self.output.index(message)
        yield r.ResponseContentPartDoneEvent(
            item_id=message.id,
            output_index=index,
            content_index=0,
            part=message.content[0],
            type="response.content_part.done",
            sequence_number=self._next(),
        )
        yield self._done(message, index)

    def _call(self, call: FunctionToolCall) -> Iterator[Any]:
        yield from self._end_message()
        self._memory.remember_call(call.call_id, call.extra)
        item = r.ResponseFunctionToolCall(
            id=_stamps.new_id("fc_"),
            call_id=call.call_id,
            name=call.name,
            arguments=call.arguments or "{}",
            type="function_call",
            status="completed",
        )
        self.output.append(item)
        index = len(self.output) - 1
        yield r.ResponseOutputItemAddedEvent(
            item=item.model_copy(update={"arguments": ""}),
            output_index=index,
            type="response.output_item.added",
            sequence_number=self._next(),
        )
        yield r.ResponseFunctionCallArgumentsDeltaEvent(
            item_id=item.id or "",
            output_index=index,
            delta=item.arguments,
            type="response.function_call_arguments.delta",
            sequence_number=self._next(),
        )
        yield self._done(item, index)

    def _done(self, item: Any, index: int) -> Any:
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
        output = list(self.output)
        if self._thinking and status == "completed":
            summary = Summary(text="".join(self._thinking), type="summary_text")
            output.insert(
                0,
                r.ResponseReasoningItem(
                    id=_stamps.new_id("rs_"), summary=[summary], type="reasoning"
                ),
            )
        counted = self._counted
        return r.Response(
            id=self._id,
            created_at=time.time(),
            model=self._model,
            object="response",
            output=output,
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


def _sdk_error(error: errors.APIError) -> Exception:
    if isinstance(error, errors.RefusalError):
        return agents.ModelBehaviorError(error.message)
    return error
