"""Types that JSON can fill, and those it cannot."""

from __future__ import annotations

import dataclasses
import enum
import sys
import typing
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, NotRequired, Required, Self

import pytest
from pydantic import BaseModel, Field, create_model
from typing_extensions import TypedDict

from rejoinder._core.fillable import fillable, why_never_filled


class Colour(enum.Enum):
    RED = "red"
    ONE = 1


class Word(enum.StrEnum):
    A = "a"


class Nothing(enum.Enum):
    pass


class Endless(BaseModel):
    more: Endless


class Tree(BaseModel):
    children: list[Tree]
    parent: Tree | None


class Holds(BaseModel):
    kind: type[int]


@dataclasses.dataclass
class Record:
    kind: type[int]


class Keys(TypedDict):
    kind: type[int]


class MayLack(TypedDict, total=False):
    kind: type[int]


class Fixed(BaseModel):
    colour: Literal[Colour.RED]


@pytest.mark.parametrize(
    ("hint", "json", "expected"),
    [
        (Literal[Colour.RED], '"red"', Colour.RED),
        (Literal[Colour.RED, Colour.ONE, "x"], "1", Colour.ONE),
        (Literal[Colour.RED, "x"], '"x"', "x"),
        (Literal[Word.A], '"a"', Word.A),
        (list[Literal[Colour.RED]], '["red"]', [Colour.RED]),
        (Literal[Colour.RED] | None, '"red"', Colour.RED),
        (Annotated[Literal[Colour.RED], Field(description="d")], '"red"', Colour.RED),
        (dict[str, tuple[Literal[Colour.ONE], int]], '{"a": [1, 2]}', {"a": (Colour.ONE, 2)}),
        (Iterable[int], '["1"]', [1]),
        (Iterable, '["1"]', ["1"]),
        (Iterable[Iterable[int]] | None, '[["1"]]', [[1]]),
    ],
)
def test_fillable(hint: Any, json: str, expected: Any) -> None:
    before = create_model("M", x=(hint, ...))
    model = create_model("M", x=(fillable(hint), ...))
    assert model.model_json_schema() == before.model_json_schema()
    assert model.model_validate_json(f'{{"x": {json}}}').__dict__ == {"x": expected}


@pytest.mark.parametrize(
    "hint", [int, int | None, Literal["a"], Sequence[int], list[int], Annotated[int, 3], Any]
)
def test_others_stay_the_objects_they_are(hint: Any) -> None:
    assert fillable(hint) is hint


class Place(typing.TypedDict, total=False):
    """Where it is."""

    city: Required[str]
    street: str
    neighbours: list[Place]


class Trip(typing.TypedDict):
    places: Sequence[Place]
    by: NotRequired[Annotated[Literal["train"], Field(description="line")]]


def test_any_typed_dict_is_taken() -> None:
    # Before Python 3.12 pydantic itself refuses those of `typing`.
    model = create_model("M", trip=(fillable(Trip), ...), home=(fillable(Place | None), None))
    schema = model.model_json_schema()
    assert sorted(schema["$defs"]) == ["Place", "Trip"]
    assert schema["$defs"]["Place"]["description"] == "Where it is."
    assert schema["$defs"]["Place"]["required"] == ["city"]
    assert schema["$defs"]["Trip"]["required"] == ["places"]
    assert schema["$defs"]["Trip"]["properties"]["by"]["description"] == "line"
    home = {"city": "a", "neighbours": [{"city": "b", "street": "c"}]}
    trip = {"places": [{"city": "d"}], "by": "train"}
    assert model.model_validate({"trip": trip, "home": home}).__dict__ == {
        "trip": trip,
        "home": home,
    }
    with pytest.raises(ValueError, match=r"home\.neighbours\.0\.city"):
        model.model_validate({"trip": trip, "home": home | {"neighbours": [{}]}})
    assert fillable(Place) is fillable(Place)


def test_a_typed_dict_with_an_unknown_name() -> None:
    class Unknown(typing.TypedDict):
        place: Nowhere  # type: ignore[name-defined]  # noqa: F821  on purpose

    if sys.version_info < (3, 12):
        with pytest.raises(NameError, match="Nowhere"):
            fillable(Unknown)
        assert fillable(Unknown, {"Nowhere": int}).__annotations__ == {"place": int}


def test_a_wrong_member_is_still_refused() -> None:
    model = create_model("M", x=(fillable(Literal[Colour.RED]), ...))
    for wrong in ('"blue"', "1", "null", "[]"):
        with pytest.raises(ValueError, match="x"):
            model.model_validate_json(f'{{"x": {wrong}}}')


@pytest.mark.parametrize(
    "hint",
    [type[int], Nothing, Endless, Holds, Record, Keys, Fixed, Self, BaseModel, Endless | Record],
)
def test_hopeless(hint: Any) -> None:
    found = why_never_filled(create_model("M", a=(int, ...), x=(hint, ...)))
    assert found is not None
    assert found[0] == "x"


@pytest.mark.parametrize(
    "hint",
    [
        int,
        Any,
        Colour,
        Tree,
        MayLack,
        Endless | None,
        Endless | int,
        list[type[int]],
    ],
)
def test_in_doubt_there_is_hope(hint: Any) -> None:
    assert why_never_filled(create_model("M", x=(hint, ...))) is None
