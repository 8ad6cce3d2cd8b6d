"""Finds the credentials of requests, and removes them from errors, logs and recordings.

Pure: strings in, strings out. All errors and recordings use it, so keys are found and hidden in the same
way everywhere.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Generic, NoReturn, TypeVar, cast
from urllib.parse import parse_qsl, quote, unquote, urlsplit

__all__ = [
    "MIN_SECRET",
    "Hidden",
    "HiddenWord",
    "Redactor",
    "cause_of",
    "credentials",
    "forget_frames",
    "is_secret_name",
    "one_line",
    "redact",
    "redacted_url",
    "secrets_in_command",
    "secrets_of",
    "shorten",
]

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

MIN_SECRET: Final = 6
"""Minimum characters of a secret; shorter strings occur in texts by chance."""

_NAME: Final = re.compile(
    r"auth|key|token|secret|cookie|session|^sig$|signature|credential|passw", re.IGNORECASE
)
_CUT: Final = "..."
"""The mark after a text that was cut, everywhere in this package."""


class Hidden(Generic[T]):
    """A value that may hold a credential, safe as a local variable.

    Error reporters print the local variables of each frame, and walk into lists and mappings
    whatever their `repr`. This object is neither: it prints as ``<hidden>``, cannot be iterated,
    and refuses to be pickled.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        """The value. Use it in an expression; do not keep it in a local variable."""
        return self._value

    def __repr__(self) -> str:
        return "<hidden>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a hidden value is not pickled: it may hold a credential")

    def __eq__(self, other: object) -> Any:
        if not isinstance(other, Hidden):
            return NotImplemented
        return self._value == other._value  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]

    __hash__ = None  # type: ignore[assignment]  # as of a list


class HiddenWord(Hidden[str]):
    """A word of a command line for a new process.

    Tools for monitoring read the arguments of every process that is started: Sentry keeps them as
    breadcrumbs. The system accepts a path object as a word, and reads its text by ``os.fspath``.
    """

    __slots__ = ()

    def __fspath__(self) -> str:
        return self._value


def forget_frames(error: E) -> E:
    """Drop the frames of `error` and of its causes and contexts, and return it.

    For errors of code that keeps credentials in local variables.
    """
    pending: list[BaseException] = [error]
    seen = {id(error)}
    while pending:
        one = pending.pop()
        one.__traceback__ = None
        behind: list[BaseException | None] = [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            behind += cast("BaseExceptionGroup[BaseException]", one).exceptions
        for other in behind:
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                pending.append(other)
    return error


def cause_of(error: E, secrets: Iterable[str]) -> E | None:
    """`error` as the cause of another error: without its frames, or ``None`` if it quotes a secret.

    For errors of libraries that sign in: their frames hold credentials, and their texts quote the
    answers of servers and the output of processes.
    """
    text = repr(error)
    return forget_frames(error) if redact(text, secrets) == text else None


def is_secret_name(name: str) -> bool:
    """Whether a header field or a parameter of this name carries a credential."""
    return _NAME.search(name) is not None


def secrets_of(url: str, headers: Mapping[str, str]) -> list[str]:
    """The secrets in a request, longest first.

    Args:
        url: with user, password and query.
        headers: all of its fields.
    """
    found: set[str] = set()
    for name, value in headers.items():
        if is_secret_name(name):
            found |= credentials(value)
    try:
        parts = urlsplit(url)
    except ValueError:
        return sorted(found, key=len, reverse=True)
    for text in (parts.username, parts.password):
        if text:
            found |= {text, unquote(text)}
    for name, value in parse_qsl(parts.query):
        if is_secret_name(name):
            found.add(value)
    return sorted((text for text in found if len(text) >= MIN_SECRET), key=len, reverse=True)


def secrets_in_command(args: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """The credentials that a command line and its environment are likely to hold, longest first.

    Found by name: ``--api-key X``, ``--api-key=X``, ``API_KEY=X``, ``--header "Name: X"``, and the
    user, password and query of a URL.
    """
    found: set[str] = set()
    for name, value in env.items():
        if is_secret_name(name):
            found |= credentials(value)
    previous = ""
    for arg in args:
        name, equals, value = arg.partition("=")
        if previous.startswith("-") and is_secret_name(previous):
            found |= credentials(arg)
        if equals and is_secret_name(name) and "://" not in name:
            found |= credentials(value)
        field, colon, value = arg.partition(":")
        if colon and not value.startswith("//") and is_secret_name(field):
            found |= credentials(value)
        for text in (arg, value if equals else ""):
            if "://" in text:
                found.update(secrets_of(text, {}))
        previous = arg
    return sorted((text for text in found if len(text) >= MIN_SECRET), key=len, reverse=True)


def credentials(value: str) -> set[str]:
    """The possible secrets in the value of a header field: the whole value, the part after its scheme,
    its longer words, and the decoded value of Basic."""
    parts = {value.strip()}
    for word in re.split(r"[\s,;=/&]+", value):
        if len(word) >= 16:
            parts.add(word)
    scheme, _, rest = value.strip().partition(" ")
    if rest:
        parts.add(rest.strip())
        if scheme.lower() == "basic":
            try:
                user, _, password = base64.b64decode(rest).decode().partition(":")
                parts |= {user, password}
            except ValueError:
                pass
    return parts


def redact(text: str, secrets: Iterable[str]) -> str:
    """`text` without `secrets`, and without the beginning of a secret at a place where `text` was cut."""
    for secret in secrets:
        if len(secret) < MIN_SECRET:
            continue
        for form in {secret, quote(secret, safe="")}:
            text = text.replace(form, "***")
            if form[:MIN_SECRET] in text and _CUT in text:
                for size in range(len(form) - 1, MIN_SECRET - 1, -1):
                    text = text.replace(form[:size] + _CUT, "***" + _CUT)
    return text


class Redactor:
    """Removes secrets from a server's data, because a server may quote a key anywhere.

    Args:
        secrets: the secrets of the request.
    """

    __slots__ = ("_forms",)

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for one in secrets for form in (one, quote(one, safe=""))}
        kept = sorted((form for form in forms if len(form) >= MIN_SECRET), key=len, reverse=True)
        self._forms = Hidden([(form, form.encode()) for form in kept])

    def text(self, text: str) -> str:
        for form, _ in self._forms.reveal():
            if form in text:
                text = text.replace(form, "***")
        return text

    def data(self, data: bytes) -> bytes:
        for _, form in self._forms.reveal():
            if form in data:
                data = data.replace(form, b"***")
        return data

    def pieces(self) -> Callable[[bytes], bytes]:
        """A function that removes the secrets from data in pieces. If the end of a piece may begin a
        secret, it is held back until the next piece; an empty piece ends the data."""
        held = b""

        def take(piece: bytes) -> bytes:
            nonlocal held
            data = held + piece
            end = self._known(data) if piece else len(data)
            held = data[end:]
            return self.data(data[:end])

        return take

    def _known(self, data: bytes) -> int:
        """The number of bytes of `data` before a possible secret that may continue after it."""
        end = len(data)
        for _, form in self._forms.reveal():
            for size in range(min(len(form) - 1, len(data)), len(data) - end, -1):
                if data.endswith(form[:size]):
                    end = len(data) - size
                    break
        for _, form in self._forms.reveal():  # longest first
            start = data.find(form, max(0, end - len(form) + 1), end + len(form) - 1)
            if start >= 0:  # it would be cut in two
                end = start
        return end


_SHOWN: Final = 500
# Control characters of C0 and C1, line separators, and characters that change the text direction.
_CONTROLS: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+"
)


def one_line(text: str) -> str:
    """`text` for a message or a log line: without control characters and runs of white space.

    A server's text reaches terminals and log files. Line breaks in it could forge a log line, and
    escape sequences could clear a screen.
    """
    return " ".join(_CONTROLS.sub(" ", text).split())


def shorten(text: str, limit: int = _SHOWN) -> str:
    """`text` in at most `limit` characters and three dots. Redact it before, because half a key is not
    recognized."""
    return text if len(text) <= limit else text[:limit] + "..."


def redacted_url(url: str) -> str:
    """`url`, valid or not, for error messages: without user, password, query and fragment."""
    text = re.split(r"[?#]", url, maxsplit=1)[0]
    head, at, tail = text.rpartition("@")
    if not at:
        return text
    scheme, slashes, _ = head.partition("://")
    return f"{scheme}://...@{tail}" if slashes else f"...@{tail}"
