"""`Journal`: records a turn while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from rejoinder._core.chunks import CompletionUsage
    from rejoinder._core.items import ChatItem, FunctionCall
    from rejoinder.llm.chat_context import ChatContext

__all__ = ["NO_JOURNAL", "Journal"]


@runtime_checkable
class Journal(Protocol):
    """Records a turn while it runs, so that the conversation can continue after a crash at any moment.

    `rejoinder.Conversation` is one. Methods that are not coroutines are called between two chunks of
    a reply and must return at once.
    """

    async def begin(self, chat_ctx: ChatContext) -> None:
        """A turn on `chat_ctx` begins: record new and changed items. No request is sent before this
        returns, and an exception ends the turn."""
        ...

    def said(self, text: str | None) -> None:
        """A piece of the reply arrived; ``None``: a reply begins, discard the pieces so far."""
        ...

    def write(self, *items: ChatItem, planned: bool = False) -> None:
        """Items were appended to the context, or have changed. Identity is the item's id.

        `planned` marks the calls of a reply with their outputs, which are not final: each output is
        written again when its tool has finished.
        """
        ...

    async def start(self, call: FunctionCall) -> str | None:
        """A tool that may have effects is about to run. Return ``None`` to let it run, or a reason for
        the model why it must not run."""
        ...

    def used(self, model: str, usage: CompletionUsage, cost: float | None) -> None:
        """Record the tokens and the US dollars of one reply; ``None`` if unknown."""
        ...

    def end(self, reason: str) -> None:
        """The turn is over (`Done.reason`). Tools that still run may `write` their outputs later."""
        ...

    async def flush(self) -> None:
        """Return when everything so far is recorded; raise if it cannot be."""
        ...


class _NoJournal:
    """Records nothing."""

    async def begin(self, chat_ctx: ChatContext) -> None:
        pass

    def said(self, text: str | None) -> None:
        pass

    def write(self, *items: ChatItem, planned: bool = False) -> None:
        pass

    async def start(self, call: FunctionCall) -> str | None:
        return None

    def used(self, model: str, usage: CompletionUsage, cost: float | None) -> None:
        pass

    def end(self, reason: str) -> None:
        pass

    async def flush(self) -> None:
        pass


NO_JOURNAL: Journal = _NoJournal()
