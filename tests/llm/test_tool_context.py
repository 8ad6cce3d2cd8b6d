"""Decorated functions, toolsets, and the tools of a conversation."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import enum
import functools
import gc
import inspect
import json
import logging
import pickle
import re
import sys
import types
import weakref
from typing import TYPE_CHECKING, Any, ClassVar, NotRequired, Self, TypedDict

import pytest
from pydantic import BaseModel, EmailStr

from rejoinder.llm import _plans, tool_context
from rejoinder.llm.tool_context import (
    FunctionTool,
    ProviderTool,
    RawFunctionTool,
    RunContext,
    StopResponse,
    ToolContext,
    ToolError,
    ToolFlag,
    Toolset,
    find_function_tools,
    function_tool,
    get_function_info,
    get_raw_function_info,
    get_tool_options,
    is_function_tool,
    is_raw_function_tool,
)
from rejoinder.llm.utils import (
    build_legacy_openai_schema,
    build_strict_openai_schema,
    prepare_function_arguments,
)

if TYPE_CHECKING:
    from decimal import Decimal

    class LateModel(BaseModel):
        """At run time it is only there when a test says so."""


RAW = {"name": "r", "parameters": {"type": "object"}}


async def f1(x: int) -> int:
    """Doc short.

    Long body here.

    Args:
        x: the x
    """
    return x


@function_tool
async def top(city: str, days: int = 3) -> str:
    """At the top of a module.

    Args:
        city: the city
    """
    return f"{city} {days}"


def schema(tool: Any) -> dict[str, Any]:
    return build_legacy_openai_schema(tool)["function"]["parameters"]


# -- the decorator --------------------------------------------------------------------------


def test_a_decorated_function_is_the_same_function() -> None:
    async def fresh(x: int) -> int:
        """Doc."""
        return x

    tool = function_tool(fresh)
    assert tool is fresh
    assert get_function_info(tool) == tool.info
    assert (tool.info.name, tool.info.description, tool.id) == ("fresh", "Doc.", "fresh")
    assert fresh.__dict__["__livekit_tool_info"] is tool.info
    assert inspect.iscoroutinefunction(tool)
    assert asyncio.run(tool(3)) == 3
    assert str(inspect.signature(tool)) == "(x: 'int') -> 'int'"


def test_pickled_and_copied_as_functions_are() -> None:
    assert pickle.loads(pickle.dumps(top)) is top
    assert copy.deepcopy(top) is top


def test_forms() -> None:
    named = function_tool(name="nm", description="dd")(f1)
    assert (named.info.name, named.info.description) == ("nm", "dd")
    assert (named.id, named.__name__) == ("nm", "f1")
    again = function_tool(f1, name="", description="")
    assert (again.info.name, again.info.description) == ("f1", "Doc short.\n\nLong body here.")
    assert named.info.name == "nm", "a second decoration makes a second tool"
    assert ToolContext([named, again]).function_tools == {"nm": named, "f1": again}
    assert asyncio.run(again(4)) == asyncio.run(named(4)) == 4
    with pytest.raises(TypeError):
        function_tool("nm", f1)  # type: ignore[call-overload]  # only f is positional


def test_isinstance() -> None:
    async def raw_one(raw_arguments: dict[str, object]) -> None: ...
    async def both(raw_arguments: dict[str, object]) -> None: ...

    raw = function_tool(raw_one, raw_schema=RAW)
    assert isinstance(top, FunctionTool)
    assert not isinstance(top, RawFunctionTool)
    assert isinstance(raw, RawFunctionTool)
    assert not isinstance(raw, FunctionTool)
    assert not isinstance(f2_plain, FunctionTool | RawFunctionTool)
    assert not isinstance(3, FunctionTool)
    assert (is_function_tool(top), is_raw_function_tool(top)) == (True, False)
    assert (is_function_tool(f2_plain), is_raw_function_tool(f2_plain)) == (False, False)
    with pytest.raises(AttributeError):
        get_function_info(f2_plain)
    with pytest.raises(AttributeError):
        get_raw_function_info(top)
    function_tool(function_tool(both), raw_schema={**RAW, "name": "raw_name"})
    two_ways = function_tool(function_tool(both), raw_schema={**RAW, "name": "raw_name"})
    assert isinstance(two_ways, FunctionTool)
    assert isinstance(two_ways, RawFunctionTool)
    assert list(ToolContext([two_ways]).function_tools) == ["raw_name"]


def f2_plain() -> None: ...


DOCSTRINGS = {
    "none": (None, None, None),
    "google": (
        "Google style.\n    Second line joined.\n\n    Args:\n        x: The x value\n            continued.\n",
        "Google style.\nSecond line joined.",
        "The x value\ncontinued.",
    ),
    "one line": ("Get.\n\n    Args:\n        x: the x\n", "Get.\n", "the x"),
    "long": (
        "Doc short.\n\n    Long body here.\n\n    Args:\n        x: the x\n",
        "Doc short.\n\nLong body here.",
        "the x",
    ),
    "rest": ("Rest style.\n\n    :param x: the x\n", "Rest style.\n", "the x"),
    "epydoc": ("Epy style.\n\n    @param x: the x val\n", "Epy style.\n", "the x val"),
    "numpy": (
        """Numpy style.

    More.

    Parameters
    ----------
    x : int
        The x value
        on two lines.
""",
        "Numpy style.\n\nMore.",
        "The x value\non two lines.",
    ),
    "only args": ("Args:\n    x: only args\n", "Args:\nx: only args", None),
}


@pytest.mark.parametrize("style", DOCSTRINGS)
def test_docstrings(style: str) -> None:
    doc, description, of_x = DOCSTRINGS[style]

    def fn(x: int) -> None: ...

    fn.__doc__ = doc
    tool = function_tool(fn)
    assert tool.info.description == description
    assert schema(tool)["properties"]["x"].get("description") == of_x


def test_things_that_are_no_plain_functions() -> None:
    def base(a: int, b: str, c: float = 1.5) -> str:
        """Base doc.

        Args:
            a: the a
            b: the b
        """
        return f"{a}{b}{c}"

    class Callable_:
        def __call__(self, a: int) -> int:
            """Callable doc."""
            return a

    class Slotted:
        __slots__ = ()

        def __call__(self, a: int) -> int:
            return a

        def method(self, a: int) -> int:
            return a

    class Listy(list[int]):
        def __call__(self, a: int) -> int:
            return a

    partial = function_tool(functools.partial(base, 1, c=2.5), name="p")
    assert partial.info.description == "Base doc.\n"
    assert list(schema(partial)["properties"]) == ["b", "c"]
    assert schema(partial)["properties"]["b"]["description"] == "the b"
    args, kwargs = prepare_function_arguments(fnc=partial, json_arguments='{"b": "x"}')
    assert partial(*args, **kwargs) == "1x2.5"

    instance = function_tool(Callable_(), name="inst")
    assert instance.info.description == "Callable doc."
    for made in (
        instance,
        function_tool(Slotted(), name="slotted"),
        function_tool(Slotted().method),
        function_tool(Listy(), name="unhashable"),
        function_tool(lambda a: a, name="lambda"),
    ):
        assert list(schema(made)["properties"]) == ["a"]
        args, kwargs = prepare_function_arguments(fnc=made, json_arguments='{"a": 1}')
        assert made(*args, **kwargs) == 1
    assert function_tool(lambda: None).info.name == "<lambda>"

    for nameless in (functools.partial(base, 1), Callable_(), 3, "x"):
        with pytest.raises(AttributeError):
            function_tool(nameless)  # type: ignore[arg-type]  # on purpose


async def test_wrapped_functions() -> None:
    def logged(fn: Any) -> Any:
        @functools.wraps(fn)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return "logged " + await fn(*args, **kwargs)

        return wrapper

    async def inner(city: str, days: int = 3) -> str:
        """Inner doc."""
        return f"{city} {days}"

    below = function_tool(logged(inner))
    assert schema(below)["required"] == ["city"]
    assert await below("x") == "logged x 3"
    above = logged(function_tool(inner, name="above"))
    assert isinstance(above, FunctionTool)
    assert above.info.name == "above"
    args, kwargs = prepare_function_arguments(fnc=above, json_arguments='{"city": "x"}')
    assert await above(*args, **kwargs) == "logged x 3"


def test_a_wrapper_with_a_signature_of_its_own_has_a_schema_of_its_own() -> None:
    @function_tool
    def inner(a: int, b: int) -> int:
        return a + b

    @functools.wraps(inner)
    def with_one(a: int) -> int:
        return inner(a, 1)

    with_one.__signature__ = inspect.signature(lambda a: a)  # type: ignore[attr-defined]
    assert list(schema(inner)["properties"]) == ["a", "b"]
    assert list(schema(with_one)["properties"]) == ["a"]


def test_options() -> None:
    tool = function_tool(
        f1, timeout=2, interruptible=False, threaded=True, flags=ToolFlag.CANCELLABLE
    )
    options = get_tool_options(tool)
    assert (options.timeout, options.interruptible, options.threaded) == (2, False, True)
    assert get_tool_options(top).timeout is None
    with pytest.raises(ValueError, match="timeout"):
        function_tool(f1, timeout=0)
    with pytest.raises(ValueError, match=r"timeout: expected seconds .* got 'soon'"):
        function_tool(f1, timeout="soon")  # type: ignore[call-overload]
    # names of later versions are understood
    function_tool(f1, on_duplicate="reject", duplicate_scope="name")


# -- raw tools ------------------------------------------------------------------------------


def test_raw() -> None:
    given: dict[str, Any] = {**RAW, "parameters": {"a": 1}, "meta": {"from": "a server"}}

    async def r(raw_arguments: dict[str, object]) -> None: ...

    tool = function_tool(r, raw_schema=given, name="ignored")  # type: ignore[call-overload]
    assert tool is r
    info = get_raw_function_info(tool)
    assert (info.name, info.raw_schema) == ("r", given)
    assert info.raw_schema is not given
    sent = build_legacy_openai_schema(tool)
    assert sent == {"type": "function", "function": {"name": "r", "parameters": {"a": 1}}}
    sent["function"]["parameters"]["dirt"] = 1
    assert build_strict_openai_schema(tool)["function"]["parameters"] == {"a": 1}
    assert given["parameters"] == {"a": 1}


@pytest.mark.parametrize(
    ("raw_schema", "says"),
    [
        ({}, "name"),
        ({"parameters": {}}, "name"),
        ({"name": "", "parameters": {}}, "name"),
        ({"name": "x"}, "parameters"),
        ({"name": 5, "parameters": {}}, "name"),
        ({"name": "x", "parameters": [1]}, r"`x`.*`parameters`, got \[1\]"),
    ],
)
def test_raw_schema_that_lacks_something(raw_schema: dict[str, Any], says: str) -> None:
    async def r(raw_arguments: dict[str, object]) -> None: ...

    decorate = function_tool(raw_schema=raw_schema)
    with pytest.raises(ValueError, match=says):
        decorate(r)


def test_raw_function_that_cannot_take_the_arguments() -> None:
    async def r(arguments: dict[str, object]) -> None: ...

    with pytest.raises(TypeError, match=r"`r`.*raw_arguments.*\(arguments\)"):
        function_tool(r, raw_schema=RAW)


def test_raw_arguments() -> None:
    class A:
        @function_tool(raw_schema=RAW)
        async def rawm(self, raw_arguments: dict[str, object], ctx: RunContext) -> None: ...

    context = RunContext()
    prepared = prepare_function_arguments(fnc=A().rawm, json_arguments='{"q": 1}', call_ctx=context)
    assert prepared == (({"q": 1}, context), {})
    for text in ("[1]", '"s"', "5", ""):
        with pytest.raises(ToolError):
            prepare_function_arguments(fnc=A().rawm, json_arguments=text, call_ctx=context)


def test_raw_functions_whose_parameters_nothing_fills() -> None:
    def extra(raw_arguments: dict[str, object], other: int) -> None: ...

    with pytest.raises(TypeError, match=r"`r`, parameter `other`.*a default or a RunContext"):
        function_tool(extra, raw_schema=RAW)

    class Holder:
        @function_tool(raw_schema=RAW)
        async def fine(self, raw_arguments: Any, ctx: RunContext, n: int = 3, *a: int) -> None: ...

    prepared = prepare_function_arguments(fnc=Holder().fine, json_arguments="{}", call_ctx=Holder)
    assert prepared == (({}, Holder, 3), {})
    with pytest.raises(
        TypeError, match=r"`r`, parameter `ctx`: expected a RunContext, got nothing"
    ):
        prepare_function_arguments(fnc=Holder().fine, json_arguments="{}")


def test_raw_arguments_of_every_kind_of_parameter() -> None:
    class Special(RunContext): ...

    def first(raw_arguments: Any, /, ctx: RunContext | None = None) -> None: ...
    def last(*, raw_arguments: Any, n: int = 1) -> None: ...
    def more(**kwargs: Any) -> None: ...
    def special(raw_arguments: Any, ctx: Special | None = None) -> None: ...

    for function, expected in (
        (first, (({"a": 1}, None), {})),
        (last, ((), {"raw_arguments": {"a": 1}, "n": 1})),
        (more, ((), {"raw_arguments": {"a": 1}})),
    ):
        tool: Any = function_tool(function, raw_schema=RAW)
        assert prepare_function_arguments(fnc=tool, json_arguments='{"a": 1}') == expected
    tool = function_tool(special, raw_schema=RAW)
    plain, own = RunContext(), Special()
    for given, got in ((plain, None), (own, own)):
        prepared = prepare_function_arguments(fnc=tool, json_arguments="{}", call_ctx=given)
        assert prepared == (({}, got), {})


# -- methods --------------------------------------------------------------------------------


class A:
    tag = "A"

    def __init__(self) -> None:
        self.f1 = function_tool(f1)

    @function_tool
    async def meth(self, city: str, n: int = 3) -> str:
        """M doc.

        Args:
            city: c doc
        """
        return f"{self.tag}:{city}:{n}"

    @function_tool(name="renamed_tool")
    async def renamed(self) -> None: ...

    @function_tool(raw_schema={"name": "raw_tool", "parameters": {}})
    async def rawm(self, raw_arguments: dict[str, object]) -> None: ...

    @staticmethod
    @function_tool
    async def st(a: int) -> int:
        return a

    @classmethod
    @function_tool
    async def cl(cls, a: int) -> str:
        return f"{cls.tag}{a}"


class B(A):
    tag = "B"

    async def renamed(self) -> None: ...  # type: ignore[override]  # no tool any more


def names(tools: list[Any]) -> list[str]:
    return [tool.__name__ for tool in tools]


def test_find_function_tools() -> None:
    assert names(find_function_tools(A())) == ["cl", "f1", "meth", "rawm", "renamed", "st"]
    assert names(find_function_tools(A)) == ["cl", "meth", "rawm", "renamed", "st"]
    assert names(find_function_tools(B())) == ["cl", "f1", "meth", "rawm", "st"]
    assert find_function_tools([top]) == []
    module = types.ModuleType("m")
    module.z, module.a, module.n = f2_plain, top, 3  # type: ignore[attr-defined]
    assert find_function_tools(module) == [top]


def test_properties_that_raise() -> None:
    class Absent:
        @property
        def tool(self) -> None:
            raise AttributeError

    class Broken:
        @property
        def tool(self) -> None:
            raise RuntimeError("evaluated")

    assert find_function_tools(Absent()) == []
    with pytest.raises(RuntimeError):
        find_function_tools(Broken())


async def test_methods() -> None:
    a, b = A(), B()
    assert await a.meth("x") == "A:x:3"
    assert await b.meth("x", 4) == "B:x:4"
    assert isinstance(a.meth, FunctionTool)
    assert a.meth.info is A.meth.info
    assert a.meth == a.meth
    assert a.meth != A().meth
    assert schema(a.meth)["properties"]["city"]["description"] == "c doc"
    assert "self" not in schema(a.meth)["properties"]
    for tool, expected in ((b.cl, "B1"), (b.st, 1), (B.cl, "B1"), (B.st, 1)):
        args, kwargs = prepare_function_arguments(fnc=tool, json_arguments='{"a": 1}')
        assert await tool(*args, **kwargs) == expected
    args, kwargs = prepare_function_arguments(fnc=b.meth, json_arguments='{"city": "x"}')
    assert (args, kwargs) == (("x", 3), {})


def test_a_method_of_a_class_has_a_schema_and_cannot_be_called() -> None:
    assert list(schema(A.meth)["properties"]) == ["city", "n"]
    with pytest.raises(TypeError, match=r"`meth` is a method.*instance"):
        prepare_function_arguments(fnc=A.meth, json_arguments='{"city": "x"}')


def test_functions_bound_later() -> None:
    @function_tool
    async def loose(this: Any, a: int) -> int:
        return a

    bound = types.MethodType(loose, object())
    assert list(schema(loose)["properties"]) == ["this", "a"]
    assert list(schema(bound)["properties"]) == ["a"]
    assert prepare_function_arguments(fnc=bound, json_arguments='{"a": 1}') == ((1,), {})  # type: ignore[arg-type]


# -- schemas are refused, or wait -----------------------------------------------------------


def test_a_parameter_that_no_schema_can_describe() -> None:
    class Connection: ...

    async def query(sql: str, connection: Connection) -> None: ...
    async def call_back(when: int, then: types.FunctionType) -> None: ...
    async def several(a: Connection, b: int, c: Connection) -> None: ...

    for function, parameter in ((query, "connection"), (call_back, "then"), (several, "a")):
        with pytest.raises(TypeError, match=f"`{function.__name__}`, parameter `{parameter}`"):
            function_tool(function)


def test_a_parameter_that_json_can_never_fill() -> None:
    class Nothing(enum.Enum): ...

    def kind(a: int, of: type[int]) -> None: ...
    def never(a: int, choice: Nothing) -> None: ...
    def attribute(a: int, of: ClassVar[int]) -> None: ...
    def self_made(a: int, of: Self) -> None: ...  # type: ignore[misc]  # on purpose

    for function, parameter in (
        (kind, "of"),
        (never, "choice"),
        (attribute, "of"),
        (self_made, "of"),
    ):
        with pytest.raises(TypeError, match=f"`{function.__name__}`, parameter `{parameter}`"):
            function_tool(function)


def test_a_type_whose_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "email_validator", None)

    def invite(address: EmailStr) -> None: ...

    with pytest.raises(TypeError, match=r"`invite`, parameter `address`.*email-validator"):
        function_tool(invite)


def test_what_was_refused_is_no_tool() -> None:
    def refused(a: type[int]) -> None: ...

    with pytest.raises(TypeError):
        function_tool(refused)
    assert not is_function_tool(refused)
    with pytest.raises(ValueError, match="expected a tool"):
        ToolContext([refused])  # type: ignore[list-item]


def test_an_annotation_that_is_no_type() -> None:
    def bad(a: "list[") -> None: ...  # noqa: F722  on purpose
    def worse(a: 3 + 4) -> None: ...  # type: ignore[valid-type]  # on purpose

    with pytest.raises(TypeError, match=r"`bad`, parameter `a`.*expected a type"):
        function_tool(bad)
    with pytest.raises(TypeError, match=r"`worse`, parameter `a`.* 7 .*use a plain type"):
        function_tool(worse)


def test_names_of_the_surrounding_function() -> None:
    class Local(BaseModel):
        x: int

    @function_tool
    async def takes(local: Local, many: list[Local]) -> None: ...

    @function_tool(name="with_parentheses")
    async def takes_too(local: Local) -> None: ...

    class Holder:
        class Inner(BaseModel):
            y: int

        @function_tool
        async def method(self, local: Local, inner: Inner) -> None: ...

    assert "Local" in schema(takes)["$defs"]
    assert "Local" in schema(takes_too)["$defs"]
    assert sorted(schema(Holder().method)["$defs"]) == ["Inner", "Local"]


def test_types_of_a_function_may_speak_of_each_other() -> None:
    class Colour(enum.Enum):
        RED = "red"

    @dataclasses.dataclass
    class Paint:
        colour: Colour

    class Wall(TypedDict):
        paint: Paint
        number: NotRequired[int]

    @function_tool
    async def decorate(wall: Wall, colour: Colour, then: Wall | None = None) -> None: ...

    assert sorted(schema(decorate)["$defs"]) == ["Colour", "Paint", "Wall"]
    text = '{"wall": {"paint": {"colour": "red"}}, "colour": "red"}'
    (wall, *_), _ = prepare_function_arguments(fnc=decorate, json_arguments=text)
    assert wall == {"paint": Paint(Colour.RED)}


def test_local_names_are_kept_until_all_are_known() -> None:
    def defined() -> tuple[Any, weakref.ref[Any]]:
        class Local(BaseModel):
            n: int

        unrelated = Local(n=1)

        @function_tool
        async def both(local: Local, late: LateModel) -> None: ...

        return both, weakref.ref(unrelated)

    both, unrelated = defined()
    gc.collect()
    assert unrelated() is None, "of the scope only what is spoken of is kept"
    with pytest.raises(NameError, match=r"parameter `late`.*'LateModel'"):
        schema(both)
    globals()["LateModel"] = Result = type("Result", (BaseModel,), {})
    try:
        assert sorted(schema(both)["$defs"]) == ["Local", Result.__name__]
    finally:
        del globals()["LateModel"]


def test_forward_references_are_resolved_at_the_first_use() -> None:
    namespace: dict[str, Any] = {"function_tool": function_tool, "BaseModel": BaseModel}
    exec(
        "from __future__ import annotations\n"
        "@function_tool\n"
        "async def later(x: Later) -> None: ...\n",
        namespace,
    )
    tool = namespace["later"]
    with pytest.raises(NameError, match=r"`later`, parameter `x`.*'Later'"):
        schema(tool)
    exec("class Later(BaseModel):\n  n: int\n", namespace)
    assert list(schema(tool)["$defs"]) == ["Later"]
    assert prepare_function_arguments(fnc=tool, json_arguments='{"x": {"n": 1}}')[0][0].n == 1


@pytest.mark.parametrize(
    "order",
    [
        "class Order(BaseModel):\n  item: 'Item'\n",
        "@dataclass\nclass Order:\n  item: 'Item'\n",
        "class Order(TypedDict):\n  item: 'Item'\n",
    ],
)
def test_forward_references_inside_of_a_type_are_resolved_at_the_first_use(order: str) -> None:
    imports = (
        "from dataclasses import dataclass\n"
        "from pydantic import BaseModel\n"
        "from typing_extensions import TypedDict\n"
        "from rejoinder.llm import function_tool\n"
    )
    module = types.ModuleType("orders")
    sys.modules["orders"] = module
    try:
        exec(
            f"{imports}{order}@function_tool\nasync def buy(n: int, order: Order): ...\n",
            module.__dict__,
        )
        tool = module.__dict__["buy"]
        with pytest.raises(NameError, match=r"`buy`, parameter `order`.*`Item`"):
            schema(tool)
        exec("class Item(BaseModel):\n  n: int\n", module.__dict__)
        assert sorted(schema(tool)["$defs"]) == ["Item", "Order"]
        text = '{"n": 1, "order": {"item": {"n": "2"}}}'
        (_, bought), _ = prepare_function_arguments(fnc=tool, json_arguments=text)
        item = bought["item"] if isinstance(bought, dict) else bought.item
        assert item.n == 2
    finally:
        del sys.modules["orders"]


def test_a_name_that_is_never_defined_is_reported_with_its_remedy() -> None:
    @function_tool
    async def pay(amount: Decimal) -> None: ...

    for use in (schema, lambda t: ToolContext([t]).parse_function_tools("openai")):
        with pytest.raises(NameError, match=r"`pay`, parameter `amount`.*'Decimal'.*TYPE_CHECKING"):
            use(pay)


def test_the_return_annotation_does_not_matter() -> None:
    @function_tool
    async def fine(a: int) -> Decimal: ...  # type: ignore[empty-body]

    assert schema(fine)["required"] == ["a"]


# -- errors of tools ------------------------------------------------------------------------


def test_tool_error_and_stop_response() -> None:
    error = ToolError("m")
    assert (error.message, str(error), error.args, repr(error)) == (
        "m",
        "m",
        ("m",),
        "ToolError('m')",
    )
    assert ToolError(5).message == 5  # type: ignore[arg-type,comparison-overlap]
    for wrong in (lambda: ToolError(), lambda: StopResponse(1)):  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(AttributeError):
        error.message = "n"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(error)).message == "m"
    assert ToolError.__bases__ == StopResponse.__bases__ == (Exception,)


# -- ToolContext ----------------------------------------------------------------------------


@function_tool
async def t_a() -> None: ...


@function_tool
async def t_b() -> None: ...


class Own(ToolContext):
    @function_tool
    async def own(self) -> None: ...


def test_tool_context() -> None:
    given = [t_b, t_a]
    context = ToolContext(given)
    assert list(context.function_tools) == ["t_b", "t_a"]
    assert context.get_function_tool("t_a") is t_a
    assert context.get_function_tool("nope") is None
    context.function_tools.clear()
    assert len(context.function_tools) == 2
    assert ToolContext.empty().function_tools == {}
    assert ToolContext([t_a, t_a]).flatten() == [t_a], "the same tool twice is one tool"
    a = A()
    assert len(ToolContext([a.meth, a.meth]).flatten()) == 1
    assert ToolContext((t_a,)) == ToolContext([t_a])
    assert ToolContext([t_a]) != ToolContext([t_b])
    assert ToolContext([t_a]) != 3
    with pytest.raises(TypeError):
        hash(context)


def test_own_tools() -> None:
    given = [t_a]
    own = Own(given)
    assert list(own.function_tools) == ["t_a", "own"]
    assert given == [t_a], "the caller's list is left alone"
    copied = own.copy()
    assert type(copied) is ToolContext
    assert list(copied.function_tools) == ["t_a", "own"]
    own.update_tools([t_b])
    assert list(own.function_tools) == ["t_b", "own"]
    assert list(copied.function_tools) == ["t_a", "own"]


def test_two_tools_of_one_name() -> None:
    other = function_tool(f1, name="t_a")
    context = ToolContext([t_b])
    with pytest.raises(ValueError, match=r"`t_a`: .*t_a \(line.*f1 \(line.*name="):
        context.update_tools([t_a, other])
    assert list(context.function_tools) == ["t_b"], "nothing has changed"
    with pytest.raises(ValueError, match="`meth`"):
        ToolContext([A().meth, A().meth])


@pytest.mark.parametrize("wrong", [f2_plain, 3, "t_a", None])
def test_things_that_are_no_tools(wrong: Any) -> None:
    with pytest.raises(ValueError, match="function_tool"):
        ToolContext([wrong])


async def test_toolsets() -> None:
    log: list[str] = []

    class Inner(Toolset):
        async def setup(self) -> Inner:
            log.append("setup")
            return self

        async def aclose(self) -> None:
            log.append("close")

        @property
        def evaluated(self) -> None:
            raise RuntimeError("properties are not evaluated")

    class Mine(Toolset):
        @function_tool
        async def own(self) -> str:
            return self.id

    web = ProviderTool(id="web", provider="openai", spec={"type": "web_search"})
    inner = Inner(id="inner", tools=[t_b])
    mine = Mine(id="ts", tools=[t_a, inner])
    context = ToolContext([mine, web, web])
    assert list(context.function_tools) == ["t_a", "t_b", "own"]
    assert context.provider_tools == [web]
    assert context.toolsets == [mine, inner]
    assert context.flatten() == [t_a, t_b, mine.own, web]
    assert ToolContext([mine, inner, t_a]).flatten() == [t_a, t_b, mine.own]
    async with mine as entered:
        assert entered is mine
        assert await mine.own() == "ts"
    assert log == ["setup", "close"]
    with pytest.raises(ValueError, match="`own`"):
        ToolContext([mine, Mine(id="other")])


def test_provider_tools_go_to_their_provider() -> None:
    class Search(ProviderTool):
        pass

    web = ProviderTool(id="web", provider="openai", spec={"type": "web_search", "n": [1]})
    search = Search(id="s", provider="google", spec={"google_search": {}})
    anywhere = ProviderTool(id="any", spec={"type": "any"})
    context = ToolContext([t_a, web, search, anywhere])
    specs = context.parse_function_tools("openai.responses")
    assert specs[1:] == [{"type": "web_search", "n": [1]}, {"type": "any"}]
    assert context.parse_function_tools("google")[1:] == [{"google_search": {}}, {"type": "any"}]
    typed = context.parse_function_tools("openai.responses", provider_tool_type=Search)
    assert typed[1:] == [{"google_search": {}}]
    specs[1]["n"].append(2)
    assert web.to_dict() == {"type": "web_search", "n": [1]}


# -- schemas of providers -------------------------------------------------------------------


@function_tool
async def with_dict(m: dict[str, int]) -> None: ...


@function_tool
async def limited(n: int = 3, word: str | None = None) -> None: ...


@pytest.mark.parametrize("format", ["openai", "openai.responses", "anthropic", "aws", "google"])
def test_names_that_a_provider_refuses_are_replaced_and_found_again(format: str) -> None:
    names = ("two words", "größe", "a/b", "n" * 65, "a_b", "21st_magic", "--")
    tools = [
        function_tool(lambda raw_arguments: None, raw_schema={**RAW, "name": name})
        for name in names
    ]
    context = ToolContext(tools)
    sent = [sent_name(spec) for spec in context.parse_function_tools(format)]
    assert len(set(sent)) == len(names)
    accepted = r"[a-zA-Z_][a-zA-Z0-9_.-]{0,63}" if format == "google" else r"[a-zA-Z0-9_-]{1,64}"
    assert all(re.fullmatch(accepted, name) for name in sent)
    assert "a_b" in sent
    for name, other in zip(names, sent, strict=True):
        tool = context.get_function_tool(other)
        assert tool is not None
        assert tool.info.name == name
    assert context.get_function_tool("nothing") is None


def sent_name(spec: dict[str, Any]) -> str:
    spec = spec.get("toolSpec", spec)
    return str(spec.get("function", spec)["name"])


def test_gemini_takes_other_names() -> None:
    def fine() -> None: ...

    for name, sent in (("a.b", "a.b"), ("9lives", "_9lives")):
        (spec,) = ToolContext([function_tool(fine, name=name)]).parse_function_tools("google")
        assert spec["name"] == sent


@pytest.mark.parametrize("format", ["openai", "openai.responses", "anthropic", "aws", "google"])
def test_schemas_of_others_are_compiled_too(format: str, caplog: pytest.LogCaptureFixture) -> None:
    schema = {
        "properties": {"$filter": {"type": "any"}, "list": {"type": "array"}},
        "anyOf": [{"required": ["list"]}, {"required": ["$filter"]}],
    }
    tool = function_tool(lambda raw_arguments: None, raw_schema={"name": "t", "parameters": schema})
    with caplog.at_level(logging.INFO, "rejoinder"):
        for _ in range(3):
            (spec,) = ToolContext([tool]).parse_function_tools(format)
    text = json.dumps(spec)
    assert "anyOf" not in text
    assert ("$filter" in text) == (format in ("openai", "openai.responses", "google"))
    (line,) = [record.getMessage() for record in caplog.records]
    assert "the tool 't'" in line
    assert "`anyOf` at the root is folded" in line
    written = '{"filter": "x", "list": "[1]"}'
    args, _ = prepare_function_arguments(fnc=tool, json_arguments=written)
    assert args == ({"$filter": "x", "list": [1]},)


def test_arguments_of_the_wrong_type() -> None:
    with pytest.raises(TypeError, match=r"function_tool\.name: expected a string, got 5"):
        function_tool(f1, name=5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"description: expected a string"):
        function_tool(f1, description=["d"])  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"raw_schema: expected a dict with .* got 'x'"):
        function_tool(raw_schema="x")(f1)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="expected a list of tools, got None"):
        ToolContext(None)  # type: ignore[arg-type]


def test_parse_function_tools() -> None:
    async def rawf(raw_arguments: dict[str, object]) -> None: ...

    raw = function_tool(rawf, raw_schema={"name": "raw", "parameters": {}})
    strict = {
        "properties": {"n": {"type": ["integer", "null"]}, "word": {"type": ["string", "null"]}},
        "type": "object",
        "additionalProperties": False,
        "required": ["n", "word"],
    }
    legacy = schema(limited)
    described = {"name": "raw", "parameters": {"type": "object", "properties": {}}}
    context = ToolContext([limited, raw])
    parse = context.parse_function_tools
    assert parse("openai") == [
        {
            "type": "function",
            "function": {
                "name": "limited",
                "strict": True,
                "description": "",
                "parameters": strict,
            },
        },
        {"type": "function", "function": described},
    ]
    assert parse("openai", strict=False) == [
        build_legacy_openai_schema(limited),
        {"type": "function", "function": described},
    ]
    assert parse("mistralai") == parse("openai", strict=False)
    assert parse("openai.responses") == [
        build_legacy_openai_schema(limited, internally_tagged=True),
        {**described, "type": "function"},
    ]
    assert parse("openai.responses", strict=True)[0] == {
        "type": "function",
        "name": "limited",
        "strict": True,
        "description": "",
        "parameters": strict,
    }
    assert parse("anthropic") == [
        {"name": "limited", "description": "", "input_schema": strict, "strict": True},
        {"name": "raw", "description": "", "input_schema": {"type": "object", "properties": {}}},
    ]
    assert parse("aws") == [
        {"toolSpec": {"name": "limited", "inputSchema": {"json": legacy}}},
        {
            "toolSpec": {
                "name": "raw",
                "inputSchema": {"json": {"type": "object", "properties": {}}},
            }
        },
    ]
    assert parse("google") == [
        {
            "name": "limited",
            "description": "",
            "parameters": {
                "type": "OBJECT",
                "properties": {
                    "n": {"type": "INTEGER"},
                    "word": {"type": "STRING", "nullable": True},
                },
            },
        },
        {"name": "raw", "description": ""},
    ]
    with pytest.raises(ValueError, match=r"'cohere'.*openai\.responses"):
        parse("cohere")
    with pytest.raises(TypeError, match="strict"):
        parse("aws", strict=True)


def test_a_schema_that_strict_cannot_say_is_sent_plainly() -> None:
    context = ToolContext([with_dict, limited])
    for format in ("openai", "anthropic"):
        plain, strict = context.parse_function_tools(format)
        assert "strict" not in {**plain, **plain.get("function", {})}
        assert "strict" in {**strict, **strict.get("function", {})}
    assert "parameters_json_schema" in context.parse_function_tools("google")[0]
    with pytest.raises(ValueError, match=r"\$\.m.*free keys"):
        context.parse_function_tools("google", json_schema=False)


@pytest.mark.parametrize("format", ["openai", "anthropic", "google", "aws", "mistralai"])
def test_nobody_can_change_a_tool_through_its_schema(format: str) -> None:
    context = ToolContext([top, with_dict, A().rawm])
    first = context.parse_function_tools(format)
    before = copy.deepcopy(first)
    wreck(first)
    assert context.parse_function_tools(format) == before
    assert ToolContext([top, with_dict, A().rawm]).parse_function_tools(format) == before


def wreck(node: Any) -> None:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in list(children):
        wreck(child)
    if isinstance(node, dict | list):
        node.clear()


def test_new_tools_have_new_schemas() -> None:
    context = ToolContext([t_a])
    assert len(context.parse_function_tools("openai")) == 1
    context.update_tools([t_a, t_b])
    assert len(context.parse_function_tools("openai")) == 2


def test_the_first_request_builds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    @function_tool
    async def ready(a: int) -> None: ...

    class Holder:
        @function_tool
        async def ready_too(self, a: int) -> None: ...

    monkeypatch.setattr(_plans, "_build_plan", None)
    ToolContext([ready, Holder().ready_too]).parse_function_tools("openai")
    prepare_function_arguments(fnc=ready, json_arguments='{"a": 1}')


def test_exports() -> None:
    assert all(hasattr(tool_context, name) for name in tool_context.__all__)
    assert sorted(tool_context.__all__, key=str.casefold) == sorted(
        set(tool_context.__all__), key=str.casefold
    )


def test_a_class_method_is_made_of_a_tool() -> None:
    """`classmethod` gives no function before the class is there."""
    with pytest.raises(AttributeError, match="put @classmethod above it"):
        function_tool(classmethod(lambda cls: None))  # type: ignore[arg-type, type-var]


def test_flattened_tools_remember_their_context() -> None:
    context = ToolContext([with_dict, limited])
    flat = context.flatten()
    assert ToolContext.of(flat) is context
    assert ToolContext.of(context) is context
    assert ToolContext.of(list(flat)) is not context
    flat.pop()
    assert list(ToolContext.of(flat).function_tools) == ["with_dict"]
    again = context.flatten()
    context.update_tools([limited])
    assert ToolContext.of(again) is not context, "the context has moved on, the list has not"
