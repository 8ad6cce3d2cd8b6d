"""Reads the replies of Mistral's chat completions. Pure.

The shared dialect reads them (`rejoinder.providers.completions.wire`) and handles Mistral's deviations:
whole tool calls in one delta, arguments that are an object, content as a list of text, thinking and
references, usage beside the finish reason, padding.
"""

from __future__ import annotations

from functools import partial

from rejoinder.providers.completions import wire
from rejoinder.providers.completions.wire import decode_error

__all__ = ["decode_error", "make_decoder"]

make_decoder = partial(wire.make_decoder, state_key="mistralai")
"""A decoder for one reply; see `rejoinder.providers.completions.wire.make_decoder`."""
