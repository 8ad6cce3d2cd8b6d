"""The exceptions of provider calls, as one small tree.

::

    Exception
      APIError                     any failure of a provider call; `retryable`: whether a retry can help
        APIStatusError             the provider answered with a status (or named one inside the stream)
          RefusalError             the model or a safety filter declined to answer; never retried
        APIConnectionError         no usable answer: connection refused, reset, cut short
          APITimeoutError          a deadline passed
        WireError                  the bytes do not follow the provider's protocol
        EmptyResponseError         the stream ended properly without output
        OutputMismatchError        the answers did not fit the requested `response_format`
      ConfigurationError           the options are wrong; nothing was sent (also a ValueError)

Foreign exceptions are mapped here at one seam, `rejoinder.transport`; they stay reachable as
``__cause__``. `docs/troubleshooting.md` explains the messages one by one; the text of an error ends
with the place of its section there (`rejoinder._sections`).
"""

from __future__ import annotations

from types import NoneType
from typing import Any, Self, TypeVar

from rejoinder._secrets import one_line, shorten
from rejoinder._sections import explained, plain, section_of_status

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIStatusError",
    "APITimeoutError",
    "ConfigurationError",
    "EmptyResponseError",
    "OutputMismatchError",
    "RefusalError",
    "WireError",
    "create_api_error_from_http",
    "is_retryable_status",
]

# 408 timeout, 409 conflict (a lock that will be freed), 424 a dependency failed (Bedrock's model
# errors), 425 too early, 429 rate limit, 499 the provider's own proxy gave up.
_RETRYABLE_4XX = frozenset({408, 409, 424, 425, 429, 499})


def _check(name: str, value: object, *kinds: type[Any]) -> None:
    """Refuse a value of a wrong type now. Otherwise it would fail when the error is shown."""
    fits = isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)
    if not fits:
        expected = " or ".join("None" if kind is NoneType else kind.__name__ for kind in kinds)
        raise TypeError(f"{name}: expected {expected}, got a value of type {type(value).__name__}")


def is_retryable_status(status_code: int) -> bool:
    """Whether the same request can succeed later, by its HTTP status alone."""
    _check("status_code", status_code, int)
    return status_code in _RETRYABLE_4XX or not 300 <= status_code < 500


E = TypeVar("E", bound="APIError")


class APIError(Exception):
    """Any failure of a provider call.

    Attributes:
        message: a description of the failure, for people.
        body: the provider's own error object or text, if there was one.
        retryable: whether the same call may succeed when tried again.
        retry_after: seconds the provider asked us to wait, if it did.
        section: the kind of error, if docs/troubleshooting.md explains it. The text of the error
            ends with a reference to the section; `message` does not.
    """

    message: str
    body: object | None
    retryable: bool = False
    retry_after: float | None = None
    section: str | None = None

    def __init__(self, message: str, *, body: object | None = None, retryable: bool = True) -> None:
        _check("message", message, str)
        _check("retryable", retryable, bool)
        super().__init__(message)
        self.message = message
        self.body = body
        self.retryable = retryable

    def __str__(self) -> str:
        return explained(self._text(), self._kind())

    def _text(self) -> str:
        """The message with its details."""
        return self.message

    def _kind(self) -> str | None:
        """The kind of error whose explanation the text refers to."""
        return self.section

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, body={self.body!r}, retryable={self.retryable})"

    def but(self, **changes: Any) -> Self:
        """A copy of this error with other values, e.g. ``error.but(message="...")``. Its cause and
        its traceback are kept.

        Raises:
            TypeError: the error has no attribute of that name.
        """
        for name in changes:
            if not hasattr(self, name):
                raise TypeError(f"{type(self).__name__} has no attribute {name!r}")
        state = {**self.__dict__, **changes}
        args = (state["message"], *self.args[1:]) if self.args else self.args
        copy = _rebuild(type(self), args, state).with_traceback(self.__traceback__)
        copy.__cause__ = self.__cause__
        copy.__context__ = self.__context__
        copy.__suppress_context__ = self.__suppress_context__
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments are not in `args`, so the default way of pickling would lose them.
        return _rebuild, (type(self), self.args, self.__dict__.copy())


def _rebuild(cls: type[E], args: tuple[Any, ...], state: dict[str, Any]) -> E:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class APIStatusError(APIError):
    """The provider answered with an error status.

    `retryable` follows the status. Of the 4xx, only 408, 409, 424, 425, 429 and 499 are temporary, so
    a caller cannot make another 4xx retryable. All other statuses are retryable unless the caller
    passes ``retryable=False``.
    """

    status_code: int
    request_id: str | None

    def __init__(
        self,
        message: str,
        *,
        status_code: int = -1,
        request_id: str | None = None,
        body: object | None = None,
        retryable: bool | None = None,
    ) -> None:
        by_status = is_retryable_status(status_code)
        _check("request_id", request_id, str, NoneType)
        _check("retryable", retryable, bool, NoneType)
        super().__init__(
            message,
            body=body,
            retryable=by_status if retryable is None else by_status and retryable,
        )
        self.status_code = status_code
        self.request_id = request_id

    def _kind(self) -> str | None:
        return self.section or section_of_status(self.status_code)

    def _text(self) -> str:
        parts = [self.message]
        if self.status_code >= 0:
            parts.append(f"status_code={self.status_code}")
        if self.request_id:
            parts.append(f"request_id={self.request_id}")
        return parts[0] if len(parts) == 1 else f"{parts[0]} ({', '.join(parts[1:])})"

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.message!r}, status_code={self.status_code}, "
            f"request_id={self.request_id!r}, body={self.body!r}, retryable={self.retryable})"
        )


class RefusalError(APIStatusError):
    """The model, or a safety filter in front of it, declined to answer.

    Attributes:
        reason: the provider's own word for it, e.g. ``"content_filter"`` or ``"SAFETY"``.
    """

    reason: str
    section = "refusal"

    def __init__(
        self,
        message: str,
        *,
        reason: str = "refusal",
        status_code: int = -1,
        request_id: str | None = None,
        body: object | None = None,
    ) -> None:
        super().__init__(
            message, status_code=status_code, request_id=request_id, body=body, retryable=False
        )
        _check("reason", reason, str)
        self.reason = reason


class APIConnectionError(APIError):
    """No usable answer arrived: refused, reset, cut short."""

    def __init__(self, message: str = "Connection error.", *, retryable: bool = True) -> None:
        super().__init__(message, body=None, retryable=retryable)

    def _text(self) -> str:
        causes = _causes_of(self)
        if not causes or isinstance(causes[-1], BaseExceptionGroup):  # its text only counts errors
            return self.message
        root = causes[-1]
        # Libraries quote what a server sent, in several lines.
        text = root.message if isinstance(root, APIError) else shorten(one_line(plain(str(root))))
        text = text or type(root).__name__
        return (
            self.message
            if text in self.message
            else f"{self.message} [{type(root).__name__}: {text}]"
        )

    def _kind(self) -> str | None:
        # "no reply after 3 attempts" is explained by the last attempt.
        if self.section is not None:
            return self.section
        kinds = (
            cause.section if isinstance(cause, APIConnectionError) else cause._kind()
            for cause in _causes_of(self)
            if isinstance(cause, APIError)
        )
        return next(filter(None, kinds), None)


class APITimeoutError(APIConnectionError):
    """A deadline passed before the provider answered."""

    def __init__(self, message: str = "Request timed out.", *, retryable: bool = True) -> None:
        super().__init__(message, retryable=retryable)


class WireError(APIError):
    """The bytes do not follow the protocol: broken framing, invalid JSON, a line without end."""


class EmptyResponseError(APIError):
    """The stream ended properly, but held neither text nor a tool call."""

    section = "empty"


class OutputMismatchError(APIError):
    """The model's answers did not fit the requested `response_format`, even after it received the errors.

    `body` holds the last answer.
    """

    section = "output"


class ConfigurationError(ValueError):
    """An option of a call is wrong; the message names the option and the remedy."""


_MAX_CAUSES = 10


def _causes_of(error: BaseException) -> list[BaseException]:
    """The causes of `error`, from the next one to the root."""
    seen = {id(error)}
    causes: list[BaseException] = []
    cause = error.__cause__
    while cause is not None and id(cause) not in seen and len(causes) < _MAX_CAUSES:
        seen.add(id(cause))
        causes.append(cause)
        cause = cause.__cause__
    return causes


def create_api_error_from_http(
    message: str, *, status: int, request_id: str | None = None, body: object | None = None
) -> APIStatusError:
    """An `APIStatusError` whose text opens with the phrase of the status, e.g. ``Bad Request``."""
    from http import HTTPStatus

    _check("message", message, str)
    _check("status", status, int)
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = f"HTTP status {status}"
    text = f"{phrase}: {message}" if message and message != phrase else phrase
    return APIStatusError(text, status_code=status, request_id=request_id, body=body)
