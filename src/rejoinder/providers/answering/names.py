"""The provider's name of the model that answers. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from rejoinder._core import jsontext

__all__ = ["model_name", "model_named_in"]

_LONGEST: Final = 256


class _Event(msgspec.Struct, gc=False):
    model: Any = None
    modelVersion: Any = None  # noqa: N815  Gemini's name for it


_decode = msgspec.json.Decoder(_Event).decode


def model_name(value: object) -> str:
    """A provider's model name, in a form that trace exporters accept; empty for anything else."""
    return jsontext.heal(value[:_LONGEST]) if isinstance(value, str) else ""


def model_named_in(payload: bytes) -> str:
    """The model name in a JSON event. Separate from reading events, because one per reply is enough."""
    try:
        event = _decode(payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""
    return model_name(event.model) or model_name(event.modelVersion)
