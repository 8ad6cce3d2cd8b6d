from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from rejoinder._foreign import dump, dumps, has, method, read


class _Model(BaseModel):
    name: str = "a"
    size: int | None = None


def test_an_attribute_is_read_along_its_path() -> None:
    error = SimpleNamespace(response=SimpleNamespace(status_code=404))
    assert read(error, "response.status_code", int) == 404
    assert read(error, "response.headers") is None
    assert read(error, "request.url.host") is None
    assert read(None, "request.url") is None


@pytest.mark.parametrize("value", ["404", 404.0, None, [404]])
def test_an_attribute_of_another_type_is_absent(value: Any) -> None:
    assert read(SimpleNamespace(status_code=value), "status_code", int) is None


def test_only_what_can_be_called_is_a_method() -> None:
    assert method([], "append") is not None
    assert method(SimpleNamespace(close=1), "close") is None
    assert method(None, "close") is None


def test_all_attributes_have_to_be_there() -> None:
    value = SimpleNamespace(a=None, b=0)
    assert has(value, "a", "b")
    assert not has(value, "a", "c")


def test_objects_of_pydantic_become_dictionaries() -> None:
    assert dumps(_Model())
    assert dump(_Model(), exclude_none=True) == {"name": "a"}
    for other in ({"name": "a"}, "a", None, SimpleNamespace(model_dump=1)):
        assert not dumps(other)
        assert dump(other) is None
