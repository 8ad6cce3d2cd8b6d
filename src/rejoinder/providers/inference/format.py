"""The gateway's requests: chat completions. Pure."""

from __future__ import annotations

from rejoinder.providers._completions_format import to_messages
from rejoinder.providers._completions_request import request_body

__all__ = ["request_body", "to_messages"]
