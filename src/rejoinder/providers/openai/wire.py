"""Chat Completions answers: bytes in, chunks out.

The dialect is shared with everybody who cloned it and lives in `rejoinder.providers.completions.wire`;
here are its names, where they lie in every provider.
"""

from __future__ import annotations

from rejoinder.providers.completions.errors import decode_error
from rejoinder.providers.completions.wire import StreamDecoder

__all__ = ["StreamDecoder", "decode_error"]
