"""Every public name of LiveKit Agents 1.2.17's `llm` package, found here with the same shape.

`llm_surface.json.gz` lists modules, names, members, parameters (name, kind, default) and fields.
Ours may have more: further members, further parameters and fields, as long as they have defaults.
What is stricter in the reference for no reason may be looser here: a parameter that is required
there may have a default.
"""

from __future__ import annotations

import abc
import dataclasses
import importlib
import inspect
import re
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from reference import oracle
from rejoinder.types import APIConnectOptions, NotGiven

# Names that are noise of the reference's own machinery.
IGNORED_BASES = {"BaseModel", "Generic"}


@cache
def surface() -> dict[str, Any]:
    return oracle.load_json("llm_surface.json.gz")


def module_name(module: str) -> str:
    return "rejoinder.llm" if module == "__init__" else f"rejoinder.llm.{module}"


def names() -> list[tuple[str, str]]:
    return [(module, name) for module, members in surface().items() for name in members]


def get(module: str) -> Any:
    return importlib.import_module(module_name(module))


def default_text(value: Any) -> str:
    if isinstance(value, NotGiven):
        return "NOT_GIVEN"
    if isinstance(value, APIConnectOptions):
        fields = ("max_retry", "retry_interval", "timeout")
        return f"APIConnectOptions({', '.join(f'{n}={getattr(value, n)!r}' for n in fields)})"
    return repr(value)


def check_parameters(where: str, function: Any, expected: list[list[Any]]) -> None:
    actual = dict(inspect.signature(function).parameters)
    accepts_any_keyword = any(p.kind is p.VAR_KEYWORD for p in actual.values())
    positional: list[str] = []
    for name, kind, default in expected:
        if kind in ("VAR_POSITIONAL", "VAR_KEYWORD"):
            assert any(p.kind.name == kind for p in actual.values()), f"{where}: no {kind}"
            continue
        if name in ("self", "cls") and name not in actual:
            continue
        assert name in actual, f"{where}: no parameter {name!r} in {list(actual)}"
        parameter = actual[name]
        assert parameter.kind.name == kind, f"{where}: {name} is {parameter.kind.name}"
        if kind == "POSITIONAL_OR_KEYWORD":
            positional.append(name)
        if default is not None:
            assert parameter.default is not parameter.empty, f"{where}: {name} has no default"
            assert default_text(parameter.default) == default, f"{where}: default of {name}"
    order = [n for n, p in actual.items() if p.kind.name == "POSITIONAL_OR_KEYWORD"]
    assert order[: len(positional)] == positional, f"{where}: order of parameters {order}"
    theirs = {name for name, _, _ in expected}
    for name, parameter in actual.items():
        if name in theirs or name in ("self", "cls") or accepts_any_keyword:
            continue
        if parameter.kind.name.startswith("VAR_"):
            continue
        assert parameter.default is not parameter.empty, f"{where}: {name} of ours is required"


def check_function(where: str, value: Any, entry: dict[str, Any]) -> None:
    assert callable(value), where
    assert inspect.iscoroutinefunction(value) == entry.get("async", False), f"{where}: async"
    check_parameters(where, value, entry["params"])


def check_class(where: str, value: Any, entry: dict[str, Any]) -> None:
    if "dataclass_fields" not in entry and "fields" not in entry and not inspect.isclass(value):
        pytest.fail(f"{where}: not a class")
    bases = {base.__name__ for base in inspect.getmro(value)}
    for base in entry["bases"]:
        if base not in IGNORED_BASES:
            assert base in bases, f"{where}: does not derive from {base}"
    if "fields" in entry:
        assert issubclass(value, BaseModel)
        fields = value.model_fields
        for name, (_, default) in entry["fields"].items():
            assert name in fields, f"{where}: no field {name}"
            field = fields[name]
            if default == "required":
                assert field.is_required(), f"{where}.{name}: must be required"
            elif default == "factory":
                assert field.default_factory is not None, f"{where}.{name}: must have a factory"
            else:
                assert not field.is_required(), f"{where}.{name}: must have a default"
                assert repr(field.get_default(call_default_factory=True)) == default
        for name, field in fields.items():
            if name not in entry["fields"]:
                assert not field.is_required(), f"{where}.{name} of ours is required"
    if "dataclass_fields" in entry:
        assert dataclasses.is_dataclass(value), where
        ours = {field.name for field in dataclasses.fields(value)}
        assert set(entry["dataclass_fields"]) <= ours, f"{where}: fields {ours}"
    if "init" in entry:
        check_parameters(f"{where}()", value.__init__, entry["init"]["params"])
    for name, member in entry["members"].items():
        check_member(f"{where}.{name}", value, name, member)


def check_member(where: str, owner: Any, name: str, entry: dict[str, Any]) -> None:
    value = inspect.getattr_static(owner, name, None)
    assert value is not None, f"{where} is missing"
    if entry["kind"] == "property":
        assert isinstance(value, property), f"{where}: not a property"
        if entry.get("abstract"):
            assert name in owner.__abstractmethods__, f"{where}: must be abstract"
    elif entry["kind"] == "classmethod":
        assert isinstance(value, classmethod), f"{where}: not a class method"
        check_parameters(where, value.__func__, entry["params"])
    else:
        check_function(where, getattr(owner, name), entry)
        if entry.get("abstract"):
            assert issubclass(owner, abc.ABC), f"{where}: a true ABC"
            assert name in owner.__abstractmethods__, f"{where}: must be abstract"


@pytest.mark.parametrize(("module", "name"), names())
def test_name(module: str, name: str) -> None:
    entry = surface()[module][name]
    holder = get(module)
    where = f"{module_name(module)}.{name}"
    value = getattr(holder, name, None)
    assert value is not None, f"{where} is missing"
    match entry["kind"]:
        case "class":
            check_class(where, value, entry)
        case "function":
            check_function(where, value, entry)
        case "value":
            check_value(where, value, entry)
        case other:
            raise AssertionError(other)


def check_value(where: str, value: Any, entry: dict[str, Any]) -> None:
    """Type variables, aliases and modules: at least the same members, whatever their home."""
    expected = entry["repr"]
    if expected.startswith("~"):
        assert repr(value) == expected, where
    elif expected.startswith("<module"):
        assert inspect.ismodule(value), where
    else:
        theirs = set(re.findall(r"\b[A-Z]\w+|'\w+'", expected)) - ALIAS_WORDS
        missing = theirs - set(alias_words(value))
        assert not missing, f"{where}: without {missing}"


ALIAS_WORDS = {"Union", "Annotated", "Literal", "FieldInfo", "None", "NoneType", "True"}


def alias_words(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield repr(value)
    if inspect.isclass(value):
        yield value.__name__
    for argument in typing.get_args(value):
        yield from alias_words(argument)
    if isinstance(value, FieldInfo):
        yield repr(value.discriminator)


def test_star_import() -> None:
    package = get("__init__")
    assert all(hasattr(package, name) for name in package.__all__)
    namespace: dict[str, Any] = {}
    exec("from rejoinder.llm import *", namespace)
    missing = {n for n in surface()["__init__"] if n not in namespace and n not in MODULES}
    assert not missing


MODULES = {"utils", "remote_chat_context", "chat_context", "tool_context", "llm", "realtime"}
