"""The target of a connection: a command or a URL. Pure values that hide their secrets.

Command lines, environments, headers and URLs of MCP servers often hold keys. These two objects carry
them to the transport. Their `repr` shows only the program or the bare URL, so no frame, log line or
error shows more.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from rejoinder._secrets import Hidden, secrets_in_command, secrets_of

__all__ = ["Command", "Endpoint"]


class Command:
    """A program with its arguments and environment.

    Attributes:
        program: the first word of the command line; the only part that is ever shown.
        cwd: its working directory; ``None`` for the current one.
        words: the whole command line.
        env: the variables to add to the child's environment.
    """

    __slots__ = ("cwd", "env", "program", "words")

    def __init__(
        self,
        program: str,
        args: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
    ) -> None:
        self.program = program
        self.cwd = cwd
        self.words = Hidden([program, *args])
        self.env = Hidden(dict(env or {}))

    def secrets(self) -> Hidden[list[str]]:
        """The values that must not appear in quotations of the child's stderr."""
        return Hidden(secrets_in_command(self.words.reveal()[1:], self.env.reveal()))

    def __repr__(self) -> str:
        return f"Command({self.program!r})"


class Endpoint:
    """A URL with its user, password and query, and the headers to send there.

    Args:
        url: the given URL.
        headers: called for each request.

    Attributes:
        url: the URL without user, password, query and fragment, for the SDK.
    """

    __slots__ = ("_headers", "_query", "_userinfo", "url")

    def __init__(self, url: str, headers: Callable[[], Mapping[str, Any] | None]) -> None:
        parts = urlsplit(url)
        userinfo, _, host = parts.netloc.rpartition("@")
        self.url = urlunsplit((parts.scheme, host, parts.path, "", ""))
        self._query = Hidden(parts.query)
        self._userinfo = Hidden(userinfo)
        self._headers = headers

    @property
    def query(self) -> Hidden[str]:
        """The query of the address, without the question mark."""
        return self._query

    def headers(self) -> Hidden[dict[str, str]]:
        """The header fields to add to a request, by lower-case name."""
        found = {str(name).lower(): str(value) for name, value in (self._headers() or {}).items()}
        if self._userinfo.reveal() and "authorization" not in found:
            user, _, password = self._userinfo.reveal().partition(":")
            pair = f"{unquote(user)}:{unquote(password)}".encode()
            found["authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        return Hidden(found)

    def secrets(self) -> Hidden[list[str]]:
        """The credentials of this endpoint, longest first."""
        address = urlunsplit(
            ("http", f"{self._userinfo.reveal()}@h", "/", self._query.reveal(), "")
        )
        return Hidden(secrets_of(address, self.headers().reveal()))

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r})"
