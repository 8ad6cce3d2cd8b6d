"""Graphs that remember: each message once, replies as they were heard, questions and their answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import MemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import interrupt

from rejoinder.errors import APIError
from rejoinder.llm.chat_context import ChatContext
from rejoinder.providers.langchain import LLMAdapter
from rejoinder.providers.langchain.threads import question_of, unsent

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict):
    messages: Annotated[list[Any], add_messages]


def compiled(*nodes: Any, **options: Any) -> Any:
    builder = StateGraph(State)
    for number, node in enumerate(nodes):
        builder.add_node(f"n{number}", node)
        builder.add_edge(f"n{number - 1}" if number else START, f"n{number}")
    return builder.compile(checkpointer=MemorySaver(), **options)


def kept(graph: Any) -> list[tuple[str, str]]:
    messages = graph.get_state(THREAD).values["messages"]
    return [(message.type, message.content) for message in messages]


class Conversation:
    """Says things to a graph and keeps its replies, as an agent does."""

    def __init__(self, graph: Any, **options: Any) -> None:
        self.llm = LLMAdapter(graph, config=THREAD, **options)
        self.ctx = ChatContext.empty()
        self.replies: list[Any] = []

    async def say(self, words: str, *, heard: int | None = None) -> str:
        self.ctx.add_message(role="user", content=words)
        async with self.llm.chat(chat_ctx=self.ctx) as stream:
            reply = await stream.collect()
        self.replies.append(reply)
        if reply.text:
            self.ctx.add_message(role="assistant", content=reply.text[:heard])
        return reply.text


def answers(*texts: str) -> Any:
    model = GenericFakeChatModel(messages=iter([AIMessage(text) for text in texts]))

    async def node(state: State) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    return node


async def test_each_message_is_remembered_once() -> None:
    graph = compiled(answers("reply one", "reply two", "reply three"))
    talk = Conversation(graph)
    talk.ctx.add_message(role="system", content="be brief")
    for words in ("one", "two", "three"):
        assert await talk.say(words) == f"reply {words}"
    assert kept(graph) == [
        ("system", "be brief"),
        ("human", "one"), ("ai", "reply one"),
        ("human", "two"), ("ai", "reply two"),
        ("human", "three"), ("ai", "reply three"),
    ]  # fmt: skip


async def test_a_reply_that_was_cut_is_cut_in_the_memory() -> None:
    graph = compiled(answers("the first of many words", "two"))
    talk = Conversation(graph)
    await talk.say("one", heard=len("the first"))
    await talk.say("two")
    assert kept(graph)[1] == ("ai", "the first")
    assert len(kept(graph)) == 4


async def test_instructions_that_change_replace_the_old_ones() -> None:
    graph = compiled(answers("one", "two"))
    talk = Conversation(graph)
    talk.ctx.add_message(role="system", content="be brief", id="system")
    await talk.say("a")
    talk.ctx.items[0] = talk.ctx.items[0].model_copy(update={"content": ["be long"]})
    await talk.say("b")
    assert kept(graph)[0] == ("system", "be long")
    assert len(kept(graph)) == 5


async def test_a_graph_without_memory_gets_everything() -> None:
    seen: list[list[str]] = []

    def node(state: State) -> dict[str, Any]:
        seen.append([message.content for message in state["messages"]])
        return {"messages": [AIMessage(f"reply {len(seen)}")]}

    builder = StateGraph(State)
    builder.add_node("n", node)
    builder.add_edge(START, "n")
    talk = Conversation(builder.compile())
    await talk.say("one")
    await talk.say("two")
    assert seen[1] == ["one", "reply 1", "two"]


# what is not sent ----------------------------------------------------------------------------

H, A = HumanMessage, AIMessage


@pytest.mark.parametrize(
    ("messages", "memory", "expected"),
    [
        ([H("a", id="1")], [], [("1", "a")]),
        # The graph's own reply, by what it says.
        ([H("a", id="1"), A("x", id="i"), H("b", id="2")], [H("a", id="1"), A("x", id="g")], [("2", "b")]),
        # Two messages of the graph, one reply of ours; white space does not count.
        ([H("a", id="1"), A("x y", id="i"), H("b", id="2")], [H("a", id="1"), A("x ", id="g"), A("y", id="h")], [("2", "b")]),
        # Cut in the second one.
        ([H("a", id="1"), A("xy", id="i")], [H("a", id="1"), A("x", id="g"), A("yz", id="h")], [("h", "y")]),
        # Cut in the first one: the second was not heard.
        ([H("a", id="1"), A("x", id="i")], [H("a", id="1"), A("xx", id="g"), A("yz", id="h")], [("g", "x"), ("h", "")]),
        # Another wording of the graph's reply is not a second one.
        ([H("a", id="1"), A("Five euros", id="i"), H("b", id="2")], [H("a", id="1"), A("5 EUR", id="g")], [("2", "b")]),
        # A question of the graph and its answer are not in its memory, what came behind is.
        ([H("a", id="1"), A("x ?", id="i"), H("yes", id="2"), A("y", id="j"), H("b", id="3")], [H("a", id="1"), A("x", id="g"), A("y", id="h")], [("3", "b")]),
        ([H("a", id="1"), A("x", id="i"), H("yes", id="2"), A("y", id="j"), H("b", id="3")], [H("a", id="1"), A("x", id="g"), A("y", id="h")], [("3", "b")]),
        # Cut before the question.
        ([H("a", id="1"), A("x", id="i"), H("yes", id="2"), A("y", id="j")], [H("a", id="1"), A("xx", id="g"), A("y", id="h")], [("g", "x")]),
        # What the application said itself before a person spoke.
        ([A("hello", id="i"), H("a", id="1")], [], [("i", "hello"), ("1", "a")]),
        ([A("hello", id="i"), H("a", id="1")], [A("hello", id="i"), H("a", id="1")], []),
    ],
)  # fmt: skip
def test_what_is_sent(messages: Any, memory: Any, expected: Any) -> None:
    assert [(m.id, m.content) for m in unsent(messages, memory)] == expected


@given(
    st.lists(
        st.tuples(st.text("ab ", min_size=1, max_size=6), st.text("xy ", max_size=6)), max_size=5
    )
)
def test_a_conversation_that_is_known_is_sent_once(turns: list[tuple[str, str]]) -> None:
    ours: list[Any] = [SystemMessage("s", id="s")]
    graph: list[Any] = []
    for number, (question, reply) in enumerate(turns):
        ours.append(HumanMessage(question, id=f"h{number}"))
        graph = add_messages(graph, unsent(ours, graph))  # type: ignore[assignment, arg-type]
        graph = add_messages(graph, [AIMessage(reply, id=f"g{number}")])  # type: ignore[assignment, arg-type]
        if reply.strip():
            ours.append(AIMessage(reply, id=f"a{number}"))
    assert unsent(ours, graph) == ([] if turns else ours)
    assert len(graph) == (1 + 2 * len(turns) if turns else 0)


@given(st.lists(st.lists(st.tuples(st.booleans(), st.text("xy", min_size=1)), min_size=1)))
def test_answers_to_questions_are_never_sent_as_messages(
    turns: list[list[tuple[bool, str]]],
) -> None:
    """Each turn: replies of the graph, with a question behind all but the last one."""
    ours: list[Any] = []
    graph: list[Any] = []
    for number, replies in enumerate(turns):
        ours.append(HumanMessage("next", id=f"h{number}"))
        assert unsent(ours, graph) == ours[-1:]
        graph.append(ours[-1])
        for index, (asks, text) in enumerate(replies):
            name = f"{number}.{index}"
            graph.append(AIMessage(text, id=f"g{name}"))
            question = "?" if asks and index + 1 < len(replies) else ""
            ours.append(AIMessage(f"{text}{question}", id=f"a{name}"))
            if index + 1 < len(replies):
                ours.append(HumanMessage("yes", id=f"y{name}"))
        assert unsent(ours, graph) == []


# questions -----------------------------------------------------------------------------------


def deleting(value: Any) -> Any:
    def node(state: State) -> dict[str, Any]:
        return {"messages": [AIMessage(f"You said {interrupt(value)!r}.")]}

    return node


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("Sure?", "Sure?"),
        ({"question": "Sure?"}, "Sure?"),
        ({"content": "Sure?", "n": 1}, "Sure?"),
        ({"n": 1}, '{"n": 1}'),
        (5, "5"),
    ],
)
async def test_a_question_is_asked_and_the_answer_resumes_the_graph(value: Any, words: str) -> None:
    graph = compiled(deleting(value))
    talk = Conversation(graph)
    assert await talk.say("delete it") == words
    (told,) = talk.replies[0].extra["langchain"]["interrupts"]
    assert told["value"] == value
    assert await talk.say("yes") == "You said 'yes'."
    assert await talk.say("again") == words
    assert kept(graph) == [
        ("human", "delete it"),
        ("ai", "You said 'yes'."),
        ("human", "again"),
    ]


async def test_the_node_that_asked_runs_again_with_the_state_in_which_it_asked() -> None:
    def send(state: State) -> dict[str, Any]:
        draft = state["messages"][-1].content
        return {"messages": [AIMessage(f"Sent {draft!r}: {interrupt(f'Send {draft!r}?')}")]}

    graph = compiled(answers("Dear Anna", "Bye."), send)
    talk = Conversation(graph)
    # It is interrupted, and only a part of what it said is heard.
    assert await talk.say("write", heard=6) == "Dear Anna Send 'Dear Anna'?"
    assert await talk.say("yes") == "Sent 'Dear Anna': yes"
    assert await talk.say("thanks") == "Bye. Send 'Bye.'?"
    assert kept(graph) == [
        ("human", "write"),
        ("ai", "Dear A"),
        ("ai", "Sent 'Dear Anna': yes"),
        ("human", "thanks"),
        ("ai", "Bye."),
    ]


async def test_an_answer_that_the_node_remembers_itself_is_remembered_once() -> None:
    def ask(state: State) -> dict[str, Any]:
        return {"messages": [HumanMessage(interrupt("Which city?"))]}

    graph = compiled(ask, answers("Rain."))
    talk = Conversation(graph)
    assert await talk.say("weather?") == "Which city?"
    assert await talk.say("Oslo") == "Rain."
    assert kept(graph) == [("human", "weather?"), ("human", "Oslo"), ("ai", "Rain.")]


async def test_an_answer_can_be_made_of_the_words() -> None:
    talk = Conversation(
        compiled(deleting({"ask": "delete"})),
        question=lambda value: f"Shall I {value['ask']}?",
        resume=lambda value, words: {value["ask"]: words == "yes"},
    )
    assert await talk.say("delete it") == "Shall I delete?"
    assert await talk.say("yes") == "You said {'delete': True}."


async def test_without_an_answer_the_question_is_asked_again() -> None:
    talk = Conversation(compiled(deleting("Sure?")))
    await talk.say("delete it")
    async with talk.llm.chat(chat_ctx=talk.ctx) as stream:
        assert (await stream.collect()).text == "Sure?"


async def test_a_question_of_a_tool_comes_between_no_call_and_its_output() -> None:
    @tool
    def delete(name: str) -> str:
        """Delete a file."""
        return f"deleted: {interrupt(f'Delete {name}?')}"

    call = {"name": "delete", "args": {"name": "a.txt"}, "id": "c1"}
    replies = iter([AIMessage("", tool_calls=[call]), AIMessage("Done."), AIMessage("Bye.")])

    def agent(state: State) -> dict[str, Any]:
        return {"messages": [next(replies)]}

    builder = StateGraph(State)
    builder.add_node("agent", agent)
    builder.add_node("tools", ToolNode([delete]))
    builder.add_edge(START, "agent")
    builder.add_conditional_edges(
        "agent", lambda state: "tools" if state["messages"][-1].tool_calls else END, ["tools", END]
    )
    builder.add_edge("tools", "agent")
    graph = builder.compile(checkpointer=MemorySaver())
    talk = Conversation(graph)
    assert await talk.say("delete a.txt") == "Delete a.txt?"
    assert await talk.say("yes") == "Done."
    assert await talk.say("bye") == "Bye."
    assert kept(graph) == [
        ("human", "delete a.txt"), ("ai", ""), ("tool", "deleted: yes"), ("ai", "Done."),
        ("human", "bye"), ("ai", "Bye."),
    ]  # fmt: skip


async def test_two_questions_at_once_are_both_asked_and_both_answered() -> None:
    def ask(name: str) -> Any:
        def node(state: State) -> dict[str, Any]:
            return {"messages": [AIMessage(f"{name}: {interrupt(f'{name}?')}.")]}

        return node

    builder = StateGraph(State)
    for name in ("a", "b"):
        builder.add_node(name, ask(name))
        builder.add_edge(START, name)
    talk = Conversation(builder.compile(checkpointer=MemorySaver()))
    assert sorted((await talk.say("go")).split()) == ["a?", "b?"]
    assert sorted((await talk.say("yes")).replace(".", ". ").split()) == [
        "a:",
        "b:",
        "yes.",
        "yes.",
    ]


async def test_a_question_after_words_is_set_apart() -> None:
    talk = Conversation(compiled(answers("Let me see."), deleting("Sure?")))
    assert await talk.say("delete it") == "Let me see. Sure?"


@pytest.mark.parametrize("subgraphs", [False, True])
async def test_a_question_of_a_graph_without_a_memory_is_an_error_with_the_way_out(
    subgraphs: bool,
) -> None:
    builder = StateGraph(State)
    builder.add_node("n", deleting("Sure?"))
    builder.add_edge(START, "n")
    inner: Any = builder.compile()
    outer = StateGraph(State)
    outer.add_node("inner", inner)
    outer.add_edge(START, "inner")
    talk = Conversation(outer.compile() if subgraphs else inner, subgraphs=subgraphs)
    with pytest.raises(APIError, match=r"compile it with a checkpointer.*thread_id"):
        await talk.say("delete it")


async def test_a_graph_that_stops_in_silence_is_an_error() -> None:
    talk = Conversation(compiled(answers("never"), interrupt_before=["n0"]))
    with pytest.raises(APIError, match=r"stopped before 'n0'.*interrupt\(\.\.\.\)"):
        await talk.say("hello")


def test_questions_in_words() -> None:
    assert question_of({"message": "a", "question": "b"}) == "b"
    assert question_of(["a", "b"]) == '["a", "b"]'


# what is said --------------------------------------------------------------------------------


async def test_two_messages_of_one_node_are_both_said() -> None:
    def node(state: State) -> dict[str, Any]:
        return {"messages": [AIMessage("First."), AIMessage("Second.")]}

    assert await Conversation(compiled(node)).say("go") == "First.Second."


async def test_two_models_in_one_node_and_a_message_of_its_own_are_all_said() -> None:
    one = GenericFakeChatModel(messages=iter([AIMessage("From one.")]))
    two = GenericFakeChatModel(messages=iter([AIMessage("From two.")]))

    async def node(state: State) -> dict[str, Any]:
        first = await one.ainvoke(state["messages"])
        second = await two.ainvoke(state["messages"])
        return {"messages": [first, second, AIMessage("And I.")]}

    assert await Conversation(compiled(node)).say("go") == "From one.From two.And I."


@pytest.mark.parametrize("joined", [False, True])
async def test_an_answer_in_a_message_of_its_own_is_said_once(joined: bool) -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage("From one."), AIMessage(" From two.")]))

    async def node(state: State) -> dict[str, Any]:
        said = [(await model.ainvoke("x")).content for _ in range(2 if joined else 1)]
        return {"messages": [AIMessage("".join(said))]}

    text = await Conversation(compiled(node)).say("go")
    assert text == ("From one. From two." if joined else "From one.")


async def test_the_same_words_in_two_steps_are_said_twice() -> None:
    def wait(state: State) -> dict[str, Any]:
        return {"messages": [AIMessage("One moment.")]}

    assert await Conversation(compiled(wait, wait)).say("go") == "One moment.One moment."


class Snapshotless:
    """A graph of another kind, without a state."""

    async def astream(
        self, state: Any, config: Any = None, *, stream_mode: Any
    ) -> AsyncIterator[Any]:
        yield AIMessageChunk(str(len(state["messages"])))
        await asyncio.sleep(0)


async def test_a_graph_without_a_state_gets_everything() -> None:
    talk = Conversation(Snapshotless())
    assert await talk.say("one") == "1"
    assert await talk.say("two") == "3"


@pytest.mark.parametrize(
    "mode", ["values", "updates", "debug", ["updates"], "nonsense", [], ["messages", "x"]]
)
def test_a_mode_in_which_nothing_is_said_is_refused_at_once(mode: Any) -> None:
    with pytest.raises(ValueError, match="stream_mode"):
        LLMAdapter(Snapshotless(), stream_mode=mode)


@pytest.mark.parametrize("mode", ["messages", ["messages", "updates"], ("custom", "messages")])
async def test_other_modes_beside_it_change_nothing(mode: Any) -> None:
    assert await Conversation(compiled(answers("said")), stream_mode=mode).say("go") == "said"
