"""A LangGraph graph, or any LangChain runnable, as an `LLM`."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from rejoinder import _stamps
from rejoinder._aio import in_thread
from rejoinder._core.chunks import ChatChunk, ChoiceDelta
from rejoinder._core.images import needs_preparing, prepare
from rejoinder._foreign import has, method, read
from rejoinder._options import checked
from rejoinder.errors import APIError
from rejoinder.llm.llm import LLM, LLMStream
from rejoinder.providers.asking.checks import checked_options
from rejoinder.providers.langchain.format import to_chat_ctx
from rejoinder.providers.langchain.threads import (
    interrupts_of,
    question_of,
    unsent,
    words_of,
)
from rejoinder.providers.langchain.wire import MODES, ItemDecoder, asks, to_api_error
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

_SPEAKING: Final = frozenset({"messages", "custom"})
"""Stream modes that carry text for the reply."""


class LLMAdapter(LLM[Any]):
    """Uses a graph, or any other runnable, as a model.

    A graph gets ``{"messages": [...]}`` with the messages of the conversation and runs its own
    tools; `tools`, `tool_choice` and `extra_kwargs` of `chat` have no effect. A LangChain chat model
    gets the messages themselves and the tools, and returns its calls. Other runnables get
    ``{"messages": [...]}``.

    A graph with a checkpointer, and a ``thread_id`` in `config`, remembers the conversation. It gets
    only new messages, and an interrupted reply is cut in its memory, too. If it stops with
    ``interrupt(...)``, the question becomes the reply, and the user's next message resumes the graph.

    Args:
        graph: a compiled graph, a runnable, or an object with a similar `astream`.
        config: a ``RunnableConfig``, passed to each run (``thread_id``, callbacks, tags).
        subgraphs: whether the replies inside subgraphs are part of the reply.
        context: a graph's runtime context, passed to each run.
        stream_mode: ``"messages"`` (the output of models), ``"custom"`` (the output of nodes), or a
            list with at least one of them.
        question: makes the reply text from the value of an interrupt. Default: a string unchanged,
            the ``question``, ``content``, ``message`` or ``text`` of a mapping, else JSON.
        resume: makes the value that resumes an interrupt, from the interrupt's value and the user's
            text. Default: the text.

    Raises:
        TypeError: `graph` has no `astream`.
        ValueError: `stream_mode` has no mode that carries text, or an unknown one.
    """

    @checked()
    def __init__(
        self,
        graph: Any,
        *,
        config: Any = None,
        subgraphs: bool = False,
        context: Any = None,
        stream_mode: str | Sequence[str] = "messages",
        question: Callable[[Any], str] = question_of,
        resume: Callable[[Any, str], Any] | None = None,
    ) -> None:
        super().__init__()
        modes = {stream_mode} if isinstance(stream_mode, str) else set(stream_mode)
        if not modes & _SPEAKING or modes - MODES:
            raise ValueError(
                f"LLMAdapter: expected stream_mode 'messages', 'custom' or a list with one of them, "
                f"got {stream_mode!r}: no other mode carries text"
            )
        if not has(graph, "astream"):
            raise TypeError(
                f"LLMAdapter: expected a graph or a runnable with `astream`, got {graph!r}; "
                "a StateGraph has to be compiled first"
            )
        self._graph = graph
        self._config = config
        self._subgraphs = subgraphs
        self._context = context
        self._stream_mode = stream_mode
        self._question = question
        self._resume = resume

    @property
    def model(self) -> str:
        return "unknown"

    @property
    def provider(self) -> str:
        return "LangChain"

    @checked_options
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
            question=self._question,
            resume=self._resume,
        )


class LangGraphStream(LLMStream):
    """The running reply of a graph; made by `LLMAdapter.chat`."""

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
        question: Callable[[Any], str] = question_of,
        resume: Callable[[Any, str], Any] | None = None,
    ) -> None:
        self._question = question
        self._resume = resume
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
        model = not graph and has(self._graph, "bind_tools")
        mode = self._stream_mode if graph and isinstance(self._stream_mode, str) else None
        decoder = ItemDecoder(calls=model, whole=not graph, mode=mode)
        said = ""
        try:
            items = self._chat_ctx.items
            if needs_preparing(items):
                await in_thread(lambda: prepare(items), name="rejoinder-langchain-images")
            messages, _ = to_chat_ctx(items, with_tools=model)
            kept = await self._snapshot() if graph else None
            if kept is not None and not self._goes_on(messages, kept):
                self._ask(kept, said)
                return
            # Pregel's own attribute. Without a memory, only the updates show that a graph has asked.
            forgets = graph and getattr(self._graph, "checkpointer", False) is None
            stream = self._items(model, messages, kept, updates=forgets)
            try:
                async for item in stream:
                    if forgets and asks(item):
                        raise APIError(
                            "the graph stopped with interrupt(...), but has no memory from which to resume; "
                            "compile it with a checkpointer, and pass "
                            'config={"configurable": {"thread_id": ...}}',
                            retryable=False,
                        )
                    if self._event_ch.full:
                        await self._wait_for_consumer()
                    for chunk in decoder.feed(item):
                        if chunk.delta is not None:
                            said = chunk.delta.content or said
                        self._event_ch.send_nowait(chunk)
            finally:
                close = method(stream, "aclose")
                if close is not None:
                    await close()
            if kept is not None:
                self._ask(await self._snapshot(), said)
        except Exception as error:
            mapped = to_api_error(error)
            # Nodes have run, and a retry could repeat their effects.
            if decoder.seen and not model:
                mapped.retryable = False
            if mapped is error:
                raise
            raise mapped from error
        for chunk in decoder.close():
            self._event_ch.send_nowait(chunk)

    async def _snapshot(self) -> Any:
        """The stored state of the graph's thread; ``None`` for a graph without a memory."""
        config = cast("Mapping[str, Any]", self._config or {})
        configurable: Mapping[str, Any] = config.get("configurable") or {}
        remembers = getattr(self._graph, "checkpointer", True) not in (None, False)
        if "thread_id" not in configurable or not remembers:
            return None
        find = method(self._graph, "aget_state")
        return await find(self._config) if find is not None else None

    def _goes_on(self, messages: Sequence[Any], kept: Any) -> bool:
        """Whether the graph must run; a graph that waits for an answer needs one."""
        if not interrupts_of(kept):
            return True
        return bool(words_of(unsent(messages, _kept_messages(kept))))

    def _ask(self, snapshot: Any, said: str) -> None:
        """Send the question of an interrupted graph as the reply."""
        interrupts = interrupts_of(snapshot)
        for interrupt in interrupts:
            space = " " if said and not said[-1].isspace() else ""
            said = self._question(interrupt.value)
            state = {"id": read(interrupt, "id"), "value": _plain(interrupt.value)}
            delta = ChoiceDelta(
                role="assistant",
                content=space + said,
                extra={"langchain": {"interrupts": [state]}},
            )
            self._event_ch.send_nowait(ChatChunk(id=_stamps.new_id("LC_"), delta=delta))
        if not interrupts and snapshot.next and not said:
            raise APIError(
                f"the graph stopped before {', '.join(map(repr, snapshot.next))} without output; "
                "use interrupt(...) with a question in place of interrupt_before and "
                "interrupt_after",
                retryable=False,
            )

    def _items(
        self, model: bool, messages: list[Any], kept: Any, *, updates: bool
    ) -> AsyncIterator[Any]:
        graph = self._graph
        if model:
            return self._bound(graph).astream(messages, self._config, **self._extra_kwargs)
        state: Any = {"messages": messages}
        if not _is_graph(graph):
            return graph.astream(_takes_messages(graph, messages, state), self._config)
        if kept is not None:
            state = self._news(messages, kept)
        modes = self._stream_mode
        if updates:
            asked = [modes] if isinstance(modes, str) else list(modes)
            modes = [*asked, *({"updates"} - {*asked})]
        options: dict[str, Any] = {"stream_mode": modes}
        if self._context is not None:
            options["context"] = self._context
        try:
            return graph.astream(state, self._config, **options, subgraphs=self._subgraphs)
        except TypeError:
            # Old versions of LangGraph do not know `subgraphs`. The call itself fails, before
            # anything has run.
            return graph.astream(state, self._config, **options)

    def _news(self, messages: list[Any], kept: Any) -> Any:
        """The input of a graph with a memory: the new messages, or the answer to its question."""
        news = unsent(messages, _kept_messages(kept))
        interrupts = interrupts_of(kept)
        if not interrupts:
            return {"messages": news}
        from langgraph.types import Command

        words = words_of(news)
        values = [
            words if self._resume is None else self._resume(interrupt.value, words)
            for interrupt in interrupts
        ]
        resume: Any = values[0]
        if len(interrupts) > 1:
            resume = {one.id: value for one, value in zip(interrupts, values, strict=True)}
        # The node runs again from its beginning. With one more message, its state would differ from
        # the one in which it asked, and code that reads the last message would read the answer.
        return Command(resume=resume)

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


def _kept_messages(snapshot: Any) -> list[Any]:
    values: Any = snapshot.values
    return list(values.get("messages") or ()) if isinstance(values, Mapping) else []  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def _plain(value: Any) -> Any:
    """`value` as plain JSON values, so that it can be stored with the conversation."""
    return json.loads(json.dumps(value, default=str))


def _is_graph(graph: Any) -> bool:
    """Whether `astream` takes a stream mode: graphs do, other runnables do not."""
    if has(graph, "stream_mode"):
        return True
    try:
        parameters = inspect.signature(graph.astream).parameters
    except (TypeError, ValueError):
        return True
    if "stream_mode" in parameters:
        return True
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return anything and not has(graph, "lc_namespace") and not has(graph, "get_lc_namespace")


def _takes_messages(graph: Any, messages: list[Any], state: dict[str, Any]) -> Any:
    """The input of a runnable: messages for a model, a state for anything else."""
    first = graph
    for _ in range(10):
        inner = read(first, "first") or read(first, "bound")
        if inner is None:
            break
        first = inner
    return messages if has(first, "bind_tools") else state
