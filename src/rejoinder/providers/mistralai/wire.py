"""Mistral's chat completions stream: bytes in, chunks out.

The law of this file: the shared dialect reads it (`rejoinder.providers.completions.wire`); what Mistral
does otherwise is known there: whole tool calls in one delta, arguments that are an object, content
as a list of text, thinking and references, usage beside the finish reason, padding. Pure.
"""

from __future__ import annotations

from rejoinder.providers.completions import wire
from rejoinder.providers.completions.wire import decode_error

__all__ = ["StreamDecoder", "decode_error"]


class StreamDecoder(wire.StreamDecoder):
    """Decodes one reply of Mistral; see `rejoinder.providers.completions.wire.StreamDecoder`."""

    __slots__ = ()

    def __init__(self, *, allow_empty: bool = False) -> None:
        super().__init__(allow_empty=allow_empty, state_key="mistralai")
