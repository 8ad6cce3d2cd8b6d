"""Reads the replies of Chat Completions. Pure.

Many servers speak this dialect, so the code is in `rejoinder.providers.completions`. This module
re-exports its names in the place where every provider has them.
"""

from __future__ import annotations

from rejoinder.providers.completions.wire import decode_error, make_decoder

__all__ = ["decode_error", "make_decoder"]
