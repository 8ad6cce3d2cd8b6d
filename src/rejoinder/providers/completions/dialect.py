"""The rules of chat completions, for the dialects of all that speak it. Pure."""

from __future__ import annotations

import re
from typing import Final

from rejoinder._core.rules import Rules, State

__all__ = ["RULES"]

RULES: Final = Rules(
    call_id=re.compile(r"[^\s\x00-\x1f\ud800-\udfff]{1,40}"),
    lone_user="(empty)",
    state=State("openai"),
)
