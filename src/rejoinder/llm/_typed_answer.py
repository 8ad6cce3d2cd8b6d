"""`TypedAnswer`: reads the answer that `response_format` asks for, and asks again if it does not fit.

Imported when a turn has a `response_format`: reading types costs imports that others do not need.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from rejoinder._aio import in_thread
from rejoinder._core.items import ChatMessage
from rejoinder._core.output import OutputError, PartialOutput, output_type
from rejoinder.errors import OutputMismatchError

__all__ = ["TypedAnswer"]

_LONG: Final = 8_192
"""Characters of an answer that is read in a thread; they cost up to 5 microseconds each."""


class TypedAnswer:
    """What the answer has to be, and the attempts that were not.

    Args:
        response_format: the type or the schema.
        retries: how often the model may be asked again.

    Attributes:
        value: the answer, once `read` has accepted it.
        corrections: wrong answers, each with a message that explains what is wrong. They follow the
            conversation in the next request and are no part of it.

    Raises:
        ConfigurationError: `response_format` describes nothing.
    """

    def __init__(self, response_format: object, retries: int) -> None:
        self._spec = output_type(response_format)
        self._retries = retries
        self._partial: PartialOutput | None = None
        self.value: Any = None
        self.corrections: list[ChatMessage] = []

    def begin(self) -> None:
        """A reply begins."""
        self._partial = None if self._spec is None else PartialOutput(self._spec)

    def feed(self, piece: str) -> Any | None:
        """The value as far as it has come, if `piece` may have changed it."""
        return None if self._partial is None else self._partial.feed(piece)

    async def read(self, text: str) -> bool:
        """Take `text` as the answer. Returns False if the model has to be asked again.

        Raises:
            OutputMismatchError: it does not fit, and no attempt is left.
        """
        if self._spec is None:
            return True
        read = partial(self._spec.parse, text)
        try:
            long = len(text) > _LONG
            self.value = await in_thread(read, name="rejoinder-answer") if long else read()
        except OutputError as error:
            if self._retries == 0:
                raise OutputMismatchError(
                    f"the answer does not fit response_format: {error}", body=text, retryable=False
                ) from error
            self._retries -= 1
            if text.strip():
                self.corrections.append(ChatMessage(role="assistant", content=[text]))
            self.corrections.append(ChatMessage(role="user", content=[error.for_model]))
            return False
        return True
