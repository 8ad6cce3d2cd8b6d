"""The strict form of pydantic models, as structured outputs require it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, TypeAdapter

from rejoinder._core.strict import resolve_ref, strict_schema

__all__ = ["resolve_ref", "strict_schema", "to_strict_json_schema"]


def to_strict_json_schema(
    model: type[BaseModel] | TypeAdapter[Any], *, null_for_default: bool = True
) -> dict[str, Any]:
    """The strict JSON schema of `model`; a fresh object.

    Args:
        model: a pydantic model or a type adapter.
        null_for_default: let null stand for "use the default", as tools do.

    Raises:
        TypeError: `model` is neither.
    """
    if isinstance(model, type) and issubclass(model, BaseModel):
        schema = model.model_json_schema()
    elif isinstance(model, TypeAdapter):
        schema = model.json_schema()
    else:
        raise TypeError(f"strict schema: expected a pydantic model or TypeAdapter, got {model!r}")
    return strict_schema(schema, null_for_default=null_for_default)
