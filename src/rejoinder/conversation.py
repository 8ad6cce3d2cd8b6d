"""`Conversation`: a chat context in a store that is written continuously and survives a crash."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from rejoinder import _stamps
from rejoinder._aio import in_thread
from rejoinder._core.chunks import CompletionUsage
from rejoinder._core.items import (
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    dump_items,
    load_items,
    with_fields,
)
from rejoinder._core.tools import idempotency_key
from rejoinder._options import COUNT, FLAG, FUNCTION, Rule, checked, instance
from rejoinder._sections import explained
from rejoinder.llm._tool_runs import CUT_OFF, NOT_STARTED, STILL_RUNNING, unmark
from rejoinder.llm.chat_context import ChatContext
from rejoinder.store._media import lift, lower, names_in
from rejoinder.store._replay import Asked, State, replay, same_call
from rejoinder.store.records import ConflictError, Found, Record, Store, StoreError

__all__ = ["Conversation"]

logger = logging.getLogger("rejoinder")

_TEXT_EVERY: Final = 0.5
"""Maximum number of seconds of a streamed reply that a crash may lose."""
_MANY: Final = 200
"""Number of items above which they are encoded in a thread."""
_LONGEST_ID: Final = 200
_FORGOTTEN: Final = 300.0
"""Seconds after its last record that a turn on another host counts as running."""

UNSURE: Final = (
    "the same call was interrupted by a crash and may have had its effect already. Find out whether "
    "it had, with another tool or by asking the user, before it is made again"
)


def _is_string(value: object) -> bool:
    return isinstance(value, str)


def _is_id(value: str) -> bool:
    return 0 < len(value) <= _LONGEST_ID and value.isprintable()


_ID = Rule(f"1 to {_LONGEST_ID} printable characters", _is_string, _is_id)
_STORE = instance(Store, expected='a Store, such as `SqliteStore("conversations.sqlite")`')


@dataclass(frozen=True, slots=True)
class _Draft:
    """A record whose item is not encoded yet. Holds a copy, because items change."""

    record: Record
    item: ChatItem | None = None


class Conversation:
    """A conversation that is kept in a store.

    Load it, continue its `chat_ctx`, and let `run_turn` write to it::

        conversation = Conversation(SqliteStore("conversations.sqlite"), "anna")
        chat_ctx = await conversation.load()
        chat_ctx.add_message(role="user", content="Hello")
        done = await run_turn(llm, chat_ctx, journal=conversation).collect()

    The user's message is written before the model is asked, the reply while it streams, a call
    before its tool runs, and its output when the tool has finished. After a crash `load` returns a
    legal context: a reply that broke off is an interrupted message, and the output of a call states
    whether the tool may have had its effect. A call that was started is never run again.

    The next turn, or `sync`, writes changes of `chat_ctx` outside a turn. Items that were removed
    from the end of the context, or replaced in it, stay in the log as another branch.

    Args:
        store: the store.
        id: the name of the conversation; default a new one.
        price: the cost of a reply by model and usage, for the log. Default: `LLMMetrics.cost`.

    Raises:
        ConfigurationError: an option has a wrong type or value.
    """

    @checked(store=_STORE, id=_ID.optional, price=FUNCTION.optional)
    def __init__(
        self,
        store: Store,
        id: str | None = None,
        *,
        price: Callable[[str, CompletionUsage], float | None] | None = None,
    ) -> None:
        self._store = store
        self._id = id if id is not None else _stamps.new_id("conv_")
        self._price = price
        self._chat_ctx: ChatContext | None = None
        self._state = State()
        self._loaded = False
        self._known: dict[str, ChatItem] = {}
        self._ranks: dict[str, int] = {}
        self._open: dict[str, tuple[str, bool]] = {}
        self._unsure: set[Asked] = set()
        self._running = False
        self._token = _stamps.new_id("owner_")
        self._queue: list[_Draft] = []
        self._writing: asyncio.Task[None] | None = None
        self._failure: StoreError | None = None
        self._pieces: list[str] = []
        self._begins = True
        self._saving: asyncio.TimerHandle | None = None
        _living[self._token] = self

    def __repr__(self) -> str:
        return f"Conversation({self._store!r}, {self._id!r})"

    @property
    def id(self) -> str:
        """The name of the conversation in its store."""
        return self._id

    @property
    def store(self) -> Store:
        """The store."""
        return self._store

    @property
    def chat_ctx(self) -> ChatContext:
        """The context: the loaded conversation and everything added since.

        Raises:
            RuntimeError: it has not been loaded.
        """
        if self._chat_ctx is None:
            message = f"the conversation {self._id!r} is not loaded; await load() first"
            raise RuntimeError(explained(message, "not loaded"))
        return self._chat_ctx

    @property
    def about(self) -> dict[str, Any]:
        """Title and other facts that `describe` has recorded."""
        return dict(self._state.about)

    # -- loading -----------------------------------------------------------------------------

    @checked(take_over=FLAG)
    async def load(self, *, take_over: bool = False) -> ChatContext:
        """Read the conversation; an empty context for one that is not in the store yet.

        Args:
            take_over: continue it although another process is in the middle of a turn. That process
                fails at its next write.

        Raises:
            StoreError: the store cannot be read, or holds data that this version does not understand.
            RuntimeError: a turn of this object is running.
        """
        self._refuse_while_running("load it again")
        state = replay(await self._store.read(self._id))
        path = state.path()
        items = await self._items_of(state, path)
        self._queue.clear()
        self._failure = None
        self._loaded = True
        if take_over:
            state.owner = None
        self._state = state
        self._known = {item.id: _copy(item) for item in items}
        self._place(path)
        self._open = state.open_calls()
        self._unsure = state.unsure()
        self._chat_ctx = ChatContext(self._mended(items))
        return self._chat_ctx

    async def _items_of(self, state: State, path: Sequence[str]) -> list[ChatItem]:
        datas = [state.data[item] for item in path]
        names = names_in(datas)
        kept: Mapping[str, bytes] = await self._store.media(names) if names else {}

        def made() -> list[ChatItem]:
            return load_items([_as_heard(lower(data, kept), state.heard.get(id)) for id, data in
                               zip(path, datas, strict=True)])  # fmt: skip

        try:
            if names or len(path) > _MANY:
                return await in_thread(made, name="rejoinder-load")
            return made()
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"the conversation {self._id!r} holds an item that this version does not "
                f"understand: {error}"
            ) from error

    def _mended(self, items: list[ChatItem]) -> list[ChatItem]:
        """`items` with outputs for calls that a crash interrupted, and the received part of a reply."""
        calls = {item.id: item for item in items if isinstance(item, FunctionCall)}
        for item in items:
            if isinstance(item, FunctionCallOutput) and item.id in self._open:
                call, started = self._open[item.id]
                item.output = CUT_OFF if started else NOT_STARTED
                item.is_error = True
                if call in calls:
                    unmark(calls[call])
        text = "".join(self._state.partial)
        if text.strip():
            items = [*items, ChatMessage(role="assistant", content=[text], interrupted=True)]
        return items

    def _place(self, path: Sequence[str]) -> None:
        self._ranks = {item: rank for rank, item in enumerate(path)}

    # -- changing ----------------------------------------------------------------------------

    async def append(self, *items: ChatItem) -> None:
        """Append `items` to the context, and write them.

        Raises:
            ConflictError: the conversation is continued elsewhere.
            StoreError: they cannot be written.
        """
        self.chat_ctx.items.extend(items)
        await self.sync()

    async def sync(self) -> None:
        """Write new and changed items of the context.

        Raises:
            ConflictError: the conversation is continued elsewhere.
            StoreError: it cannot be written.
        """
        self._refuse_while_running("sync it")
        chat_ctx = self.chat_ctx
        await self._refuse_if_busy()
        self._compare(chat_ctx.items)
        await self.flush()

    @checked()
    async def rewind(self, item: ChatItem | str | None) -> ChatContext:
        """Go back to the point right after `item` (or its id). The next message begins another branch.
        ``None`` goes back to the beginning. Items of other branches can be used, too.

        Raises:
            ValueError: the item is unknown, or stands between a call and its output.
        """
        await self.sync()
        path = await self._path_to(item)
        self._note(Record("head", item=path[-1] if path else None))
        self._state.head = path[-1] if path else None
        items = await self._items_of(self._state, path)
        self._known.update((each.id, _copy(each)) for each in items)
        self._place(path)
        self.chat_ctx.items = items
        await self.flush()
        return self.chat_ctx

    @checked(id=_ID.optional)
    async def branch(
        self, item: ChatItem | str | None = None, *, id: str | None = None
    ) -> Conversation:
        """A new conversation with the items of this one, up to `item` (default: all).

        Raises:
            ValueError: the item is unknown, or stands between a call and its output; or `id` already
                exists.
        """
        await self.sync()
        path = self._state.path() if item is None else await self._path_to(item)
        items = await self._items_of(self._state, path)
        other = Conversation(self._store, id, price=self._price)
        await other.load()
        if other._state.count:
            raise ValueError(f"the conversation {other.id!r} already exists; choose another id")
        origin = {"conversation": self._id, "item": path[-1] if path else None}
        other._note(Record("about", data={"branch_of": origin}))
        await other.append(*items)
        return other

    async def tips(self) -> list[str]:
        """The ids of the last items of all branches, including the current one."""
        await self.sync()
        return self._state.tips()

    @checked()
    async def heard(self, item: ChatItem | str, text: str) -> None:
        """Record how much of a spoken message was heard. The message counts as interrupted at that
        point; the log keeps the whole text.

        Raises:
            ValueError: the context has no assistant message with this id.
        """
        id = item if isinstance(item, str) else item.id
        found = self.chat_ctx.get_by_id(id)
        if not isinstance(found, ChatMessage) or found.role != "assistant":
            raise ValueError(f"the context has no message of the assistant with the id {id!r}")
        if not self._running:
            await self.sync()
        found.content = [text]
        found.interrupted = True
        self._known[id] = _copy(found)
        self._note(Record("heard", item=id, turn=self._state.turn, data={"text": text}))
        await self.flush()

    @checked()
    async def describe(self, **about: Any) -> None:
        """Record facts about the conversation, such as ``title="..."``. `Store.conversations`
        returns them. ``None`` removes a fact."""
        if not self._loaded:
            await self.load()
        self._note(Record("about", data=about))
        await self.flush()

    @checked(limit=COUNT)
    async def search(self, text: str, *, limit: int = 20) -> Sequence[Found]:
        """Items of this conversation, on all branches, that contain all words of `text`."""
        return await self._store.search(text, conversation=self._id, limit=limit)

    async def _path_to(self, item: ChatItem | str | None) -> list[str]:
        """The ids from the beginning to `item`."""
        if item is None:
            return []
        id = item if isinstance(item, str) else item.id
        if id not in self._state.data:
            raise ValueError(f"the conversation {self._id!r} has no item with the id {id!r}")
        path = replace(self._state, head=id).path()
        owed: set[Any] = set()
        for each in path:
            data = self._state.data[each]
            if data.get("type") == "function_call":
                owed.add(data.get("call_id"))
            elif data.get("type") == "function_call_output":
                owed.discard(data.get("call_id"))
        if owed:
            raise ValueError(
                f"the item {id!r} stands between a call and its output; name the message before the "
                "call, or the last output"
            )
        return path

    def _refuse_while_running(self, what: str) -> None:
        if self._running:
            raise RuntimeError(
                f"a turn of the conversation {self._id!r} is running; {what} when it is over"
            )

    async def _refuse_if_busy(self) -> None:
        owner = self._state.owner
        if owner is None or owner.get("token") == self._token:
            return
        seen = self._state.seen
        if await in_thread(lambda: _is_alive(owner, seen), name="rejoinder-owner"):
            raise ConflictError(
                f"the conversation {self._id!r} is in the middle of a turn of process "
                f"{owner.get('pid')} on {owner.get('host')}; load it again when that is over, or now "
                "with load(take_over=True)"
            )

    # -- the journal of a turn -----------------------------------------------------------------

    async def begin(self, chat_ctx: ChatContext) -> None:
        """See `rejoinder.turn.Journal`.

        Raises:
            ConflictError: the conversation is continued elsewhere.
            RuntimeError: another turn of this object is running.
            ValueError: the store has the conversation, and it was not loaded.
        """
        self._refuse_while_running("begin another one")
        if not self._loaded:
            await self.load()
            if self._state.data and chat_ctx is not self._chat_ctx:
                self._loaded = False
                raise ValueError(
                    f"the store has a conversation {self._id!r} already; load() it and continue its "
                    "chat_ctx, or choose another id"
                )
        await self._refuse_if_busy()
        owner = await _owner(self._token)
        self._refuse_while_running("begin another one")
        self._running = True
        self._chat_ctx = chat_ctx
        state = self._state
        if state.turn is None or any(
            item.type == "message" and item.role == "user" and item.id not in self._known
            for item in chat_ctx.items
        ):
            # A turn is everything done for one user message, however many attempts it takes.
            state.turn = _stamps.new_id("turn_")
            self._unsure = set()
        state.owner = None
        self._compare(chat_ctx.items)
        self._forget_pieces()
        self._note(Record("turn", turn=state.turn, data=owner))
        try:
            await self.flush()
        except BaseException:
            self._running = False
            raise

    def said(self, text: str | None) -> None:
        """See `rejoinder.turn.Journal`."""
        if text is None:
            self._forget_pieces()
            return
        self._pieces.append(text)
        if self._saving is None:
            loop = asyncio.get_running_loop()
            self._saving = loop.call_later(_TEXT_EVERY, self._save_pieces)

    def _save_pieces(self) -> None:
        self._saving = None
        data: dict[str, Any] = {"text": "".join(self._pieces)}
        if self._begins:
            data["begins"] = True
        self._begins = False
        self._pieces.clear()
        self._note(Record("text", turn=self._state.turn, data=data))

    def _forget_pieces(self) -> None:
        """A reply begins, or its text has become an item."""
        self._begins = True
        self._pieces.clear()
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None

    def write(self, *items: ChatItem, planned: bool = False) -> None:
        """See `rejoinder.turn.Journal`."""
        for item in items:
            if item.id not in self._known:
                self._add(item, self._state.head, planned=planned)
            elif planned or item.id in self._open or not _same(self._known[item.id], item):
                self._change(item, planned=planned)
            if planned and isinstance(item, FunctionCallOutput):
                self._open[item.id] = ("", False)

    async def start(self, call: FunctionCall) -> str | None:
        """See `rejoinder.turn.Journal`."""
        key = idempotency_key(call)
        if key in self._state.started:
            return "it was started before and may have had its effect already"
        if same_call(call.name, call.arguments) in self._unsure:
            return UNSURE
        self._state.started.add(key)
        self._note(Record("start", item=call.id, turn=self._state.turn, key=key))
        await self.flush()
        return None

    def used(self, model: str, usage: CompletionUsage, cost: float | None) -> None:
        """See `rejoinder.turn.Journal`."""
        if self._price is not None:
            cost = self._price(model, usage)
        tokens = {name: value for name, value in usage.model_dump().items() if value}
        self._note(
            Record("usage", turn=self._state.turn, usage={"model": model, **tokens}, cost=cost)
        )

    def end(self, reason: str) -> None:
        """See `rejoinder.turn.Journal`."""
        if self._running:
            self._running = False
            self._forget_pieces()
            self._note(Record("end", turn=self._state.turn, data={"reason": reason}))

    async def flush(self) -> None:
        """See `rejoinder.turn.Journal`. The next call retries records that could not be written.

        Raises:
            ConflictError: the conversation is continued elsewhere; `load` it again.
            StoreError: it cannot be written.
        """
        if self._writing is None and self._queue and not isinstance(self._failure, ConflictError):
            self._failure = None
            self._start_writing()
        while (writing := self._writing) is not None:
            await asyncio.wait((writing,))
        if self._failure is not None:
            raise self._failure

    # -- writing -------------------------------------------------------------------------------

    def _compare(self, items: Sequence[ChatItem]) -> None:
        """Record the differences between `items` and the log."""
        placed = self._in_order(items)
        moved = not placed
        behind_new = False
        previous: str | None = None
        seen: set[str] = set()
        for item in items:
            if item.id in seen:
                continue
            seen.add(item.id)
            known = self._known.get(item.id)
            if known is None:
                self._add(item, previous, planned=self._is_open(item))
                behind_new = True
            else:
                if not _same(known, item):
                    self._change(item, planned=self._is_open(item))
                if behind_new or not placed:
                    moved = True
                    self._state.parents[item.id] = previous
                    self._note(Record("place", item=item.id, parent=previous))
                behind_new = False
            previous = item.id
        if previous != self._state.head:
            self._state.head = previous
            self._note(Record("head", item=previous))
            moved = True
        if moved:
            self._place(self._state.path())

    def _in_order(self, items: Sequence[ChatItem]) -> bool:
        """Whether the logged items among `items` are on the current branch, in the same order."""
        before = -1
        for item in items:
            if item.id in self._known:
                rank = self._ranks.get(item.id, -1)
                if rank <= before:
                    return False
                before = rank
        return True

    def _is_open(self, item: ChatItem) -> bool:
        """Whether `item` is an output that is not complete yet."""
        return (
            item.id in self._open
            and isinstance(item, FunctionCallOutput)
            and item.output in (STILL_RUNNING, NOT_STARTED, CUT_OFF)
        )

    def _add(self, item: ChatItem, parent: str | None, *, planned: bool) -> None:
        copy = self._known[item.id] = _copy(item)
        state = self._state
        state.parents[item.id] = parent
        state.head = item.id
        state.data[item.id] = {}
        self._ranks[item.id] = len(self._ranks)
        self._forget_pieces()
        record = Record("item", item=item.id, parent=parent, turn=state.turn, planned=planned)
        self._note(record, copy)

    def _change(self, item: ChatItem, *, planned: bool) -> None:
        copy = self._known[item.id] = _copy(item)
        if not planned:
            self._open.pop(item.id, None)
        self._note(Record("change", item=item.id, turn=self._state.turn, planned=planned), copy)

    def _note(self, record: Record, item: ChatItem | None = None) -> None:
        self._queue.append(_Draft(record, item))
        if self._writing is None and self._failure is None:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                return  # written by the next `flush`
            self._start_writing()

    def _start_writing(self) -> None:
        self._writing = asyncio.create_task(self._write(), name=f"write {self._id}")
        self._writing.add_done_callback(self._written)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writing = None
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if not isinstance(error, StoreError):
            failure = StoreError(f"the conversation {self._id!r} cannot be written: {error}")
            failure.__cause__ = error
            error = failure
        self._failure = error

    async def _write(self) -> None:
        while self._queue:
            drafts = self._queue[:]
            if len(drafts) > _MANY or any(_has_media(draft.item) for draft in drafts):
                encoded = await in_thread(lambda: _encoded(drafts), name="rejoinder-encode")  # noqa: B023
            else:
                encoded = _encoded(drafts)
            records, media = encoded
            # Finish the write even if cancelled: the caller must know whether it happened.
            writing = asyncio.ensure_future(
                self._store.append(self._id, records, after=self._state.count, media=media)
            )
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                if not writing.cancelled():
                    await asyncio.wait((writing,))
                    if not writing.cancelled() and writing.exception() is None:
                        self._took(records)
                raise
            self._took(records)

    def _took(self, records: Sequence[Record]) -> None:
        del self._queue[: len(records)]
        state = self._state
        state.count += len(records)
        for record in records:
            state.seen = record.at
            if record.data is None:
                continue
            if record.item is not None and record.kind in ("item", "change"):
                state.data[record.item] = record.data
            elif record.kind == "about":
                state.about.update(record.data)


def _encoded(drafts: Sequence[_Draft]) -> tuple[list[Record], dict[str, bytes]]:
    records: list[Record] = []
    media: dict[str, bytes] = {}
    for draft in drafts:
        record = draft.record
        if draft.item is not None:
            dumped = dump_items([draft.item], image=True, audio=True, timestamp=True, metrics=True)
            data, kept = lift(dumped[0])
            media.update(kept)
            record = replace(record, data=data)
        records.append(record)
    return records, media


def _copy(item: ChatItem) -> ChatItem:
    if isinstance(item, ChatMessage):
        content: Any = item.content
        return with_fields(item, content=[*content] if isinstance(content, list) else content)
    return with_fields(item)


def _same(a: ChatItem, b: ChatItem) -> bool:
    return type(a) is type(b) and a.__dict__ == b.__dict__  # a third of the time of `==`


def _has_media(item: ChatItem | None) -> bool:
    return isinstance(item, ChatMessage) and not all(isinstance(p, str) for p in item.content)


def _as_heard(data: Any, text: str | None) -> Any:
    return data if text is None else {**data, "content": [text], "interrupted": True}


# -- who runs a turn -----------------------------------------------------------------------------

_living: weakref.WeakValueDictionary[str, Conversation] = weakref.WeakValueDictionary()
"""The conversations of this process, by the token with which they sign a turn."""


_us: dict[int, str | None] = {}
"""Start time of this process, keyed by process id, because a forked child has another id."""


async def _owner(token: str) -> dict[str, Any]:
    pid = os.getpid()
    if pid not in _us:
        _us[pid] = await in_thread(lambda: _started_at(pid), name="rejoinder-owner")
    return {"token": token, "pid": pid, "host": socket.gethostname(), "since": _us[pid]}


def _is_alive(owner: Mapping[str, Any], seen: float) -> bool:
    """Whether another owner of a turn may still be running it."""
    if owner.get("host") != socket.gethostname():
        return abs(_stamps.wall_now() - seen) < _FORGOTTEN  # even if a clock was set back
    pid = owner.get("pid")
    if pid == os.getpid():
        other = _living.get(str(owner.get("token")))
        return other is not None and other._running
    return isinstance(pid, int) and _exists(pid) and _started_at(pid) == owner.get("since")


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # owned by another user
    return True


def _started_at(pid: int) -> str | None:
    """Start time of a process, as Linux reports it. It distinguishes processes with a reused id."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return None
