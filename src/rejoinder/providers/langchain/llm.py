"""A LangGraph graph, or any LangChain runnable, as an `LLM`."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from rejoinder.llm.llm import LLM, LLMStream
from rejoinder.providers.langchain.format import to_chat_ctx
from rejoinder.providers.langchain.wire import ItemDecoder, to_api_error
from rejoinder.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectOptions,
    NotGivenOr,
    is_given,
)

if TYPE_CHECKING:
    from rejoinder.llm.chat_context import ChatContext
    from rejoinder.llm.tool_context import ToolChoice

__all__ = ["LLMAdapter", "LangGraphStream"]


class LLMAdapter(LLM[Any]):
    """Asks a graph, or any other runnable, as if it were a model.

    A graph gets ``{"messages": [...]}`` with the messages of the conversation and runs its own
    tools: `tools`, `tool_choice` and `extra_kwargs` of `chat` are not for it. A chat model of
    LangChain gets the messages themselves and the tools, and its calls come back. Other runnables
    get ``{"messages": [...]}``.

    Args:
        graph: a compiled graph, a runnable, or anything with an `astream` like theirs.
        config: a ``RunnableConfig``, handed to each run (``thread_id``, callbacks, tags).
        subgraphs: whether what is said inside of subgraphs is said.
        context: a graph's runtime context, handed to each run.
        stream_mode: ``"messages"`` (what models say), ``"custom"`` (what nodes write), or both.
    """

    def __init__(
        self,
        graph: Any,
        *,
        config: Any = None,
        subgraphs: bool = False,
        context: Any = None,
        stream_mode: str | Sequence[str] = "messages",
    ) -> None:
        super().__init__()
        if not hasattr(graph, "astream"):
            raise TypeError(
                f"LLMAdapter: expected a graph or a runnable with `astream`, got {graph!r}; "
                "a StateGraph has to be compiled first"
            )
        self._graph = graph
        self._config = config
        self._subgraphs = subgraphs
        self._context = context
        self._stream_mode = stream_mode

    @property
    def model(self) -> str:
        return "unknown"

    @property
    def provider(self) -> str:
        return "LangChain"

    def chat(
        self,
        *,
        chat_ctx: ChatContext,
        tools: list[Any] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    ) -> LangGraphStream:
        """Run the graph on the conversation. See `LLM.chat`, and the class for what is ignored."""
        return LangGraphStream(
            self,
            chat_ctx=chat_ctx.copy(),
            tools=list(tools or ()),
            graph=self._graph,
            conn_options=conn_options,
            config=self._config,
            subgraphs=self._subgraphs,
            context=self._context,
            stream_mode=self._stream_mode,
            tool_choice=tool_choice,
            extra_kwargs=dict(extra_kwargs) if is_given(extra_kwargs) else {},
        )


class LangGraphStream(LLMStream):
    """The reply of a graph, as it is made. Made by `LLMAdapter.chat`."""

    def __init__(
        self,
        llm: LLMAdapter,
        *,
        chat_ctx: ChatContext,
        tools: list[Any],
        graph: Any,
        conn_options: APIConnectOptions,
        config: Any = None,
        subgraphs: bool = False,
        context: Any = None,
        stream_mode: str | Sequence[str] = "messages",
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
        extra_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._graph = graph
        self._config = config
        self._subgraphs = subgraphs
        self._context = context
        self._stream_mode = stream_mode
        self._tool_choice = tool_choice
        self._extra_kwargs = dict(extra_kwargs or {})
        super().__init__(llm, chat_ctx=chat_ctx, tools=tools, conn_options=conn_options)

    async def _run(self) -> None:
        graph = _is_graph(self._graph)
        model = not graph and hasattr(self._graph, "bind_tools")
        mode = self._stream_mode if graph and isinstance(self._stream_mode, str) else None
        decoder = ItemDecoder(calls=model, whole=not graph, mode=mode)
        try:
            items = self._items(model)
            try:
                async for item in items:
                    if self._event_ch.full:
                        await self._wait_for_consumer()
                    for chunk in decoder.feed(item):
                        self._event_ch.send_nowait(chunk)
            finally:
                close = getattr(items, "aclose", None)
                if close is not None:
                    await close()
        except Exception as error:
            mapped = to_api_error(error)
            # Something has run: a second time it could have its effect twice.
            if decoder.seen and not model:
                mapped.retryable = False
            if mapped is error:
                raise
            raise mapped from error
        for chunk in decoder.close():
            self._event_ch.send_nowait(chunk)

    def _items(self, model: bool) -> AsyncIterator[Any]:
        messages, _ = to_chat_ctx(self._chat_ctx.items, with_tools=model)
        graph = self._graph
        if model:
            return self._bound(graph).astream(messages, self._config, **self._extra_kwargs)
        state = {"messages": messages}
        if not _is_graph(graph):
            return graph.astream(_takes_messages(graph, messages, state), self._config)
        options: dict[str, Any] = {"stream_mode": self._stream_mode}
        if self._context is not None:
            options["context"] = self._context
        try:
            return graph.astream(state, self._config, **options, subgraphs=self._subgraphs)
        except TypeError:
            # Old versions of LangGraph do not know the word. It is told at the call, before
            # anything has run.
            return graph.astream(state, self._config, **options)

    def _bound(self, model: Any) -> Any:
        if not self._tools:
            return model
        from rejoinder.llm.tool_context import ToolContext

        specs = ToolContext(self._tools).parse_function_tools("openai", strict=False)
        choice: Any = self._tool_choice if is_given(self._tool_choice) else None
        if choice == "none":
            return model
        if isinstance(choice, dict):
            choice = cast("dict[str, Any]", choice)["function"]["name"]
        elif choice == "required":
            choice = "any"
        return model.bind_tools(specs, **({"tool_choice": choice} if choice else {}))


def _is_graph(graph: Any) -> bool:
    """Whether `astream` takes a stream mode: graphs do, other runnables do not."""
    if hasattr(graph, "stream_mode"):
        return True
    try:
        parameters = inspect.signature(graph.astream).parameters
    except (TypeError, ValueError):
        return True
    if "stream_mode" in parameters:
        return True
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return (
        anything and not hasattr(graph, "lc_namespace") and not hasattr(graph, "get_lc_namespace")
    )


def _takes_messages(graph: Any, messages: list[Any], state: dict[str, Any]) -> Any:
    """What a runnable wants to read: models the messages, anything else the state."""
    first = graph
    for _ in range(10):
        inner = getattr(first, "first", None) or getattr(first, "bound", None)
        if inner is None:
            break
        first = inner
    return messages if hasattr(first, "bind_tools") else state
