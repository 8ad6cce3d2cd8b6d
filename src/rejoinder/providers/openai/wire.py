"""Reads the replies of Chat Completions. Pure.

Many servers speak the dialect, so it lives in `rejoinder.providers.completions`; here are its names,
where they lie in every provider.
"""

from __future__ import annotations

from rejoinder.providers.completions.wire import decode_error, make_decoder

__all__ = ["decode_error", "make_decoder"]
