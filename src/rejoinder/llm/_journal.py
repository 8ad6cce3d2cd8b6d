"""`Journal`: where a turn writes down what happens, as it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from rejoinder._core.chunks import CompletionUsage
    from rejoinder._core.items import ChatItem, FunctionCall
    from rejoinder.llm.chat_context import ChatContext

__all__ = ["NO_JOURNAL", "Journal"]


@runtime_checkable
class Journal(Protocol):
    """Records a turn while it runs, so that a crash at any moment leaves a history that can go on.

    `rejoinder.Conversation` is one. Methods that are not coroutines are called between two chunks
    of a reply: they note what happened and return at once.
    """

    async def begin(self, chat_ctx: ChatContext) -> None:
        """A turn on `chat_ctx` begins: record what is new or different in it. Nothing is asked
        before this returns. What it raises ends the turn."""
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
        """A tool that may have effects is about to run. It runs when this has returned ``None``; a
        text is the reason why it must not run, for the model."""
        ...

    def used(self, model: str, usage: CompletionUsage, cost: float | None) -> None:
        """One reply took these tokens, and cost as many US dollars; ``None``: not known."""
        ...

    def end(self, reason: str) -> None:
        """The turn is over (`Done.reason`). Tools that go on may still `write` their outputs."""
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
