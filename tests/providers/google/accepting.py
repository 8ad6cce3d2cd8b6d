"""Whether the Live API would understand what is sent: a checker made of the types of google-genai."""

from __future__ import annotations

from typing import Any

from google.genai import types


def check_messages(messages: list[dict[str, Any]]) -> None:
    """Fails for a member or a value that the types do not know, and for a message of two kinds."""
    for message in messages:
        assert len(message) == 1, message
        ((kind, body),) = message.items()
        body = dict(body)
        # google-genai puts this member into the setup itself: its class of the setup lacks it.
        detection = body.pop("realtimeInputConfig", None) if kind == "setup" else None
        if detection is not None:
            types.RealtimeInputConfig.model_validate(detection)
        parsed = types.LiveClientMessage.model_validate({kind: body})
        written = parsed.model_dump(mode="json", exclude_none=True, by_alias=True)
        assert set(written) == {kind}, message
        assert set(written[kind]) == set(body), message
