"""Whether the Live API would understand what is sent: a checker made of the types of ``openai``.

The types of requests allow no further members here, as the service does. The frames of the server of
the tests are checked against the types of the events too.
"""

from __future__ import annotations

from typing import Any

import pydantic
from openai._compat import PYDANTIC_V1
from openai.types.live import client_event, server_event

from rejoinder.providers.openai.live_format import most_tokens

assert not PYDANTIC_V1

_CLIENT: dict[str, Any] = {}
_SERVER: dict[str, Any] = {}
REQUIRED_NULLABLE = {
    "session.instructions.append": "delegation_id",
    "session.thinking.append": "delegation_id",
    "session.commentary.append": "delegation_id",
}
NO_ACTIVE_FIELDS = {"session.start", "session.update"}


def _members(union: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for member in union.__args__[0].__args__:
        (kind,) = member.model_fields["type"].annotation.__args__
        found[kind] = member
    return found


_CLIENT = _members(client_event.ClientEvent)
_SERVER = _members(server_event.ServerEvent)


def _strangers(kind: Any, value: Any, where: str) -> None:
    """Fails for a member that the type does not declare."""
    if isinstance(value, pydantic.BaseModel):
        assert not value.model_extra, (where, value.model_extra)
        for name in value.model_fields_set:
            _strangers(kind, getattr(value, name), f"{where}.{name}")
    elif isinstance(value, list):
        for number, member in enumerate(value):
            _strangers(kind, member, f"{where}[{number}]")


def check_sent(event: dict[str, Any]) -> None:
    """Fails for a frame of the client that the types do not know, or that breaks a limit they
    name."""
    kind = event["type"]
    assert kind in _CLIENT, event
    model = _CLIENT[kind]
    made = pydantic.TypeAdapter(model).validate_python(event, strict=False)
    _strangers(model, made, kind)
    if kind in REQUIRED_NULLABLE:
        assert "delegation_id" in event, event
        assert 0 < most_tokens(event["content"]) <= 500
    if kind == "session.start":
        given = event["session"].get("input") or []
        assert len(given) <= 128
        assert all(len(message["content"]) == 1 for message in given)
        assert sum(most_tokens(message["content"][0]["text"]) for message in given) <= 8192


def check_served(event: dict[str, Any]) -> None:
    """Fails for an event of the server that the types do not know."""
    kind = event["type"]
    assert kind in _SERVER, event
    pydantic.TypeAdapter(_SERVER[kind]).validate_python(event, strict=False)
