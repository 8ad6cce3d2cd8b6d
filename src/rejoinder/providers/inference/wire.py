"""The gateway's answers: chat completions, read by the shared dialect. Pure."""

from __future__ import annotations

from rejoinder.providers.completions.wire import StreamDecoder, decode_error

__all__ = ["StreamDecoder", "decode_error"]
