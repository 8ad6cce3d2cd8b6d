"""Chat Completions answers: bytes in, chunks out.

The dialect is shared with everybody who cloned it and lives in `rejoinder.providers._completions`;
here are its names, where they lie in every provider.
"""

from __future__ import annotations

from rejoinder.providers._completions import StreamDecoder
from rejoinder.providers._completions_errors import decode_error

__all__ = ["StreamDecoder", "decode_error"]
