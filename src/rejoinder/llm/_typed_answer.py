"""`TypedAnswer`: reads an answer of the type in `response_format`, and asks again if it does not fit.

Imported only for turns with a `response_format`, because reading types needs slow imports.
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
"""From this many characters on, an answer is read in a thread; each takes up to 5 microseconds."""


class TypedAnswer:
    """The type of the answer, and the wrong answers so far.

    Args:
        response_format: the type or the schema.
        retries: how often the model may be asked again.

    Attributes:
        value: the answer, once `read` has accepted it.
        corrections: wrong answers, each with a message that explains the errors. The next request
            has them after the conversation, of which they are not part.

    Raises:
        ConfigurationError: `response_format` does not describe a type.
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
        """The value so far, if `piece` may have changed it."""
        return None if self._partial is None else self._partial.feed(piece)

    async def read(self, text: str) -> bool:
        """Read `text` as the answer. Returns False if the model must be asked again.

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
