"""What OpenAI publishes of its realtime protocol, as a checker: the types of the `openai` package.

The package's models keep unknown fields; here they are faults, as they are for the service.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, cast

import pydantic

__all__ = ["client_faults", "server_faults"]


@functools.cache
def _adapters(side: str) -> dict[str, pydantic.TypeAdapter[Any]]:
    """The models of one side by the `type` of their events."""
    import typing

    from openai.types import realtime

    events = realtime.RealtimeClientEvent if side == "client" else realtime.RealtimeServerEvent
    found: dict[str, pydantic.TypeAdapter[Any]] = {}
    for model in typing.get_args(typing.get_args(events)[0]):
        kind: str = typing.get_args(model.model_fields["type"].annotation)[0]
        found[kind] = pydantic.TypeAdapter(model)
    return found


def client_faults(event: dict[str, Any]) -> list[str]:
    """What is wrong with an event of a client; empty if nothing is."""
    return list(_faults("client", event))


def server_faults(event: dict[str, Any]) -> list[str]:
    """What is wrong with an event of the service; empty if nothing is."""
    return list(_faults("server", event))


def _faults(side: str, event: dict[str, Any]) -> Iterator[str]:
    kind = event.get("type")
    adapter = _adapters(side).get(str(kind))
    if adapter is None:
        yield f"the {side} has no event {kind!r}"
        return
    try:
        made = adapter.validate_json(pydantic.TypeAdapter(Any).dump_json(event), strict=True)
    except pydantic.ValidationError as error:
        for fault in error.errors(include_url=False):
            place = ".".join(map(str, fault["loc"]))
            yield f"{kind}: {place}: {fault['msg']}, got {fault['input']!r:.80}"
        return
    for place, value in _unknown(made, ""):
        yield f"{kind}: {place}: no such field, got {value!r:.80}"


def _unknown(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Fields that a model kept without knowing them, at any depth."""
    if isinstance(value, pydantic.BaseModel):
        for name, extra in (value.model_extra or {}).items():
            yield f"{place}.{name}".lstrip("."), extra
        for name in type(value).model_fields:
            yield from _unknown(getattr(value, name), f"{place}.{name}".lstrip("."))
    elif isinstance(value, list):
        for number, part in enumerate(cast("list[Any]", value)):
            yield from _unknown(part, f"{place}[{number}]")
