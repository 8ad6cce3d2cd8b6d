"""The local copy of the conversation that a service holds, and the changes in progress.

The next connection receives this copy. If a connection ends before the service has confirmed a
change, the change is applied here, so that no item is lost. A confirmed change is never sent again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import Final, TypeGuard, TypeVar

import msgspec

from rejoinder import _aio, _stamps
from rejoinder._core.items import ChatItem, ChatMessage, FunctionCall, FunctionCallOutput
from rejoinder._core.realtime import messages as m
from rejoinder._core.realtime.heard import SpokenMessage, heard
from rejoinder.errors import APIError, ConfigurationError
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.realtime import RealtimeError
from rejoinder.llm.remote_chat_context import RemoteChatContext
from rejoinder.llm.utils import compute_chat_ctx_diff
from rejoinder.providers.sessions.link import Link, PendingItem
from rejoinder.providers.sessions.sound import with_sound_at

__all__ = ["Conversation", "keep", "outcome"]

REMEMBERED: Final = 256
MAX_ITEMS: Final = 1 << 14
"""Maximum items of a conversation: more than any service accepts, or a day of speech."""

_V = TypeVar("_V")


def _refused(item: ChatItem, error: ConfigurationError) -> asyncio.Future[None]:
    """A failed future for an item that was not sent."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_exception(RealtimeError(f"item {item.id!r}: {error}", code="refused"))
    done.exception()  # mark as retrieved, or asyncio warns
    return done


def keep(entries: OrderedDict[str, _V], key: str, value: _V) -> None:
    """Remember an entry; the oldest ones are forgotten."""
    entries[key] = value
    if len(entries) > REMEMBERED:
        entries.popitem(last=False)


async def outcome(changes: Sequence[asyncio.Future[None]], *, within: float) -> None:
    """Wait for the service to confirm changes of the conversation.

    Raises:
        RealtimeError: it refused a change, or did not confirm in time. All other changes are in
            place.
    """
    if not changes:
        return
    late = await _aio.unfinished(changes, within)
    refused: list[str] = []
    code: str | None = None
    for change in changes:
        error = change.exception() if change.done() and not change.cancelled() else None
        if error is not None:
            refused.append(str(error))
            if isinstance(error, RealtimeError) and error.code == "closed":
                code = error.code
    if late:
        what = f"{len(late)} of {len(changes)} changes were not confirmed within {within:g} s"
        raise RealtimeError(f"update_chat_ctx: {what}", code="timeout")
    if refused:
        raise RealtimeError(f"update_chat_ctx: {'; '.join(refused)}", code=code or "refused")


class Conversation:
    """The items, in the service's order.

    Args:
        confirmed: the service acknowledges each item it receives.
        sound_of: the sound of a user's message that has no transcript, as far as it is kept.

    Attributes:
        spoken: the text and sound of the last messages of the model, by id.
    """

    def __init__(
        self, *, confirmed: bool = True, sound_of: Callable[[str], Sequence[m.AppendAudio]]
    ) -> None:
        self._confirmed = confirmed
        self._sound_of = sound_of
        self._remote = RemoteChatContext()
        self._early: OrderedDict[str, str] = OrderedDict()
        self._partial: OrderedDict[str, str] = OrderedDict()
        self._late: list[FunctionCallOutput] = []
        self.spoken: OrderedDict[str, SpokenMessage] = OrderedDict()

    def to_chat_ctx(self) -> ChatContext:
        """A copy."""
        return self._remote.to_chat_ctx()

    @property
    def empty(self) -> bool:
        """Whether there is no item."""
        return self._remote.last_id is None

    @property
    def full(self) -> str:
        """Why the service may add no further item; empty if it may."""
        if len(self._remote._id_to_item) < MAX_ITEMS:
            return ""
        return f"the conversation would have more than {MAX_ITEMS:,} items; begin another session"

    def has(self, item_id: str) -> bool:
        """Whether the item is in the copy."""
        return self._remote.get(item_id) is not None

    def unwritten(self, item_id: str) -> bool:
        """Whether the service has announced the item without its content."""
        node = self._remote.get(item_id)
        item = node.item if node is not None else None
        return (isinstance(item, ChatMessage) and not item.content) or (
            isinstance(item, FunctionCall) and not item.arguments
        )

    # -- the copy ----------------------------------------------------------------------------

    def insert(self, previous_id: str | None, item: ChatItem, *, at_tail: bool = False) -> bool:
        """Insert an item after another one, or at the end if that one is unknown. Return whether it
        is new."""
        if self._remote.get(item.id) is not None:
            return False
        if at_tail or (previous_id is not None and self._remote.get(previous_id) is None):
            previous_id = self._remote.last_id
        early = self._early.pop(item.id, None)
        if early is not None and isinstance(item, ChatMessage) and not item.content:
            item.content = [early]
        self._remote.insert(previous_id, item)
        return True

    def drop(self, item_id: str) -> None:
        """Remove an item if it exists."""
        if self._remote.get(item_id) is not None:
            self._remote.delete(item_id)

    def complete_call(self, call: FunctionCall) -> bool:
        """Complete a call that was announced without its arguments. Return whether there was
        one."""
        node = self._remote.get(call.id)
        if node is None:
            return False
        node.item = call
        return True

    def set_text(self, item_id: str, text: str, *, interrupted: bool) -> None:
        """Set the text of a model's message. An interrupted message stays interrupted."""
        node = self._remote.get(item_id)
        if node is not None and isinstance(node.item, ChatMessage):
            node.item.content = [text] if text else []
            node.item.interrupted = node.item.interrupted or interrupted

    def append_text(self, item_id: str, text: str) -> None:
        """Words of a model's message that arrive after its reply has ended. A message that was cut
        keeps what was heard."""
        spoken = self.spoken.get(item_id)
        if spoken is not None and not spoken.is_cut:
            spoken.add_text(text, spoken.received_ms / 1000)
            self.set_text(item_id, spoken.text, interrupted=False)

    def set_partial(self, item_id: str, text: str) -> None:
        """Set the partial transcript of the user. It is final if the connection ends before the
        rest arrives."""
        keep(self._partial, item_id, text)

    def set_transcript(self, item_id: str, text: str, confidence: float | None) -> None:
        """Set the user's transcript, even if the message is not announced yet."""
        self._partial.pop(item_id, None)
        node = self._remote.get(item_id)
        if node is None:
            keep(self._early, item_id, text)
        elif isinstance(node.item, ChatMessage):
            node.item.content = [text]
            node.item.transcript_confidence = confidence

    # -- what is under way on a connection ---------------------------------------------------

    def change(
        self,
        link: Link | None,
        chat_ctx: ChatContext,
        answer: Callable[[FunctionCallOutput], bool],
        *,
        under_way: Collection[str] = (),
    ) -> tuple[list[asyncio.Future[None]], list[str]]:
        """Make the conversation equal to `chat_ctx`.

        Args:
            link: the connection in use.
            chat_ctx: the target.
            answer: records that a call gets its result; false if the service no longer wants one. It
                raises `ConfigurationError` for a result that the model cannot take.
            under_way: ids of messages in progress.

        Returns:
            The futures to wait for, and the ids of the answered calls.
        """
        diff = compute_chat_ctx_diff(self.to_chat_ctx(), chat_ctx)
        waiting: list[asyncio.Future[None]] = []
        for item_id in diff.to_remove:
            # Items that arrive now are not in the caller's copy. Keep them.
            if item_id not in under_way and not self.unwritten(item_id):
                waiting += self.remove(link, item_id)
        answered: list[str] = []
        for previous_id, item_id in diff.to_create:
            item = chat_ctx.get_by_id(item_id)
            if item is None:
                continue
            if isinstance(item, FunctionCallOutput):
                try:
                    wanted = answer(item)
                except ConfigurationError as error:
                    waiting.append(_refused(item, error))
                    continue
                if not wanted:
                    if not self._has_result(item.call_id):
                        self.insert(previous_id, item)
                    continue  # otherwise the next connection would receive a second one
                answered.append(item.call_id)
                if link is None or link.closed.done():
                    self._late.append(item)
            waiting += self.create(link, previous_id, item)
        return waiting, answered

    def _has_result(self, call_id: str) -> bool:
        return any(
            isinstance(item, FunctionCallOutput) and item.call_id == call_id
            for item in self._remote.to_chat_ctx().items
        )

    def create(
        self, link: Link | None, previous_id: str | None, item: ChatItem
    ) -> list[asyncio.Future[None]]:
        """Create an item at the service; without a connection, in the copy only.

        Returns:
            Nothing, or a future to wait for; it fails with a `RealtimeError` if the service refuses
            the item.
        """
        if link is None or link.closed.done():
            self.insert(previous_id, item)
            return []
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ref = _stamps.new_id("chat_ctx_create_")
        sound = self._sound_of(item.id)
        fitting = with_sound_at(item, link.protocol.traits.input_rate)
        command = m.CreateItem(ref, fitting, self._anchor(link, previous_id), sound)
        if not link.protocol.takes(command):
            self.insert(previous_id, item)
            link.untold.append(item.id)
            return []
        try:
            sent = link.send(command)
        except ConfigurationError as error:
            return [_refused(item, error)]
        if not self._confirmed:
            self.insert(previous_id, item)
            link.told([item.id])
            return []
        if not sent:  # this service cannot hold such an item
            self.insert(previous_id, item)
            return []
        link.pending[ref] = PendingItem(done, item.id, item, previous_id)
        link.known.add(item.id)
        if isinstance(item, ChatMessage):
            link.given[item.id] = "" if sound else item.text_content or ""
        return [done]

    def remove(self, link: Link | None, item_id: str) -> list[asyncio.Future[None]]:
        """Remove an item at the service; as `create`."""
        if link is None or link.closed.done() or item_id not in link.known:
            self.drop(item_id)
            return []
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ref = _stamps.new_id("chat_ctx_delete_")
        command = m.DeleteItem(ref, item_id)
        link.known.discard(item_id)
        if link.protocol.takes(command):
            link.send(command)
        else:
            link.stale = True
        if link.stale or not self._confirmed:
            self.drop(item_id)
            return []
        link.pending[ref] = PendingItem(done, item_id, None)
        return [done]

    def with_untold(self, link: Link, request: m.CreateReply) -> m.CreateReply:
        """`request` with the items that `link` accepts at no other time. They count as sent."""
        rate = link.protocol.traits.input_rate
        found = [
            with_sound_at(node.item, rate)
            for item_id in link.untold
            if (node := self._remote.get(item_id))
        ]
        link.told(item.id for item in found)
        link.untold.clear()
        return msgspec.structs.replace(request, context=found) if found else request

    def with_history(self, link: Link, settings: m.UpdateSession) -> m.UpdateSession:
        """`settings` with the history, for a service that takes it only with them. The items count
        as sent."""
        if not link.protocol.traits.history_in_setup:
            return settings
        items = self._missing(link)
        link.told(item.id for item in items)
        return msgspec.structs.replace(settings, items=items)

    def give_history(self, link: Link) -> list[asyncio.Future[None]]:
        """Send `link` the items that it lacks, and remove those that the copy no longer has.

        Returns:
            What to wait for.
        """
        if link.protocol.traits.history_at_once:
            self._give_at_once(link)
            return []
        waiting: list[asyncio.Future[None]] = []
        previous_id: str | None = None
        wanted: set[str] = set()
        for item in self._remote.to_chat_ctx().items:
            wanted.add(item.id)
            if item.id not in link.known:
                waiting += self.create(link, previous_id, item)
            elif _changed(item, link):
                waiting += self._rewrite(link, previous_id, item)
            if item.id in link.known:
                previous_id = item.id
        under_way = {entry.item_id for entry in link.pending.values()}
        for item_id in link.known - wanted - under_way:
            link.send(m.DeleteItem(_stamps.new_id("chat_ctx_delete_"), item_id))
            link.known.discard(item_id)
        return [future for future in waiting if not future.done()]

    def _rewrite(
        self, link: Link, previous_id: str | None, item: ChatMessage
    ) -> list[asyncio.Future[None]]:
        """Replace a message at `link` with its current text."""
        command = m.DeleteItem(_stamps.new_id("chat_ctx_delete_"), item.id)
        if not link.protocol.takes(command):
            link.stale = True
            return []
        link.send(command)
        link.known.discard(item.id)
        link.given.pop(item.id, None)
        link.rewritten.add(item.id)
        return self.create(link, previous_id, item) if item.content else []

    def cut(
        self,
        link: Link | None,
        message_id: str,
        end_ms: int,
        transcript: str | None,
        *,
        audio: bool,
        told: bool,
    ) -> None:
        """Cut a model's message down to its heard text, here and, if `told`, at the service.

        Args:
            link: the connection in use.
            message_id: the message; ignored if it is not a message of the model.
            end_ms: milliseconds played; clamped to the sound received.
            transcript: the heard text, if known.
            audio: the message has sound.
            told: send the truncation to the service.
        """
        node = self._remote.get(message_id)
        item = node.item if node is not None else None
        spoken = self.spoken.get(message_id)
        if spoken is None:  # created by the application, or by another session
            if not isinstance(item, ChatMessage) or item.role != "assistant":
                return
            spoken = SpokenMessage(1)
            spoken.add_text(item.text_content or "")
        received, before = spoken.received_ms, spoken.text
        end = min(end_ms, received)
        text = heard(spoken, end_ms if transcript is None else transcript)
        spoken.cut(text, end if audio else received)
        if (audio and received > 0 and end <= 0) or not text.strip():
            self.remove(link if told else None, message_id)
            return
        self.set_text(message_id, text, interrupted=True)
        if not told or link is None or link.closed.done():
            return
        if message_id in link.spoken and audio and received > 0:
            if end < received:
                ref = _stamps.new_id("truncate_")
                link.send(m.TruncateItem(ref, message_id, end), urgent=True)
        elif isinstance(item, ChatMessage) and message_id in link.known and text != before:
            self._rewrite(link, self._before(message_id), item)

    def _before(self, item_id: str) -> str | None:
        previous: str | None = None
        for item in self._remote.to_chat_ctx().items:
            if item.id == item_id:
                break
            previous = item.id
        return previous

    def deleted(self, link: Link, item_id: str) -> None:
        """The service of the current connection removed an item."""
        self.confirm(link, item_id, created=False, in_use=True)
        if item_id in link.rewritten:
            link.rewritten.discard(item_id)
            return
        link.known.discard(item_id)
        self.drop(item_id)

    def _missing(self, link: Link) -> list[ChatItem]:
        """The items that `link` lacks. A message without content is still being spoken."""
        rate = link.protocol.traits.input_rate
        return [
            with_sound_at(item, rate)
            for item in self._remote.to_chat_ctx().items
            if item.id not in link.known
            and not (isinstance(item, ChatMessage) and not item.content)
        ]

    def _give_at_once(self, link: Link) -> None:
        missing = self._missing(link)
        command = m.GiveHistory(_stamps.new_id("history_"), missing)
        if missing and link.protocol.takes(command):
            link.send(command)
            link.told(item.id for item in missing)
        else:
            link.untold = [item.id for item in missing]

    def confirm(self, link: Link, item_id: str, *, created: bool, in_use: bool) -> None:
        """The service has confirmed a change. `in_use`: the copy follows `link`."""
        for ref, entry in list(link.pending.items()):
            if entry.item_id == item_id and (entry.item is not None) is created:
                del link.pending[ref]
                if in_use and entry.item is not None:
                    self.insert(entry.previous_id, entry.item)
                if not entry.done.done():
                    entry.done.set_result(None)

    def refuse(
        self, link: Link, ref: str, error: APIError, code: str | None, *, harmless: bool
    ) -> bool:
        """The service has refused a change. `harmless`: it was redundant. Return whether `ref`
        names a change."""
        entry = link.pending.pop(ref, None)
        if entry is None:
            return False
        if harmless:
            self._carry_out(entry)
        elif entry.item is not None:
            link.known.discard(entry.item_id)
        if not entry.done.done():
            if harmless:
                entry.done.set_result(None)
            else:
                entry.done.set_exception(
                    RealtimeError(f"item {entry.item_id!r} was refused: {error.message}", code=code)
                )
                entry.done.exception()  # callers that do not wait must not make asyncio complain
        return True

    def settle_late(self, link: Link) -> bool:
        """Account for results that arrived without a connection. `link` cannot answer calls of
        earlier connections, so it received these results as part of its history. Return whether one
        of them needs a reply."""
        late, self._late = self._late, []
        if link.protocol.traits.answers_move:
            return False
        ids = {output.call_id for output in late}
        for item in self._remote.to_chat_ctx().items if link.resumed and ids else ():
            if isinstance(item, FunctionCall) and item.call_id in ids:
                why = "The connection was replaced. The result follows as text."
                link.send(m.AbandonCall(_stamps.new_id("abandon_"), item, why))
        return any(output.reply_required for output in late)

    def followed(self, item_id: str) -> bool:
        """Whether an item with content stands behind `item_id`; also true if the copy has no such
        item."""
        items = self._remote.to_chat_ctx().items
        places = [place for place, item in enumerate(items) if item.id == item_id]
        return not places or any(
            not isinstance(item, ChatMessage) or item.content for item in items[places[0] + 1 :]
        )

    def settle(self, link: Link, why: RealtimeError | None = None) -> None:
        """Apply to the copy the changes that `link` can no longer confirm. The next connection
        receives them. `why`: the session is over and has no connection, so they fail."""
        for entry in link.pending.values():
            self._carry_out(entry)
            if entry.done.done():
                continue
            if why is None:
                entry.done.set_result(None)
            else:
                entry.done.set_exception(RealtimeError(str(why), code=why.code))
                entry.done.exception()  # callers that do not wait must not make asyncio complain
        link.pending.clear()

    def settle_turns(self, unheard: Collection[str] = ()) -> None:
        """Make partial transcripts final, because a connection has ended.

        Args:
            unheard: the user's items whose sound is sent again to the next connection.
        """
        for item_id in unheard:
            self._partial.pop(item_id, None)
            self.drop(item_id)
        for item_id, text in list(self._partial.items()):
            self.set_transcript(item_id, text, None)

    def _carry_out(self, entry: PendingItem) -> None:
        if entry.item is None:
            self.drop(entry.item_id)
        else:
            self.insert(entry.previous_id, entry.item)

    def _anchor(self, link: Link, previous_id: str | None) -> str | None:
        """The nearest item at or before `previous_id` that the service of `link` holds."""
        if previous_id is None or previous_id in link.known:
            return previous_id
        anchor: str | None = None
        for item in self._remote.to_chat_ctx().items:
            if item.id in link.known:
                anchor = item.id
            if item.id == previous_id:
                break
        return anchor


def _changed(item: ChatItem, link: Link) -> TypeGuard[ChatMessage]:
    """Whether a message has changed since it was created on `link`."""
    given = link.given.get(item.id)
    return (
        given is not None and isinstance(item, ChatMessage) and (item.text_content or "") != given
    )
