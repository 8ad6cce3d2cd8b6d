"""Options are checked where they are given, with one sentence that says what to write."""

from __future__ import annotations

import inspect
import math
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypedDict, TypeVar

import pytest

from rejoinder._options import (
    AMOUNT,
    CONNECT,
    COUNT,
    FLAG,
    FUNCTION,
    NAME,
    NUMBER,
    PAUSE,
    SECONDS,
    SHARE,
    STRING,
    WHOLE,
    Rule,
    WrongTypeError,
    check,
    check_fields,
    checked,
    instance,
    mapping,
    one_of,
    rule_of,
)
from rejoinder.errors import ConfigurationError
from rejoinder.types import NOT_GIVEN, APIConnectOptions, NotGivenOr

if TYPE_CHECKING:
    from nowhere import NeverThere  # type: ignore[import-not-found]


class Thing:
    pass


@pytest.mark.parametrize(
    ("rule", "good", "wrong_types", "wrong_values"),
    [
        (STRING, ["", "a"], [1, None, b"a"], []),
        (NAME, ["a"], [1, None], ["", " \n"]),
        (FLAG, [True, False], [0, 1, "true", None], []),
        (NUMBER, [0, -1.5], ["1", True, None], [math.nan, math.inf]),
        (AMOUNT, [0, math.inf], ["1", True], [-1, math.nan]),
        (PAUSE, [0, 1.5], ["1", True], [-1, math.nan, math.inf]),
        (SECONDS, [1, 0.5, math.inf], ["1", True], [0, -1, math.nan]),
        (WHOLE, [0, 3], [1.0, True, "1"], [-1]),
        (COUNT, [1], [1.0, True], [0, -1]),
        (FUNCTION, [len, Thing], [1, "len", None], []),
        (CONNECT, [APIConnectOptions()], [None, 3, {}], []),
        (instance(Thing), [Thing()], [Thing, None], []),
        (one_of("a", "b"), ["a"], [1, None], ["c"]),
        (mapping(), [{}, {"a": 1}], [[], "a", None], [{1: 2}]),
    ],
)
def test_rules(
    rule: Rule, good: list[Any], wrong_types: list[Any], wrong_values: list[Any]
) -> None:
    for value in good:
        check("f", option=(value, rule))
    for value in wrong_types:
        with pytest.raises(WrongTypeError, match=r"f.option: expected "):
            check("f", option=(value, rule))
    for value in wrong_values:
        with pytest.raises(ConfigurationError) as caught:
            check("f", option=(value, rule))
        assert not isinstance(caught.value, TypeError), "the type is right"


def test_what_may_be_left_out() -> None:
    for value in (None, NOT_GIVEN, 3):
        check("f", option=(value, COUNT.optional))
    with pytest.raises(WrongTypeError):
        check("f", option=("3", COUNT.optional))
    with pytest.raises(WrongTypeError):
        check("f", option=(NOT_GIVEN, COUNT))


def test_the_sentence() -> None:
    with pytest.raises(
        ValueError, match=r"^run_turn\.a: expected a whole number of at least 1, got 0$"
    ):
        check("run_turn", b=(3, COUNT), a=(0, COUNT), c=(0, COUNT))
    with pytest.raises(TypeError, match=r"^f\.a: expected an APIConnectOptions, got 'x'$"):
        check("f", a=("x", CONNECT))


def test_a_secret_is_not_shown() -> None:
    with pytest.raises(TypeError) as caught:
        check("LLM", api_key=(b"sk-secret", STRING))
    assert str(caught.value) == "LLM.api_key: expected a string, got a value of type bytes"


def test_values_that_are_long_or_cannot_be_shown() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(TypeError, match="got a value of type Odd"):
        check("f", a=(Odd(), COUNT))
    with pytest.raises(TypeError) as caught:
        check("f", a=(["x" * 10_000], COUNT))
    assert len(str(caught.value)) < 300


# -- rules from annotations -----------------------------------------------------------------------


class Shape(TypedDict):
    a: int


class Runs(Protocol):
    def run(self) -> None: ...


@pytest.mark.parametrize(
    ("hint", "good", "wrong"),
    [
        (str, ["a"], [1, None, b"a"]),
        (int, [1, -1], [True, 1.0, "1"]),
        (float, [1, 1.5, math.nan], [True, "1"]),
        (bool, [True], [1]),
        (bytes, [b"a", bytearray(b"a")], ["a"]),
        (str | None, ["a", None], [1, NOT_GIVEN]),
        (NotGivenOr[int], [1, NOT_GIVEN, None], ["1"]),
        (NotGivenOr[int | None], [1, NOT_GIVEN, None], ["1"]),
        (list[str], [["a"], []], ["a", ("a",), [1]]),
        (Sequence[str], [["a"], ("a",)], ["a", b"a", [1], {"a": 1}]),
        (Iterable[int], [[1], (i for i in "x")], [["x"], 3]),
        (tuple[int, ...], [(), (1,)], [("a",), [1]]),
        (dict[str, int], [{"a": 1}, {}], [{"a": "b"}, {1: 1}, []]),
        (Mapping[str, Any], [{"a": object()}], [{1: 1}, "a"]),
        (Literal["a", "b"], ["a"], [1, None]),
        (Callable[[int], int], [len, Thing], [1]),
        (type[Thing], [Thing], [Thing()]),
        (Annotated[int, "positive"], [1], ["1"]),
        (Shape, [{"a": 1}], ["a", 1]),
        (Thing, [Thing()], [Thing, None]),
        (Path | str, [Path(), "a"], [1]),
    ],
)
def test_the_rule_of_an_annotation(hint: Any, good: list[Any], wrong: list[Any]) -> None:
    rule = rule_of(hint)
    assert rule is not None
    for value in good:
        rule.check("f.option", value)
    for value in wrong:
        with pytest.raises(WrongTypeError, match=r"f\.option: expected .*, got "):
            rule.check("f.option", value)


@pytest.mark.parametrize("hint", [Any, object, Runs, TypeVar("T"), Runs | None])
def test_annotations_that_exclude_nothing(hint: Any) -> None:
    assert rule_of(hint) is None


def test_a_value_that_is_not_listed() -> None:
    rule = rule_of(Literal["a", "b"])
    assert rule is not None
    with pytest.raises(ConfigurationError, match="expected one of 'a', 'b', got 'c'"):
        rule.check("f.option", "c")


# -- checked calls --------------------------------------------------------------------------------


@checked(seconds=SECONDS)
def plain(
    name: str, *more: int, seconds: float | None = 1, http: NeverThere | None = None, **_: Any
) -> str:
    """Says hello."""
    return f"{name} {more} {seconds} {http}"


class Holder:
    @checked()
    def __init__(self, size: int = 1) -> None:
        self.size = size

    @classmethod
    @checked(size=COUNT)
    def make(cls, size: int) -> Holder:
        return cls(size)

    @checked()
    async def later(self, text: str) -> str:
        return text


async def test_checked_calls() -> None:
    assert plain("a", 1, 2, seconds=3, http="anything", other=object()) == "a (1, 2) 3 anything"
    assert plain("a", seconds=None) == "a () None None"
    assert plain.__doc__ == "Says hello."
    assert list(inspect.signature(plain).parameters) == ["name", "more", "seconds", "http", "_"]
    for call, says in (
        (lambda: plain(5), "plain.name: expected a string, got 5"),  # type: ignore[arg-type]
        (lambda: plain("a", seconds=0), "plain.seconds: expected seconds greater than 0, got 0"),
        (lambda: Holder("3"), "Holder.size: expected a whole number, got '3'"),  # type: ignore[arg-type]
        (lambda: Holder.make(0), "Holder.make.size: expected a whole number of at least 1, got 0"),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert str(caught.value) == says
    assert inspect.iscoroutinefunction(Holder().later)
    assert await Holder().later("a") == "a"
    with pytest.raises(TypeError, match="text: expected a string"):
        await Holder().later(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        plain()  # type: ignore[call-arg]


@dataclass
class Options:
    size: int = 1
    name: str | None = None
    left: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        check_fields(self, size=COUNT)


@dataclass
class More(Options):
    share: float = 0.5

    def __post_init__(self) -> None:
        check_fields(self, size=COUNT, share=SHARE)


def test_fields_of_a_dataclass() -> None:
    Options(2, "a")
    More(2, None, 1)
    with pytest.raises(ConfigurationError, match=r"^Options\.size: expected .* at least 1, got 0$"):
        Options(0)
    with pytest.raises(TypeError, match=r"^Options\.name: expected a string or None, got 3$"):
        Options(1, 3)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"^More\.share: expected a number from 0 to 1"):
        More(share=2)


# what errors show ------------------------------------------------------------------------------


@checked()
def signed_in(user: int, api_key: str = "") -> None:
    inner_secret = api_key
    if user == 1:
        raise ConfigurationError("user 1 is closed") from LookupError(user)
    if user == 2:
        raise TypeError("a mistake", len(inner_secret))


def frames(error: BaseException) -> list[str]:
    return [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)][1:]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"user": "x"}, "user: expected"),
        ({"user": 1}, "user 1 is closed"),
        ({"user": 3, "colour": "red"}, "unexpected keyword argument 'colour'"),
        ({}, "missing 1 required positional argument: 'user'"),
    ],
)
def test_an_error_of_a_call_with_a_credential_shows_no_frame_that_holds_it(
    arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        signed_in(**arguments, api_key="canary-1234567")
    assert frames(caught.value) == ["call_discreetly"]
    frame = list(traceback.walk_tb(caught.value.__traceback__))[-1][0]
    assert "canary" not in repr(frame.f_locals)


def test_a_mistake_inside_of_such_a_call_keeps_its_frames() -> None:
    with pytest.raises(TypeError, match="a mistake") as caught:
        signed_in(2, api_key="canary-1234567")
    assert frames(caught.value)[-1] == "signed_in"


def misspelt_calls() -> Iterable[tuple[str, Callable[[], object], str]]:
    from rejoinder.llm import FallbackAdapter
    from rejoinder.llm.mcp import MCPServerHTTP
    from rejoinder.providers import anthropic, openai
    from rejoinder.testing import ScriptedLLM

    llm: Any = ScriptedLLM("Hi.")
    yield "openai", lambda: openai.LLM(api_key="any", temprature=1), "temperature"  # type: ignore[call-arg]
    yield "anthropic", lambda: anthropic.LLM(model="m", max_token=1), "max_tokens"  # type: ignore[call-arg]
    yield "a host", lambda: openai.LLM.with_deepseek(api_key="any", temprature=1), "temperature"  # type: ignore[call-arg]
    yield "fallback", lambda: FallbackAdapter([llm, llm], hegde=None), "hedge"  # type: ignore[call-arg]
    yield "mcp", lambda: MCPServerHTTP("http://h/mcp", alowed_tools=["a"]), "allowed_tools"  # type: ignore[call-arg]
    yield "class", lambda: Holder(sise=1), "size"  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("call", "close"),
    [pytest.param(call, close, id=what) for what, call, close in misspelt_calls()],
)
def test_a_misspelt_option_suggests_the_close_name(call: Callable[[], object], close: str) -> None:
    with pytest.raises(WrongTypeError, match=rf"did you mean '{close}'\?.*an-unexpected-argument"):
        call()


def test_an_option_without_a_close_name_suggests_nothing() -> None:
    with pytest.raises(WrongTypeError, match=r"unexpected keyword argument 'zzz'\. More"):
        signed_in(3, api_key="any", zzz=1)  # type: ignore[call-arg]
