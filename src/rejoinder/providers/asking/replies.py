"""The schema of a structured reply, in the model's dialect. Pure, except for the log."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, cast

from rejoinder._core.json_schema import Schema
from rejoinder._core.output import OutputSpec, output_type
from rejoinder._core.schema_compiler import Compiled, compile_schema
from rejoinder._core.schema_rules import SCHEMA_RULES
from rejoinder._core.schema_shape import too_large_for_strict
from rejoinder._core.strict import strict_schema, why_not_strict
from rejoinder.errors import ConfigurationError

__all__ = ["completions_response_format", "reply_schema", "reply_type", "tell"]

logger = logging.getLogger("rejoinder")


def reply_type(response_format: object) -> OutputSpec | None:
    """The type that `response_format` requests; ``None`` for nothing or plain text.

    Raises:
        ConfigurationError: it does not describe a type, or only "any JSON object", which is not
            enough here.
    """
    spec = output_type(response_format)
    if spec is not None and not spec.schema:
        raise ConfigurationError(
            "response_format: this API needs a schema; pass a pydantic model, a TypedDict, a "
            f"dataclass or a JSON schema, got {response_format!r}"
        )
    return spec


def reply_schema(response_format: object, dialect: str) -> tuple[str, Schema | None]:
    """Name and schema that the provider enforces for a reply; no schema if none is requested.

    Raises:
        ConfigurationError: see `reply_type`.
    """
    spec = reply_type(response_format)
    if spec is None:
        return "", None
    return spec.name, _strict(spec, dialect).schema


def _strict(spec: OutputSpec, dialect: str) -> Compiled:
    if spec.own:
        schema = strict_schema(spec.schema, null_for_default=False)
        return tell(spec.name, dialect, compile_schema(schema, f"{dialect}.strict", own=True))
    return tell(spec.name, dialect, compile_schema(spec.schema, f"{dialect}.strict"))


def completions_response_format(
    response_format: object, *, schema: str = "openai"
) -> dict[str, Any] | None:
    """`response_format` in the form of chat completions; ``None`` if nothing is requested.

    A type is sent as a strict schema if the strict form means the same. A mapping in the API's own
    form is sent unchanged, except for its schema.

    Args:
        response_format: see `rejoinder._core.output.output_type`.
        schema: the model's dialect of JSON schema, see `rejoinder._core.schema_rules`.

    Raises:
        ConfigurationError: it does not describe a type.
    """
    given: dict[str, Any] = {}
    if isinstance(response_format, Mapping):
        given = dict(cast("Mapping[str, Any]", response_format))
        if isinstance(given.get("type"), str) and not _holds_schema(given):
            return given
    spec = output_type(cast("object", response_format))
    if spec is None or not spec.schema:
        return given or None
    held: dict[str, Any] = {"name": spec.name}
    if isinstance(given.get("json_schema"), Mapping):
        held = {**held, **given["json_schema"]}
    strict = spec.own or held.get("strict") is True
    written = _held_to(spec, schema) if strict else None
    if written is None:
        plain = compile_schema(spec.schema, schema, own=spec.own)
        written = tell(spec.name, schema, plain).schema
        if strict:
            held["strict"] = False
    else:
        held["strict"] = True
    return {"type": "json_schema", "json_schema": {**held, "schema": written}}


_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})


def _holds_schema(given: Mapping[str, Any]) -> bool:
    return given["type"] in _TYPES or given["type"] == "json_schema"


def _held_to(spec: OutputSpec, dialect: str) -> Schema | None:
    """The strict schema; ``None`` if the dialect has no strict form, or it would change the meaning."""
    if f"{dialect}.strict" not in SCHEMA_RULES or (spec.own and why_not_strict(spec.schema)):
        return None
    written = _strict(spec, dialect).schema
    return None if too_large_for_strict(written) else written


_told: OrderedDict[str, None] = OrderedDict()
_MAX_TOLD = 256


def tell(name: str, dialect: str, compiled: Compiled) -> Compiled:
    """Log, once, how the sent schema of a reply differs from the given one."""
    if compiled.count:
        line = f"the reply {name!r}, as {dialect} takes it: {compiled}"
        if line not in _told:
            _told[line] = None
            if len(_told) > _MAX_TOLD:
                _told.popitem(last=False)
            logger.info("%s", line)
    return compiled
