"""Reads the gateway's replies: chat completions, by the shared dialect. Pure."""

from __future__ import annotations

from rejoinder.providers.completions.wire import decode_error, make_decoder

__all__ = ["decode_error", "make_decoder"]
