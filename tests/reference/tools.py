"""The functions whose schemas and arguments LiveKit Agents 1.2.17 and 1.7.0 recorded.

Those of `vectors/` are decorated (`VECTOR_TOOLS`); those of `tool_schemas.json` are the plain
functions named ``p_*``.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import uuid
from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from rejoinder.llm.tool_context import RunContext, function_tool


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Num(enum.IntEnum):
    ONE = 1
    TWO = 2


class Addr(BaseModel):
    "An address."

    street: str
    zip: int | None = None


class Sub(BaseModel):
    "Sub doc"

    x: int
    y: str = "def"


class Deep(BaseModel):
    s: Sub
    o: Sub | None = None
    l: list[Sub] = Field(default_factory=list)  # noqa: E741  as recorded


class Rec(BaseModel):
    v: int
    kids: list[Rec] = []


class TDict(TypedDict):
    a: int
    b: NotRequired[str]


@dataclasses.dataclass
class DC:
    q: int
    w: str = "z"


class Cat(BaseModel):
    kind: Literal["cat"]
    m: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    b: int


class DD(BaseModel):
    model_config = ConfigDict(title="TT")
    a: int = Field(1, title="Custom")


# -- of vectors/ ----------------------------------------------------------------------------


@function_tool
async def plain(city: str, days: int = 3) -> str:
    """Get weather.

    Args:
        city: the city
        days: how many days
    """
    return f"{city} {days}"


@function_tool(name="renamed", description="Described")
async def renamed(a: Literal["x", "y"], b: list[int] | None = None) -> None: ...


@function_tool
async def rich(
    color: Color,
    addr: Addr,
    tags: list[str],
    m: dict[str, int] = {},  # noqa: B006  the tool that was recorded
    f: Annotated[float, Field(ge=0, le=9, description="eff")] = 1.0,
) -> None: ...


@function_tool
def union(v: int | str, w: int | None = None, flag: bool = False) -> None: ...


@function_tool
async def empty() -> None: ...


@function_tool(
    raw_schema={
        "name": "rawone",
        "description": "raw",
        "parameters": {"type": "object", "properties": {"q": {"type": "string"}}},
    }
)
async def rawone(raw_arguments: dict[str, object]) -> None: ...


VECTOR_TOOLS: dict[str, Any] = {
    "plain": plain,
    "renamed": renamed,
    "rich": rich,
    "union": union,
    "empty": empty,
    "rawone": rawone,
}


# -- of tool_schemas.json -------------------------------------------------------------------


async def p_none(): ...
async def p_ctx_only(ctx: RunContext): ...
async def p_ctx_generic(ctx: RunContext[int], a: int): ...
async def p_str(city: str):
    """Get.

    Args:
        city: the city
    """


async def p_default(city: str = "paris", n: int = 3, f: float = 1.5, b: bool = True): ...
async def p_default_none(city: str = None): ...  # noqa: RUF013  as recorded
async def p_optional(city: str | None): ...
async def p_optional_default(city: str | None = None, n: int | None = None): ...
async def p_optional_default_val(city: str | None = "x"): ...
async def p_annotated(a: Annotated[int, Field(ge=1, le=5, description="ann desc")], b: str = "q"):
    """X.

    Args:
        a: doc for a
        b: doc for b
    """


async def p_annotated_default(a: Annotated[int, Field(default=7, description="x")]): ...
async def p_annotated_default2(a: Annotated[int, Field(default=7)] = 9): ...
async def p_alias(a: Annotated[int, Field(alias="aa")]): ...
async def p_annotated_optional(a: Annotated[int | None, Field(description="x")] = None): ...
async def p_literal(
    m: Literal["a", "b"], n: Literal["c"] = "c", o: Literal["x", "y"] | None = None
): ...
async def p_enum(c: Color, d: Color = Color.RED, e: Color | None = None, n: Num = Num.ONE): ...
async def p_list(
    l: list[str],  # noqa: E741  as recorded
    t: tuple[int, str],
    s: set[int],
    d: dict[str, int],
    l2: list = [],  # noqa: B006  the function that was recorded
    d2: dict = {},  # noqa: B006  the function that was recorded
): ...
async def p_any(a: Any, o: object, aa: Any = None): ...
async def p_union(
    a: int | str,
    b: int | str | None,
    c: int | str = 3,
    d: int | str | None = None,
): ...
async def p_model(s: Sub):
    """M.

    Args:
        s: sub param doc
    """


async def p_model_default(s: Sub | None = None, s2: Sub = Sub(x=1)): ...  # noqa: B008  as above
async def p_deep(d: Deep): ...
async def p_rec(r: Rec): ...
async def p_rec_desc(r: Rec):
    """R.

    Args:
        r: with desc
    """


async def p_tdict(t: TDict): ...
async def p_dc(t: DC): ...
async def p_disc(p: Annotated[Cat | Dog, Field(discriminator="kind")]): ...
async def p_union_models(p: Cat | Dog): ...
async def p_dt(d: dt.datetime, u: uuid.UUID, b: bytes): ...
async def p_kwonly(a: int, *, b: str = "x"): ...
async def p_posonly(a: int, /, b: str): ...
async def p_snake_case_name_Here(a: int): ...
async def p_titled(d: DD): ...
