"""Any `LLM` as a LangChain chat model, with tools and streaming."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from operator import itemgetter
from typing import Any, cast

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_models import agenerate_from_stream, generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, ConfigDict, Field

from rejoinder._core.chunks import ChatChunk, CompletionUsage, FunctionToolCall
from rejoinder._core.collecting import merge_extra
from rejoinder._options import checked, instance
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.llm import LLM
from rejoinder.llm.tool_context import function_tool
from rejoinder.providers.langchain.format import STATE_KEY, from_messages
from rejoinder.types import APIConnectOptions
from rejoinder.wire.tags import StopFilter

__all__ = ["ChatRejoinder", "as_langchain"]


class ChatRejoinder(BaseChatModel):
    """A LangChain chat model that asks an `LLM`. See `as_langchain`.

    The synchronous methods use an event loop in a separate thread. They work anywhere, but block the
    calling thread, so do not call them from a running event loop.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="ignore")

    llm: Any = Field(exclude=True)
    """The `LLM` that is asked."""
    temperature: float | None = None
    max_tokens: int | None = None
    timeout: float | None = None
    """Seconds; see `APIConnectOptions.timeout`."""
    max_retries: int | None = None
    stop: list[str] | None = None
    """Texts at which the reply is cut; applied here, not by the provider."""
    streaming: bool = False

    @property
    def model_name(self) -> str:
        return str(self.llm.model)

    @property
    def _llm_type(self) -> str:
        return "rejoinder"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.llm.model, "provider": self.llm.provider, "label": self.llm.label}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        params = super()._get_ls_params(stop=stop or self.stop or None, **kwargs)
        params["ls_provider"] = str(self.llm.provider)
        return params

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: Any = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with tools.

        Args:
            tools: anything LangChain can describe as a tool.
            tool_choice: a tool's name, ``"any"`` or ``"required"`` or True (some tool),
                ``"auto"``, ``"none"``, or OpenAI's form.
            strict: kept for other models; the tools' schemas are sent as they are.
            parallel_tool_calls: whether one reply may hold several calls.
        """
        bound: dict[str, Any] = {"tools": [convert_to_openai_tool(tool) for tool in tools]}
        if tool_choice is not None and tool_choice is not False:
            bound["tool_choice"] = _choice(tool_choice)
        if parallel_tool_calls is not None:
            bound["parallel_tool_calls"] = parallel_tool_calls
        return cast("Any", self.bind(**bound, **kwargs))

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: str = "function_calling",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """The model with an answer of one type.

        Args:
            schema: a pydantic model, a TypedDict, or a JSON schema with a title.
            include_raw: return a dict of ``raw`` (the message), ``parsed`` and ``parsing_error``.
            method: ``"function_calling"``: the model must call a tool with this schema;
                ``"json_schema"`` or ``"json_mode"``: the schema is passed as `response_format`.
            strict: kept for other models.

        Raises:
            ValueError: `method` is another one, or further arguments are given.
        """
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        if method not in ("json_schema", "json_mode") or kwargs:
            raise ValueError(
                "with_structured_output: expected method 'function_calling', 'json_schema' or "
                f"'json_mode' and no further arguments, got {method!r}, {kwargs}"
            )
        output_format = {"kwargs": {"method": method}, "schema": schema}
        model = self.bind(response_format=schema, ls_structured_output_format=output_format)
        parser: Runnable[Any, Any] = JsonOutputParser()
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            parser = PydanticOutputParser(pydantic_object=schema)
        if not include_raw:
            return model | parser
        parsed = RunnablePassthrough.assign(
            parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
        )
        nothing = RunnablePassthrough.assign(parsed=lambda _: None)
        either = parsed.with_fallbacks([nothing], exception_key="parsing_error")
        return RunnableMap(raw=model) | either

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for chunk in self._chunks(messages, stop, kwargs):
            if run_manager is not None:
                await run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
            yield chunk

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await agenerate_from_stream(self._chunks(messages, stop, kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in _iterate(lambda: self._chunks(messages, stop, kwargs)):
            if run_manager is not None:
                run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
            yield chunk

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(_iterate(lambda: self._chunks(messages, stop, kwargs)))

    async def _chunks(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> AsyncIterator[ChatGenerationChunk]:
        stops = stop or self.stop
        cutter = StopFilter(stops) if stops else None
        extra: dict[str, Any] = {}
        calls: dict[str, Any] = {}
        count = 0
        # Messages keep the id that LangChain gives each run. Servers count theirs from the start
        # again (Ollama's `chatcmpl-126`), and LangGraph replaces a message by one of the same id.
        response_id: str | None = None
        async with self.llm.chat(**self._arguments(messages, dict(kwargs))) as stream:
            async for chunk in cast("AsyncIterator[ChatChunk]", stream):
                response_id = response_id or chunk.id
                message = AIMessageChunk(content="")
                delta = chunk.delta
                if delta is not None:
                    text = delta.content or ""
                    if cutter is not None:
                        text = cutter.feed(text)
                    message = _piece(text, delta.thinking, delta.tool_calls, count)
                    count += len(delta.tool_calls)
                    if delta.extra:
                        merge_extra(extra, delta.extra)
                    for call in delta.tool_calls:
                        if call.extra:
                            calls[call.call_id] = call.extra
                if chunk.usage is not None:
                    message.usage_metadata = cast("Any", _usage(chunk.usage))
                if _holds_something(message):
                    yield ChatGenerationChunk(message=message)
                if cutter is not None and cutter.stopped is not None:
                    break
        # State is whole only now: LangChain would join texts of several chunks.
        extra.pop("rejoinder", None)
        state = {
            **({"extra": extra} if extra else {}),
            **({"calls": calls} if calls else {}),
        }
        rest = cutter.close() if cutter is not None else ""
        yield ChatGenerationChunk(
            message=AIMessageChunk(
                content=rest,
                additional_kwargs={STATE_KEY: state} if state else {},
                response_metadata={
                    "model_name": self.llm.model,
                    "model_provider": self.llm.provider,
                    "finish_reason": "tool_calls" if count else "stop",
                    **({"id": response_id} if response_id else {}),
                },
            )
        )

    def _arguments(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> dict[str, Any]:
        asked: dict[str, Any] = {"chat_ctx": ChatContext(from_messages(messages))}
        tools = kwargs.pop("tools", None)
        if tools:
            asked["tools"] = [_tool(tool) for tool in tools]
            choice = kwargs.pop("tool_choice", None)
            if choice is not None:
                asked["tool_choice"] = _choice(choice)
            parallel = kwargs.pop("parallel_tool_calls", None)
            if parallel is not None:
                asked["parallel_tool_calls"] = parallel
        options: dict[str, Any] = {}
        if self.timeout is not None:
            options["timeout"] = self.timeout
        if self.max_retries is not None:
            options["max_retry"] = self.max_retries
        if options:
            asked["conn_options"] = APIConnectOptions(**options)
        for name in ("tool_choice", "ls_structured_output_format", "stream", "strict"):
            kwargs.pop(name, None)
        kwargs |= kwargs.pop("extra_kwargs", None) or {}
        asked |= _options_of_chat(self.llm, kwargs)
        for name in ("temperature", "max_tokens"):
            value = kwargs.pop(name, None)
            value = getattr(self, name) if value is None else value
            if value is not None:
                kwargs[name] = value
        if kwargs:
            asked["extra_kwargs"] = kwargs
        return asked


def _options_of_chat(llm: LLM[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Remove from `kwargs` the options of ``llm.chat``, such as ``response_format``, and return them.
    A model that accepts any name gets all of them in its `extra_kwargs`."""
    if llm.takes_option("an option that no model has"):
        return {}
    return {name: kwargs.pop(name) for name in list(kwargs) if llm.takes_option(name)}


@checked(llm=instance(LLM))
def as_langchain(llm: LLM[Any], **options: Any) -> ChatRejoinder:
    """`llm` as a LangChain chat model: for graphs, chains and agents.

    Tools, forced tools, streaming, token counts, images and structured output work as with any
    LangChain model; thinking is in ``additional_kwargs["reasoning_content"]``. Errors are those
    of `rejoinder`.

    Args:
        llm: the model. LangChain does not close it.
        options: `temperature`, `max_tokens`, `timeout`, `max_retries`, `stop`.
    """
    return ChatRejoinder(llm=llm, **options)


def _piece(
    text: str,
    thinking: str | None,
    calls: Sequence[FunctionToolCall],
    first: int,
) -> AIMessageChunk:
    return AIMessageChunk(
        content=text,
        additional_kwargs={"reasoning_content": thinking} if thinking else {},
        tool_call_chunks=[
            {
                "name": call.name,
                "args": call.arguments,
                "id": call.call_id,
                "index": first + number,
                "type": "tool_call_chunk",
            }
            for number, call in enumerate(calls)
        ],
    )


def _holds_something(message: AIMessageChunk) -> bool:
    return bool(
        message.content
        or message.tool_call_chunks
        or message.usage_metadata
        or message.additional_kwargs
    )


def _usage(usage: CompletionUsage) -> dict[str, Any]:
    read = {
        "cache_read": usage.cache_read_tokens or usage.prompt_cached_tokens,
        "cache_creation": usage.cache_creation_tokens,
        "audio": usage.prompt_audio_tokens,
    }
    written = {"reasoning": usage.reasoning_tokens, "audio": usage.completion_audio_tokens}
    return {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "input_token_details": {name: count for name, count in read.items() if count},
        "output_token_details": {name: count for name, count in written.items() if count},
    }


def _choice(choice: Any) -> Any:
    if choice is True or choice in ("any", "required"):
        return "required"
    if choice in ("auto", "none"):
        return choice
    if isinstance(choice, str):
        return {"type": "function", "function": {"name": choice}}
    return choice


def _tool(tool: dict[str, Any]) -> Any:
    function = cast("dict[str, Any]", tool.get("function") or tool)

    async def not_run_here(raw_arguments: dict[str, Any]) -> str:
        raise NotImplementedError(f"LangChain runs the tool {function['name']!r}")

    empty: dict[str, Any] = {"type": "object", "properties": {}}
    return function_tool(
        not_run_here,
        raw_schema={
            "name": function["name"],
            "description": function.get("description"),
            "parameters": json.loads(json.dumps(function.get("parameters") or empty)),
        },
    )


# ---------------------------------------------------------------------------------------------
# LangChain's plain methods: one loop in one thread serves them all


class _Bridge:
    """The loop and its thread, made on first use, and again in a forked child."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Reset after a fork: threads do not survive it, and one may have held a lock."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, work: Coroutine[Any, Any, None]) -> Any:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._loop.run_forever, name="rejoinder-langchain", daemon=True
                ).start()
        return asyncio.run_coroutine_threadsafe(work, self._loop)


_bridge = _Bridge()
os.register_at_fork(after_in_child=_bridge.forget)
_END = object()


def _iterate(
    make: Callable[[], AsyncIterator[ChatGenerationChunk]],
) -> Iterator[ChatGenerationChunk]:
    arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()

    async def run() -> None:
        try:
            async for chunk in make():
                arrived.put(chunk)
        except BaseException as error:
            arrived.put(error)
            if not isinstance(error, Exception):
                raise
        else:
            arrived.put(_END)

    future = _bridge.start(run())
    try:
        while (item := arrived.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        future.cancel()
