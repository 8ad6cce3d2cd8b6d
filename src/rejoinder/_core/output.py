"""The type of a structured reply: its schema, and reading a reply as this type.

Pure: text in, values out. Nothing here asks a model again; `OutputError.for_model` is the text with
which to ask.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Mapping
from typing import Any, Final, cast

import typing_extensions
from pydantic import BaseModel, PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from pydantic_core import from_json, to_json

from rejoinder._core.conforming import misfits
from rejoinder._core.feedback import complaints, cut
from rejoinder._core.fillable import fillable
from rejoinder._core.fitting import Fitter
from rejoinder._core.json_values import LARGE, MAX_VALUES, ValueCounter, is_crowded_text
from rejoinder._core.mending import BROKEN, read_json
from rejoinder._core.schema import model_of_typed_dict
from rejoinder._options import WrongTypeError
from rejoinder.errors import ConfigurationError
from rejoinder.types import NotGiven

__all__ = ["OutputError", "OutputSpec", "PartialOutput", "output_type"]

WRAPPER: Final = "value"
"""The only property of the object that wraps a value other than an object."""


class OutputError(ValueError):
    """A reply does not have the requested type.

    Attributes:
        for_model: the errors and the remedy, written for the model.
        text: the reply.
    """

    def __init__(self, for_model: str, text: str) -> None:
        super().__init__(for_model)
        self.for_model = for_model
        self.text = text


class OutputSpec:
    """The type of a reply, and how to read it.

    Attributes:
        name: name of the type; letters, digits, ``_`` and ``-``, at most 64.
        schema: the JSON schema that is sent, with an object at its root. Shared, not to be changed.
            Empty if any JSON object is accepted.
        value_schema: the JSON schema of the value itself.
        own: whether pydantic made the schema from a type.
        wrapped: whether the value is not an object, and is wrapped in one as the property ``value``,
            because providers accept only objects.
    """

    def __init__(
        self,
        name: str,
        schema: Mapping[str, Any],
        adapter: TypeAdapter[Any] | None = None,
        *,
        dict_class: type[Any] | None = None,
        fitted_to: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = _NO_NAME.sub("_", name)[:64] or "response"
        self.value_schema: Mapping[str, Any] = schema
        self._adapter = adapter
        self._dict_class = dict_class
        self.own = adapter is not None
        self.wrapped = bool(schema) and not _is_object(schema)
        self.schema: Mapping[str, Any] = _wrapped(schema) if self.wrapped else schema
        self._fitter = Fitter(fitted_to or schema, scalars=adapter is None)

    def __repr__(self) -> str:
        return f"OutputSpec({self.name!r})"

    def parse(self, text: str) -> Any:
        """Read `text` as a value of the given type, or as plain JSON for a schema.

        A code fence or words around the only JSON value are ignored. Invalid JSON is mended if its
        meaning is unambiguous.

        Raises:
            OutputError: the text holds no value of this type.
        """
        if is_crowded_text(text):
            raise OutputError(
                f"The answer holds more than {MAX_VALUES} values. Answer with fewer.", text
            )
        value = _json_in(text)
        if value is BROKEN:
            got = f": {cut(text.strip())}" if text.strip() else ", it is empty"
            raise OutputError(
                f"The answer is not valid JSON{got}\nAnswer with one JSON value and nothing else.",
                text,
            )
        if self.wrapped and isinstance(value, dict):
            held = cast("dict[str, Any]", value)
            value = held[WRAPPER] if list(held) == [WRAPPER] else held
        value, _ = self._fitter.fit(value)
        if self._adapter is None:
            return self._checked(value, text)
        try:
            # Through JSON, because a strict field accepts, e.g., a date as text only from JSON.
            read = self._adapter.validate_json(to_json(value, inf_nan_mode="constants"))
        except ValidationError as error:
            raise _misfit(complaints(error, self.value_schema), text) from error
        if self._dict_class is not None:
            model = cast("BaseModel", read)
            return self._dict_class({name: getattr(model, name) for name in model.model_fields_set})
        return read

    def partial(self, text: str) -> Any | None:
        """The value so far, while its text still arrives; ``None`` at first.

        Plain JSON, not validated: objects and lists hold what has arrived, the last text may be
        unfinished, and a number counts once something follows it. For many pieces use
        `PartialOutput`.
        """
        start = _START.search(text)
        if start is None:
            return None
        try:
            value = from_json(
                _without_unfinished_number(text[start.start() :]), allow_partial="trailing-strings"
            )
        except ValueError:
            return None
        if not self.wrapped or not isinstance(value, dict):
            return value
        return cast("dict[str, Any]", value).get(WRAPPER)

    def _checked(self, value: Any, text: str) -> Any:
        wrong = misfits(self.value_schema or {"type": "object"}, value)
        if wrong:
            raise _misfit(wrong, text)
        return value


class PartialOutput:
    """Reads a value while its text arrives in pieces. The work is linear in the text: the longer it
    is, the more must arrive before it is parsed again. More values than `MAX_VALUES` are not read.

    Args:
        spec: the type of the value.
    """

    def __init__(self, spec: OutputSpec) -> None:
        self._spec = spec
        self._pieces: list[str] = []
        self._length = 0
        self._read = 0
        self._counter: ValueCounter | None = None

    def feed(self, piece: str) -> Any | None:
        """The current partial value; ``None`` if there is nothing yet, or it was not parsed again."""
        self._length += len(piece)
        if self._length > LARGE and self._is_crowded(piece):
            return None
        self._pieces.append(piece)
        if self._length - self._read < max(0, self._length - _SMALL) // _GROWTH:
            return None
        self._read = self._length
        self._pieces = ["".join(self._pieces)]
        return self._spec.partial(self._pieces[0])

    def _is_crowded(self, piece: str) -> bool:
        counter = self._counter
        if counter is None:
            counter = self._counter = ValueCounter()
            piece = "".join([*self._pieces, piece])
        if not counter.crowded:
            counter.feed(piece.encode("utf-8", "surrogatepass"))
        return counter.crowded


_SMALL = 4096
"""Up to this many characters, the text is read again for every piece."""
_GROWTH = 16
"""Beyond that, the text is read again each time it has grown by this share."""

_START: Final = re.compile(r"[{\[]")
_NUMERIC: Final = "0123456789.eE+-"
_NO_NAME: Final = re.compile(r"[^a-zA-Z0-9_-]")
_FENCED: Final = re.compile(r"```[A-Za-z0-9_-]*[ \t]*\n(.*?)\n[ \t]*```", re.DOTALL)


def _without_unfinished_number(text: str) -> str:
    """`text` without a number at its end, to which more digits may come."""
    before = text.rstrip(_NUMERIC).rstrip()
    return before if before.endswith((":", ",", "[")) else text


def output_type(response_format: object) -> OutputSpec | None:
    """The type that `response_format` requests; ``None`` for nothing or plain text.

    Args:
        response_format: any type that pydantic can describe (a model, a TypedDict, a dataclass, an
            enum, ``list[int]``, a union); a JSON schema; or OpenAI's ``{"type": "json_schema",
            ...}``, ``{"type": "json_object"}`` or ``{"type": "text"}``.

    Raises:
        ConfigurationError: it does not describe a type.
    """
    if response_format is None or isinstance(response_format, NotGiven | OutputSpec):
        return response_format if isinstance(response_format, OutputSpec) else None
    if isinstance(response_format, Mapping):
        return _of_mapping(cast("Mapping[str, Any]", response_format))
    try:
        return _of_type(response_format)
    except (
        PydanticSchemaGenerationError,
        PydanticInvalidForJsonSchema,
        PydanticUserError,
        NameError,
        TypeError,
    ) as error:
        raise WrongTypeError(
            "response_format: expected a type (a pydantic model, a TypedDict, a dataclass, "
            f"list[int], ...) or a JSON schema, got {response_format!r}: "
            f"{str(error).partition(chr(10))[0]}"
        ) from error


def _of_mapping(given: Mapping[str, Any]) -> OutputSpec | None:
    match given.get("type"):
        case "text":
            return None
        case "json_object":
            return OutputSpec("response", {})
        case "json_schema":
            # Flat in the Responses API, one level down in chat completions.
            inner = given.get("json_schema", given)
            schema = cast("Any", inner).get("schema") if isinstance(inner, Mapping) else None
            if not isinstance(schema, Mapping):
                raise ConfigurationError(
                    "response_format: expected a schema in {'type': 'json_schema', 'json_schema': "
                    f"{{'name': ..., 'schema': {{...}}}}}}, got {given!r}"
                )
            name = str(cast("Mapping[str, Any]", inner).get("name") or "response")
            return OutputSpec(name, cast("Mapping[str, Any]", schema))
        case kind if _is_schema(given, kind):
            return OutputSpec(str(given.get("title") or "response"), given)
        case _:
            raise ConfigurationError(
                "response_format: expected a type or a JSON schema (with `type`, `properties`, "
                f"`anyOf`, `enum` or `$ref`), got {given!r}"
            )


_TYPES: Final = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_SPEAKING: Final = ("$ref", "allOf", "anyOf", "const", "enum", "oneOf", "properties")


def _is_schema(given: Mapping[str, Any], kind: object) -> bool:
    if kind is None:
        return not given.keys().isdisjoint(_SPEAKING)
    return isinstance(kind, list) or str(kind).lower() in _TYPES


def _of_type(given: Any) -> OutputSpec:
    if not isinstance(given, type):
        if not _is_hint(given):
            raise TypeError(f"{type(given).__name__} is not a type")
        adapter = TypeAdapter[Any](fillable(given))
        schema = adapter.json_schema()
        return OutputSpec(str(schema.get("title") or "response"), schema, adapter)
    cls = cast("type[Any]", given)
    if typing_extensions.is_typeddict(cls) or typing.is_typeddict(cls):
        # The schema has every field, as strict providers require; one that may be absent may be
        # null, and is then omitted from the value.
        schema = model_of_typed_dict(cls).model_json_schema()
        adapter = TypeAdapter[Any](fillable(cls))
        return OutputSpec(cls.__name__, schema, adapter, fitted_to=adapter.json_schema())
    if _is_annotated_dict(cls):
        model = model_of_typed_dict(cls)
        schema = model.model_json_schema()
        return OutputSpec(cls.__name__, schema, TypeAdapter(model), dict_class=cls)
    adapter = TypeAdapter[Any](fillable(cls))
    return OutputSpec(cls.__name__, adapter.json_schema(), adapter)


def _is_annotated_dict(cls: type[Any]) -> bool:
    return issubclass(cls, dict) and bool(inspect.get_annotations(cast("type[Any]", cls)))


def _is_hint(given: object) -> bool:
    return typing.get_origin(given) is not None or isinstance(
        given, typing_extensions.TypeAliasType
    )


def _is_object(schema: Mapping[str, Any]) -> bool:
    """Whether a schema describes objects at its root, by itself or by one reference."""
    node: Any = schema
    ref = schema.get("$ref")
    if isinstance(ref, str):
        definitions = schema.get("$defs", schema.get("definitions"))
        node = definitions.get(ref.rpartition("/")[2]) if definitions else None
    if not isinstance(node, Mapping):
        return False
    found = cast("Mapping[str, Any]", node)
    kind = found.get("type")
    return kind in ("object", "OBJECT") or (kind is None and "properties" in found)


def _wrapped(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = {key: value for key, value in schema.items() if key not in ("$defs", "definitions")}
    outer: dict[str, Any] = {
        "type": "object",
        "properties": {WRAPPER: inner},
        "required": [WRAPPER],
    }
    for key in ("$defs", "definitions"):
        if key in schema:
            outer[key] = schema[key]
    return outer


def _json_in(text: str) -> Any:
    """The one JSON value in a reply, perhaps in a fence or among words."""
    value = read_json(text.strip())
    if value is not BROKEN:
        return value
    fenced = _FENCED.findall(text)
    if len(fenced) == 1:
        return read_json(fenced[0])
    start, end = _START.search(text), max(text.rfind("}"), text.rfind("]"))
    if start is None or end < start.start() or fenced:
        return BROKEN
    return read_json(text[start.start() : end + 1])


def _misfit(lines: list[str], text: str) -> OutputError:
    reasons = "\n".join(lines)
    return OutputError(
        f"The answer does not fit:\n{reasons}\n"
        "Answer again, with one JSON value that fits and nothing else.",
        text,
    )
