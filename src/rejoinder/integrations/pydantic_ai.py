"""`rejoinder` models in Pydantic AI, 2.68 or newer.

    from rejoinder.integrations.pydantic_ai import Model

    agent = Agent(Model(any_rejoinder_llm))

Raises:
    ImportError: ``pydantic-ai`` is missing or too old.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, Literal, TypeAlias, cast

from rejoinder import errors
from rejoinder._foreign import read
from rejoinder.integrations._replies import (
    ReplyState,
    check_llm,
    declare_tool,
    framework_version,
    last_failure,
    portable_reason,
    portable_reasoning,
    speaker,
    tell_ignored,
    whole_arguments,
)

framework_version("pydantic-ai-slim", at_least=(2, 68, 0), extra="pydantic-ai")

from pydantic_ai import exceptions, models, usage  # noqa: E402
from pydantic_ai import messages as their  # noqa: E402
from pydantic_ai.profiles import ModelProfile  # noqa: E402
from pydantic_ai.settings import ModelSettings, ToolOrOutput  # noqa: E402

from rejoinder.llm.chat_context import (  # noqa: E402
    AudioContent,
    ChatContent,
    ChatContext,
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)
from rejoinder.llm.llm import (  # noqa: E402
    LLM,
    ChatChunk,
    CompletionUsage,
    FunctionToolCall,
    LLMStream,
)
from rejoinder.llm.utils import serialize_image  # noqa: E402
from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions  # noqa: E402

__all__ = ["Model", "to_messages"]

_STATE = "rejoinder"
"""Key of a reply's provider state in `provider_details`, and of the data that `to_messages` wrote in
`metadata` of a tool's return."""

_SETTINGS = {
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "logit_bias": "logit_bias",
    "stop_sequences": "stop",
    "extra_headers": "extra_headers",
}
_HANDLED = frozenset(
    {
        *_SETTINGS,
        *("extra_body", "max_retries", "parallel_tool_calls", "thinking", "timeout", "tool_choice"),
        # Pydantic AI handles these settings itself, for every model.
        *("first_event_timeout", "framing_announcement", "request_timeout"),
    }
)


class Model(models.Model):
    """Any `rejoinder` model as a model of Pydantic AI.

    Retries, deadlines, hedging and fallback are those of `llm`. A fallback that restarts a broken
    reply leaves the words before the break in the text.

    Args:
        llm: the model.
        settings: default settings, merged with those of agents and runs.
        profile: the model's abilities; by default tools, JSON schemas and pictures.
        conn_options: deadlines and retries of requests; the setting ``timeout`` replaces its
            `timeout`.

    Raises:
        TypeError: `llm` is not a `rejoinder` model.
    """

    def __init__(
        self,
        llm: LLM[Any],
        *,
        settings: ModelSettings | None = None,
        profile: Any = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> None:
        self._llm = check_llm(llm, "integrations.pydantic_ai.Model", conn_options)
        self._options = conn_options
        self._told: set[str] = set()
        if profile is None:
            profile = ModelProfile(
                supports_tools=True,
                supports_json_schema_output=True,
                supports_json_object_output=True,
                supports_image_input=True,
                supports_inline_system_prompts=True,
                supports_thinking=True,
                default_structured_output_mode="tool",
            )
        import_module("anyio._backends._asyncio")  # otherwise the first run would wait for it
        super().__init__(settings=settings, profile=profile)

    @property
    def model_name(self) -> str:
        """The name of `llm`; of a fallback, that of the model that spoke last."""
        return speaker(self._llm)[0]

    @property
    def system(self) -> str:
        """The provider of `llm`; of a fallback, that of the model that spoke last."""
        return speaker(self._llm)[1]

    async def request(
        self,
        messages: list[their.ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: models.ModelRequestParameters,
    ) -> their.ModelResponse:
        models.check_allow_model_requests()
        settings, parameters = self.prepare_request(model_settings, model_request_parameters)
        async with self._ask(messages, settings, parameters) as stream:
            reply = _Reply(model_request_parameters=parameters, _model=self, _stream=stream)
            async for _ in reply:
                pass
        return reply.get()

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[their.ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: models.ModelRequestParameters,
        run_context: Any = None,
    ) -> AsyncGenerator[models.StreamedResponse]:
        models.check_allow_model_requests()
        settings, parameters = self.prepare_request(model_settings, model_request_parameters)
        async with self._ask(messages, settings, parameters) as stream:
            # The first piece is awaited here: a model that fails before it has said anything can
            # still be replaced by Pydantic AI's own FallbackModel.
            first = await self._first(stream)
            yield _Reply(
                model_request_parameters=parameters, _model=self, _stream=stream, _first=first
            )

    async def _first(self, stream: LLMStream) -> ChatChunk | None:
        try:
            return await anext(aiter(stream), None)
        except (errors.APIError, errors.ConfigurationError) as error:
            raise self._error(error) from error

    def _ask(
        self,
        messages: Sequence[their.ModelMessage],
        settings: ModelSettings | None,
        parameters: models.ModelRequestParameters,
    ) -> LLMStream:
        given = dict(settings or {})
        options = self._options
        timeout = given.get("timeout")
        if isinstance(timeout, int | float):
            options = replace(options, timeout=float(timeout))
        if given.get("max_retries") is not None:
            options = replace(options, max_retry=given["max_retries"])
        arguments: dict[str, Any] = {}
        extra = {
            ours: given[name] for name, ours in _SETTINGS.items() if given.get(name) is not None
        }
        if parameters.thinking is not None:
            extra["reasoning"] = portable_reasoning(parameters.thinking)
        ignored = [name for name, value in given.items() if value is not None]
        tell_ignored(
            "integrations.pydantic_ai.Model", set(ignored).difference(_HANDLED), self._told
        )
        extra_body = given.get("extra_body")
        if isinstance(extra_body, dict):
            extra.update(cast("dict[str, Any]", extra_body))
        if extra:
            arguments["extra_kwargs"] = extra
        if given.get("parallel_tool_calls") is not None:
            arguments["parallel_tool_calls"] = given["parallel_tool_calls"]
        definitions = [*parameters.function_tools, *parameters.output_tools]
        choice, definitions = _tool_choice(given.get("tool_choice"), parameters, definitions)
        if choice is not None:
            arguments["tool_choice"] = choice
        schema = parameters.output_object
        if parameters.output_mode == "native" and schema is not None:
            arguments["response_format"] = {
                "type": "json_schema",
                "json_schema": {
                    "name": schema.name or "final_result",
                    "description": schema.description or "",
                    "schema": schema.json_schema,
                    "strict": schema.strict is not False,
                },
            }
        if parameters.native_tools:
            names = ", ".join(type(tool).__name__ for tool in parameters.native_tools)
            raise exceptions.UserError(
                f"integrations.pydantic_ai.Model: native tools ({names}) run at a provider and are "
                "not passed on; use function tools"
            )
        try:
            return self._llm.chat(
                chat_ctx=self._context(messages, parameters),
                tools=[
                    declare_tool(tool.name, tool.description, tool.parameters_json_schema)
                    for tool in definitions
                ],
                conn_options=options,
                **arguments,
            )
        except errors.ConfigurationError as error:
            raise self._error(error) from error

    # -- messages ----------------------------------------------------------------------------

    def _context(
        self,
        messages: Sequence[their.ModelMessage],
        parameters: models.ModelRequestParameters,
    ) -> ChatContext:
        # Agents have already prepared the messages; doing it again would repeat Pydantic AI's notes.
        items: list[Any] = []
        instructions = self._get_instruction_parts(list(messages), parameters)
        if instructions:
            text = "\n\n".join(part.content for part in instructions)
            items.append(ChatMessage(role="system", content=[text]))
        for message in messages:
            if isinstance(message, their.ModelRequest):
                items += _items_of_request(message.parts)
            else:
                items += _items_of_response(message)
        return ChatContext(items)

    # -- errors ------------------------------------------------------------------------------

    def _error(self, error: errors.APIError | errors.ConfigurationError) -> Exception:
        if isinstance(error, errors.ConfigurationError):
            return exceptions.UserError(str(error))
        if isinstance(error, errors.RefusalError):
            return exceptions.ContentFilterError(error.message)
        failure = last_failure(error)
        if isinstance(failure, errors.APIStatusError) and failure.status_code >= 400:
            body = failure.message if failure.body is None else failure.body
            return exceptions.ModelHTTPError(
                status_code=failure.status_code, model_name=self.model_name, body=body
            )
        return exceptions.ModelAPIError(model_name=self.model_name, message=str(error))


def _state(details: dict[str, Any] | None) -> dict[str, Any]:
    found = (details or {}).get(_STATE)
    return dict(cast("dict[str, Any]", found)) if isinstance(found, dict) else {}


def _items_of_response(message: their.ModelResponse) -> list[Any]:
    items: list[Any] = []
    state = _state(message.provider_details)
    for part in message.parts:
        if isinstance(part, their.TextPart):
            extra = {**state, **_state(part.provider_details)}
            if part.content or extra:
                said: list[Any] = [part.content] if part.content else []
                items.append(ChatMessage(role="assistant", content=said, extra=extra))
                state = {}
        elif isinstance(part, their.ToolCallPart):
            items.append(
                FunctionCall(
                    call_id=part.tool_call_id,
                    name=part.tool_name,
                    arguments=part.args_as_json_str(),
                    extra={**state, **_state(part.provider_details)},
                )
            )
            state = {}
    return items


def _items_of_request(parts: Sequence[their.ModelRequestPart]) -> list[Any]:
    items: list[Any] = []
    returned: list[Any] = []  # results of tools other than text follow the last output
    for part in parts:
        if isinstance(part, their.SystemPromptPart):
            items.append(ChatMessage(role="system", content=[part.content]))
        elif isinstance(part, their.UserPromptPart):
            given = [part.content] if isinstance(part.content, str) else part.content
            items.append(ChatMessage(role="user", content=_contents(given)))
        elif isinstance(part, their.ToolReturnPart):
            # The output of a `ChatContext` is already the text that the model reads.
            noted: Any = part.metadata
            ours = isinstance(noted, dict) and _STATE in cast("dict[str, Any]", noted)
            text, files = part.model_response_str_and_user_content(wrap_if_error=not ours)
            items.append(
                FunctionCallOutput(
                    call_id=part.tool_call_id,
                    name=part.tool_name,
                    output=text,
                    is_error=part.outcome != "success",
                )
            )
            returned += _contents(files)
        else:
            raise exceptions.UserError(
                f"integrations.pydantic_ai.Model: a request holds a {type(part).__name__}, which "
                "cannot be passed on; agents turn it into one that can, and so does "
                "`model.prepare_messages(messages)`"
            )
    if returned:
        items.append(ChatMessage(role="user", content=returned))
    return items


def _contents(given: Sequence[their.UserContent]) -> list[Any]:
    return [part for part in map(_content_of, given) if part is not None]


def _content_of(item: their.UserContent) -> Any:
    if isinstance(item, str):
        return item
    if isinstance(item, their.TextContent):
        return item.content
    if isinstance(item, their.ImageUrl):
        return ImageContent(image=item.url, inference_detail=_detail(item.vendor_metadata))
    if isinstance(item, their.DocumentUrl):
        return ImageContent(image=item.url, mime_type=item.media_type)
    if isinstance(item, their.BinaryContent):
        if item.is_image:
            return ImageContent(
                image=item.data_uri,
                mime_type=item.media_type,
                inference_detail=_detail(item.vendor_metadata),
            )
        if item.media_type.startswith("text/"):
            return item.data.decode("utf-8", "replace")
        if item.is_document:
            return ImageContent(image=item.data_uri, mime_type=item.media_type)
        if item.is_audio:
            return _audio(item)
    if isinstance(item, their.CachePoint):
        return None
    raise exceptions.UserError(
        f"integrations.pydantic_ai.Model: a prompt holds {_name_of(item)}, which cannot be passed on; "
        "pass its text, a picture, a document, or sound as WAV"
    )


def _detail(metadata: dict[str, Any] | None) -> Literal["auto", "high", "low"]:
    detail = (metadata or {}).get("detail")
    return detail if detail in ("high", "low") else "auto"


def _audio(item: their.BinaryContent) -> AudioContent:
    import io
    import wave

    from rejoinder.media import AudioFrame

    try:
        with wave.open(io.BytesIO(item.data)) as sound:
            if sound.getsampwidth() != 2:
                raise exceptions.UserError(
                    "integrations.pydantic_ai.Model: expected sound of 16 bits a sample, got "
                    f"{8 * sound.getsampwidth()}"
                )
            samples = sound.getnframes()
            frame = AudioFrame(
                sound.readframes(samples), sound.getframerate(), sound.getnchannels(), samples
            )
    except (wave.Error, EOFError) as error:
        raise exceptions.UserError(
            f"integrations.pydantic_ai.Model: expected sound as WAV, got {item.media_type} ({error})"
        ) from error
    transcript = (item.vendor_metadata or {}).get("transcript")
    return AudioContent(
        frame=[frame], transcript=transcript if isinstance(transcript, str) else None
    )


def _name_of(item: Any) -> str:
    media_type = read(item, "media_type")
    return f"{type(item).__name__} ({media_type})" if media_type else type(item).__name__


def _tool_choice(
    choice: Any, parameters: models.ModelRequestParameters, definitions: list[Any]
) -> tuple[Any, list[Any]]:
    """Our `tool_choice`, and the tools that may be called."""
    if choice == "none" or choice == []:
        definitions = list(parameters.output_tools)
        return (
            "required" if definitions and not parameters.allow_text_output else "none"
        ), definitions
    if isinstance(choice, ToolOrOutput):
        names = {*choice.function_tools, *(tool.name for tool in parameters.output_tools)}
        definitions = [tool for tool in definitions if tool.name in names]
        choice = None
    elif isinstance(choice, list):
        definitions = [tool for tool in definitions if tool.name in choice]
        if len(definitions) == 1:
            return {"type": "function", "function": {"name": definitions[0].name}}, definitions
        return "required", definitions
    if choice == "required" or (definitions and not parameters.allow_text_output):
        return "required", definitions
    return None, definitions


# -- histories -----------------------------------------------------------------------------------


def to_messages(chat_ctx: ChatContext) -> list[their.ModelMessage]:
    """The conversation as a history for ``agent.run(message_history=...)``.

    `Model` reads texts, pictures, documents, sound of the user, tool calls and their outputs back as
    they were, with thinking and other provider state in `extra` of replies and calls. Developer
    messages become system prompts, several texts of one reply become one, and sound of the
    assistant becomes its transcript. `AgentHandoff` and `AgentConfigUpdate` items, ids of messages,
    `interrupted`, `metrics`, and `extra` of other messages than replies are left out.

    Pydantic AI repairs a history before each request: it drops outputs without a call, moves outputs
    into the order of their calls, and adds an output to calls that have none.

    Raises:
        TypeError: `chat_ctx` is not a `ChatContext`.
        ValueError: a picture cannot be read, sound changes its rate within one part, or a picture
            stands in a message that is not the user's.
    """
    if not isinstance(cast("object", chat_ctx), ChatContext):
        raise TypeError(
            "integrations.pydantic_ai.to_messages: expected a rejoinder ChatContext, got "
            f"{type(chat_ctx).__name__}"
        )
    messages: list[their.ModelMessage] = []
    asked: list[their.ModelRequestPart] = []
    replied: list[their.ModelResponsePart] = []

    def close() -> None:
        if asked:
            messages.append(their.ModelRequest(parts=list(asked)))
            asked.clear()
        if replied:
            messages.append(their.ModelResponse(parts=list(replied), timestamp=at))
            replied.clear()

    at = datetime.now(UTC)
    for item in chat_ctx.items:
        part = _part_of(item)
        if part is None:
            continue
        replies = isinstance(part, their.TextPart | their.ToolCallPart)
        if asked if replies else replied:
            close()
        if isinstance(part, their.TextPart | their.ToolCallPart):
            if not replied:
                at = _time_of(item)
            replied.append(part)
        else:
            asked.append(part)
    close()
    return messages


_Part: TypeAlias = (
    their.SystemPromptPart
    | their.UserPromptPart
    | their.ToolReturnPart
    | their.TextPart
    | their.ToolCallPart
)


def _part_of(item: ChatItem) -> _Part | None:
    match item:
        case FunctionCall():
            return their.ToolCallPart(
                tool_name=item.name,
                args=item.arguments,
                tool_call_id=item.call_id,
                **_kept(item.extra),
            )
        case FunctionCallOutput():
            return their.ToolReturnPart(
                tool_name=item.name,
                content=item.output,
                tool_call_id=item.call_id,
                outcome="failed" if item.is_error else "success",
                metadata={_STATE: {}},
                timestamp=_time_of(item),
            )
        case ChatMessage(role="assistant"):
            text = _text_of(item)
            return their.TextPart(text, **_kept(item.extra)) if text or item.extra else None
        case ChatMessage(role="user"):
            content = [_user_content(part, item.id) for part in item.content]
            return their.UserPromptPart(content, timestamp=_time_of(item)) if content else None
        case ChatMessage():
            text = _text_of(item)
            return their.SystemPromptPart(text, timestamp=_time_of(item)) if text else None
        case _:
            return None


def _time_of(item: ChatItem) -> datetime:
    return datetime.fromtimestamp(item.created_at, UTC)


def _kept(extra: dict[str, Any]) -> dict[str, Any]:
    # A part with details has to name their provider.
    return {"provider_name": _STATE, "provider_details": {_STATE: dict(extra)}} if extra else {}


def _text_of(message: ChatMessage) -> str:
    texts: list[str] = []
    for part in message.content:
        if isinstance(part, ImageContent):
            raise ValueError(
                f"integrations.pydantic_ai.to_messages: the {message.role} message {message.id!r} "
                "holds a picture, for which Pydantic AI has no place there; move it to a user message"
            )
        texts.append(part if isinstance(part, str) else part.transcript or "")
    return "\n".join(text for text in texts if text)


def _user_content(part: ChatContent, message_id: str) -> their.UserContent:
    if isinstance(part, str):
        return part
    if isinstance(part, AudioContent):
        return _wav(part, message_id)
    metadata = None if part.inference_detail == "auto" else {"detail": part.inference_detail}
    if isinstance(part.image, str) and not part.image.startswith("data:"):
        if part.mime_type is None or part.mime_type.startswith("image/"):
            return their.ImageUrl(part.image, media_type=part.mime_type, vendor_metadata=metadata)
        return their.DocumentUrl(part.image, media_type=part.mime_type)
    try:
        if isinstance(part.image, str):
            read = their.BinaryContent.from_data_uri(part.image)
            data, media_type = read.data, read.media_type
        else:
            picture = serialize_image(part)
            data, media_type = picture.data_bytes or b"", picture.mime_type or "image/jpeg"
    except ValueError as error:
        raise ValueError(
            f"integrations.pydantic_ai.to_messages: a picture of the message {message_id!r} cannot "
            f"be read: {error}"
        ) from error
    return their.BinaryContent(data, media_type=media_type, vendor_metadata=metadata)


def _wav(sound: AudioContent, message_id: str) -> their.UserContent:
    import io
    import wave

    if not sound.frame:
        return sound.transcript or ""
    first = sound.frame[0]
    shapes = {(frame.sample_rate, frame.num_channels) for frame in sound.frame}
    if len(shapes) > 1:
        raise ValueError(
            f"integrations.pydantic_ai.to_messages: the sound of the message {message_id!r} changes its "
            f"rate or channels: {sorted(shapes)}; resample it to one shape"
        )
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(first.num_channels)
        out.setsampwidth(2)
        out.setframerate(first.sample_rate)
        for frame in sound.frame:
            out.writeframes(bytes(frame.data))
    return their.BinaryContent(
        file.getvalue(),
        media_type="audio/wav",
        vendor_metadata=None if sound.transcript is None else {"transcript": sound.transcript},
    )


# -- replies -------------------------------------------------------------------------------------


@dataclass
class _Reply(models.StreamedResponse):
    """One reply as Pydantic AI's stream of parts."""

    _model: Model
    _stream: LLMStream
    _first: ChatChunk | None = None
    _timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))

    async def _get_event_iterator(self) -> AsyncIterator[their.ModelResponseStreamEvent]:
        state = ReplyState()
        try:
            if self._first is not None:
                for event in self._events(self._first, state):
                    yield event
            async for chunk in self._stream:
                for event in self._events(chunk, state):
                    yield event
        except (errors.APIError, errors.ConfigurationError) as error:
            refused = isinstance(error, errors.RefusalError)
            self.finish_reason = "content_filter" if refused else "error"
            raise self._model._error(error) from error
        if state.extra:
            self.provider_details = {**(self.provider_details or {}), _STATE: state.extra}
        self.finish_reason = portable_reason(
            self._stream.finish_reason, called=bool(state.first_call)
        )

    async def close_stream(self) -> None:
        """End the request now, as `cancel` asks for."""
        await self._stream.aclose()

    def _events(
        self, chunk: ChatChunk, state: ReplyState
    ) -> Iterator[their.ModelResponseStreamEvent]:
        self.provider_response_id = chunk.id
        delta = chunk.delta
        if delta is not None:
            text = state.add(delta)
            if delta.thinking:
                yield from self._parts_manager.handle_thinking_delta(
                    vendor_part_id=None, content=delta.thinking
                )
            if text:
                yield from self._parts_manager.handle_text_delta(vendor_part_id=None, content=text)
            for call in delta.tool_calls:
                yield self._call(call)
        if chunk.usage is not None:
            self._usage = _usage(chunk.usage)

    def _call(self, call: FunctionToolCall) -> their.ModelResponseStreamEvent:
        return self._parts_manager.handle_tool_call_part(
            vendor_part_id=call.call_id,
            tool_name=call.name,
            args=whole_arguments(call),
            tool_call_id=call.call_id,
            provider_name=self._model.system if call.extra else None,
            provider_details={_STATE: call.extra} if call.extra else None,
        )

    @property
    def model_name(self) -> str:
        return self._model.model_name

    @property
    def provider_name(self) -> str:
        return self._model.system

    @property
    def provider_url(self) -> str | None:
        return None

    @property
    def timestamp(self) -> datetime:
        return self._timestamp


def _usage(counted: CompletionUsage) -> usage.RequestUsage:
    details = {
        name: value
        for name, value in (
            ("reasoning_tokens", counted.reasoning_tokens),
            ("input_audio_tokens", counted.prompt_audio_tokens),
            ("output_audio_tokens", counted.completion_audio_tokens),
        )
        if value
    }
    return usage.RequestUsage(
        input_tokens=counted.prompt_tokens,
        output_tokens=counted.completion_tokens,
        cache_read_tokens=counted.cache_read_tokens or counted.prompt_cached_tokens,
        cache_write_tokens=counted.cache_creation_tokens,
        output_reasoning_tokens=counted.reasoning_tokens,
        details=details,
    )
