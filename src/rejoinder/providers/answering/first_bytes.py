"""How an answer begins: with a stream, or with something else where a stream was asked for.

Law: pure. The first bytes that are no white space tell: a brace or a bracket is JSON (a whole
answer, or an error that was sent with status 200), ``<`` is a web page of some proxy, anything
else is the stream. No frame of AWS can begin like one of the others: it would be a gigabyte long.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from rejoinder._core.bodies import plain_text
from rejoinder.errors import APIError, WireError

__all__ = ["Opening"]

_LIMIT: Final = 1 << 24
_PAGE_LIMIT: Final = 4096
_BOM: Final = b"\xef\xbb\xbf"

Kind: TypeAlias = Literal["?", "stream", "json", "page"]


class Opening:
    """Lets a stream through, and keeps what is none.

    Args:
        expected: the stream that was asked for, in words for people.

    Attributes:
        kind: what the answer is; ``"?"`` as long as nothing but white space came.
        failure: more came than is kept.
    """

    __slots__ = ("_body", "_expected", "failure", "kind")

    def __init__(self, expected: str) -> None:
        self._expected = expected
        self._body = bytearray()
        self.kind: Kind = "?"
        self.failure: APIError | None = None

    def feed(self, data: bytes) -> bytes:
        """What of the stream is there now; nothing, if it is none or not yet known to be one."""
        if self.kind == "stream":
            return data
        self._body += data
        if self.kind == "?":
            self.kind = _kind_of(self._body)
            if self.kind == "stream":
                data = bytes(self._body)
                self._body.clear()
                return data
        if self.kind == "json" and len(self._body) > _LIMIT:
            self.failure = WireError(
                f"a JSON answer of more than {_LIMIT} bytes; expected {self._expected}"
            )
        elif self.kind == "page" and len(self._body) > _PAGE_LIMIT:
            self.failure = self.page()
        return b""

    @property
    def body(self) -> bytes:
        """All that came, where it is no stream."""
        return bytes(self._body)

    def page(self) -> APIError:
        """The error for a web page."""
        shown = plain_text(bytes(self._body), limit=_PAGE_LIMIT)
        return WireError(f"expected {self._expected}, got a web page: {shown}", body=shown)


def _kind_of(head: bytearray) -> Kind:
    start = bytes(head).removeprefix(_BOM).lstrip()[:1]
    if not start or bytes(head) in (_BOM[:1], _BOM[:2]):
        return "?" if len(head) <= _PAGE_LIMIT else "stream"
    if start in (b"{", b"["):
        return "json"
    return "page" if start == b"<" else "stream"
