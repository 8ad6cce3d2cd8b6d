"""Options of a fallback: wrong ones are refused where they are given, right ones reach every model."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from contract.rows import ROWS
from llm.fallback_models import DOWN, FOREVER, Model, question, said
from rejoinder.errors import ConfigurationError
from rejoinder.llm import LLM, LLMStream
from rejoinder.llm.fallback_adapter import BreakerOptions, FallbackAdapter, Hedge, TurnBudget
from rejoinder.providers.langchain import as_langchain
from rejoinder.testing.scripted import ScriptedLLM
from rejoinder.turn import run_turn
from rejoinder.types import NOT_GIVEN, APIConnectOptions

WRONG: list[Any] = [5, -1, math.nan, True, "text", b"x", [1], {"a": 1}, object(), int, print, 1j]


def adapter(**options: Any) -> FallbackAdapter:
    return FallbackAdapter([Model("A", [DOWN]), Model("B", ["b"])], **options)


@pytest.mark.parametrize(
    ("make", "fits"),
    [
        (TurnBudget, {}),
        (Hedge, {}),
        (BreakerOptions, {}),
        (
            adapter,
            {
                "attempt_timeout": (int, float),
                "max_retry_per_llm": (int,),
                "retry_interval": (int, float),
                "retry_on_chunk_sent": (bool,),
                "shared_state": (str,),
                "budget": (),
                "hedge": (),
                "on_cut": (),
                "breaker": (),
            },
        ),
    ],
    ids=["TurnBudget", "Hedge", "BreakerOptions", "FallbackAdapter"],
)
@pytest.mark.looptime
async def test_each_option_is_checked_where_it_is_given(
    make: Callable[..., Any], fits: dict[str, tuple[type, ...]], tmp_path: Any, monkeypatch: Any
) -> None:
    """Whatever is given to whichever option: refused at once by its name, or good to the end."""
    monkeypatch.chdir(tmp_path)
    options = fits or inspect.signature(make).parameters
    refused: list[tuple[str, Any, str]] = []
    for option in options:
        for value in WRONG:
            try:
                made = make(**{option: value})
            except (TypeError, ValueError) as error:
                refused.append((option, value, str(error)))
            else:
                kind = {
                    TurnBudget: "budget",
                    Hedge: "hedge",
                    BreakerOptions: "breaker",
                }.get(type(made))
                good = made if kind is None else adapter(**{kind: made})
                assert await said(good) == (["b"], None), (option, value)
                assert await said(good) == (["b"], None), (option, value)
                await good.aclose()
    assert len(refused) >= 8 * len(options)
    for option, value, message in refused:
        assert option in message, (option, value, message)
        assert "expected" in message or "cannot be met" in message, (option, value, message)


@pytest.mark.parametrize(
    ("options", "write"),
    [
        (
            {"breaker": {"cooldown": 5}},
            "breaker: expected BreakerOptions, as BreakerOptions(cooldown=1), got a value of type dict",
        ),
        ({"budget": 5}, "budget: expected a TurnBudget, as TurnBudget(done_by=20), got 5"),
        ({"hedge": True}, "hedge: expected a Hedge, as Hedge(), got True"),
        ({"attempt_timeout": "5"}, "attempt_timeout: expected a number of at least 0, got '5'"),
        ({"retry_on_chunk_sent": "yes"}, "retry_on_chunk_sent: expected True or False"),
        ({"shared_state": object()}, "or a HealthStore with read() and update()"),
    ],
)
def test_the_error_says_what_to_write(options: dict[str, Any], write: str) -> None:
    with pytest.raises(TypeError) as caught:
        adapter(**options)
    assert write in str(caught.value)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (Model("A", ["a"]), r"as \[llm, llm\]"),
        ("gpt-4.1", "expected a list of at least one LLM"),
        (None, "got None"),
        ([Model], "expected instances of LLM in llm, got Model"),
        ([Model("A", ["a"]), None], "got NoneType"),
    ],
)
def test_wrong_models_are_refused(models: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        FallbackAdapter(models)


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"conn_options": None}, "conn_options: expected an APIConnectOptions, got None"),
        ({"conn_options": 5}, "got 5"),
        ({"chat_ctx": None}, r"a ChatContext, as ChatContext.empty\(\), got None"),
        ({"chat_ctx": [{"role": "user"}]}, "chat_ctx: expected a ChatContext"),
        ({"tools": 5}, "tools: expected a list of tools .*, got 5"),
        ({"extra_kwargs": ["temperature"]}, "extra_kwargs: expected a dict"),
        ({"parallel_tool_calls": "yes"}, "expected True or False"),
    ],
)
async def test_wrong_arguments_of_a_call_are_refused_at_once(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        adapter().chat(**{"chat_ctx": question(), **given})


# -- passed on -----------------------------------------------------------------------------------


class Noting(Model):
    """Notes what it is given, beside what every model is given."""

    def __init__(self, name: str, *calls: Any) -> None:
        super().__init__(name, *calls)
        self.given: list[dict[str, Any]] = []

    def chat(
        self, *, response_format: Any = NOT_GIVEN, seed: Any = NOT_GIVEN, **rest: Any
    ) -> LLMStream:  # type: ignore[override]
        self.given.append({"response_format": response_format, "seed": seed, **rest})
        return super().chat(**rest)


class Plain(Model):
    """Takes what every model takes."""

    def chat(  # type: ignore[override]
        self,
        *,
        chat_ctx: Any,
        tools: Any = None,
        conn_options: Any = None,
        parallel_tool_calls: Any = NOT_GIVEN,
        tool_choice: Any = NOT_GIVEN,
        extra_kwargs: Any = NOT_GIVEN,
    ) -> LLMStream:
        return super().chat(chat_ctx=chat_ctx, tools=tools, conn_options=conn_options)


class Answer(BaseModel):
    text: str


@pytest.mark.looptime
async def test_every_option_of_the_call_reaches_every_model_also_through_nested_adapters() -> None:
    models: list[Any] = [Noting("A", [DOWN]), Noting("B", [DOWN]), Noting("C", ["c"])]
    nested = FallbackAdapter([models[0], FallbackAdapter(models[1:])])
    given = {
        "response_format": Answer,
        "seed": 5,
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "extra_kwargs": {"temperature": 0.1},
    }
    assert await said(nested, **given) == (["c"], None)
    for model in models:
        (got,) = model.given
        assert {name: got[name] for name in given} == given
    assert await said(nested) == (["c"], None)
    assert models[2].given[-1]["response_format"] is NOT_GIVEN


@pytest.mark.looptime
async def test_an_option_that_one_model_does_not_know_is_refused_before_any_outage() -> None:
    mixed = FallbackAdapter([Noting("A", ["a"]), FallbackAdapter([Plain("P", ["p"])])])
    with pytest.raises(ConfigurationError, match="FallbackAdapter has no option 'response_format'"):
        mixed.chat(chat_ctx=question(), response_format=Answer)
    assert await said(mixed, response_format=NOT_GIVEN) == (["a"], None)


async def test_the_options_of_every_provider_are_options_of_what_composes_it() -> None:
    """Found by signature: what a provider's `chat` takes passes through an adapter of two of them,
    through a turn, and through LangChain."""
    base = set(inspect.signature(LLM.chat).parameters)
    for row in ROWS:
        llm = row.make("http://127.0.0.1:9")
        own = set(inspect.signature(llm.chat).parameters) - base
        fallback = FallbackAdapter([llm, llm])
        assert all(fallback.takes_option(option) for option in own), row.name
        assert not fallback.takes_option("no_such_option"), row.name
        for model in (llm, fallback):
            for option in own:
                run_turn(model, "hello", **{option: NOT_GIVEN})
            with pytest.raises(ConfigurationError, match="no_such_option"):
                run_turn(model, "hello", no_such_option=1)
            asked = as_langchain(model)._arguments([], dict.fromkeys(own, NOT_GIVEN))
            assert own <= asked.keys(), row.name
        await llm.aclose()
    own_chat = inspect.signature(FallbackAdapter.chat).parameters
    assert base <= set(own_chat)
    assert any(p.kind is p.VAR_KEYWORD for p in own_chat.values())


@pytest.mark.looptime
async def test_what_one_model_takes_out_of_an_option_the_next_one_still_gets() -> None:
    class Greedy(Noting):
        def chat(self, **given: Any) -> LLMStream:  # type: ignore[override]
            stream = super().chat(**given)
            given["extra_kwargs"].clear()
            given["seed"].clear()
            return stream

    a, b = Greedy("A", [FOREVER]), Greedy("B", ["b"])
    fallback = FallbackAdapter([a, b], attempt_timeout=1.0)
    given: dict[str, Any] = {"extra_kwargs": {"k": 1}, "seed": [1]}
    stream = fallback.chat(chat_ctx=question(), **given)
    given["seed"].append(2)
    await stream.collect()
    assert given == {"extra_kwargs": {"k": 1}, "seed": [1, 2]}
    assert len(b.given) == 1


async def test_what_is_no_tool_is_refused_at_once_and_no_failure_of_a_model() -> None:
    fallback = FallbackAdapter([ScriptedLLM("a"), ScriptedLLM("b")])
    with pytest.raises(ValueError, match=r"expected a tool .*, got <function said"):
        fallback.chat(chat_ctx=question(), tools=[said])
    with pytest.raises(ValueError, match="expected a tool"):
        ScriptedLLM("a").chat(chat_ctx=question(), tools=[{"type": "function"}])
    assert fallback.availability() == [True, True]


@pytest.mark.parametrize(
    "name", ["retry_interval", "timeout", "total", "max_retry", "first_output"]
)
def test_wrong_connect_options_are_refused(name: str) -> None:
    for bad in ("5", None if name in ("timeout", "max_retry", "retry_interval") else "x", [1]):
        with pytest.raises((TypeError, ValueError), match=f"APIConnectOptions.{name}"):
            APIConnectOptions(**{name: bad})  # type: ignore[arg-type]


def test_a_pause_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match=r"retry_interval: expected a finite number"):
        FallbackAdapter([ScriptedLLM("a")], retry_interval=math.inf)


def test_the_reference_finds_its_names() -> None:
    module = importlib.import_module("rejoinder.llm.fallback_adapter")
    stream = inspect.signature(module.FallbackLLMStream).parameters
    assert {"llm", "chat_ctx", "tools", "conn_options", "parallel_tool_calls", "tool_choice",
            "extra_kwargs"} <= set(stream)  # fmt: skip
