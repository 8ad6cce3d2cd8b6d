"""Assembles the tool calls of one reply in the Chat Completions dialect from fragments. Pure.

Servers number calls in many ways: no index, one index for all calls, no id, an id on each fragment, the
name on each fragment. A fragment belongs to the call of its index or id, unless that call is complete and
the fragment names a tool again. The work is linear in the size of the input.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from rejoinder import _stamps
from rejoinder.errors import WireError
from rejoinder.providers.answering.arguments import (
    Arguments,
    canonical,
    extends,
    is_object,
    warn_cut_call,
)
from rejoinder.providers.answering.chunks import Reply
from rejoinder.providers.answering.reasons import is_cut

__all__ = ["Calls"]

_CALL: Final = 512
"""Bytes of memory that a tool call takes beside its texts, before and after it is returned."""
_MAX_OPEN: Final = 1024
_MAX_CALLS: Final = 4096
_WAITING: Final = 64
"""Maximum number of calls with empty arguments that wait for more arguments."""


class _OpenCall:
    """A tool call whose arguments are still arriving."""

    __slots__ = ("arguments", "extra", "id", "index", "name")

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.arguments = Arguments()
        self.extra: dict[str, Any] | None = None


class Calls:
    """The calls of one reply.

    Attributes:
        were_cut: a call was dropped because the reply was cut within it.
    """

    __slots__ = ("_by_id", "_by_index", "_given", "_open", "_reply", "were_cut")

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._open: deque[_OpenCall] = deque()
        self._by_index: dict[int, _OpenCall] = {}
        self._by_id: dict[str, _OpenCall] = {}
        self._given: dict[str, tuple[str, str]] = {}  # returned calls by id
        self.were_cut = False

    def __bool__(self) -> bool:
        return bool(self._open or self._given)

    def fragment(
        self,
        index: int | None,
        call_id: str,
        name: str,
        arguments: str,
        extra: dict[str, Any] | None = None,
    ) -> None:
        """Take one fragment."""
        reply = self._reply
        if reply.failure is not None or not (name or arguments or call_id or extra):
            return
        call = self._call_of(index, call_id, name, arguments)
        if call is None:
            # Complete calls can be returned as soon as the next one begins.
            self._hand_out_first()
            call = _OpenCall(index)
            self._open.append(call)
            if index is not None:
                self._by_index[index] = call
            reply.keep(_CALL)
            if len(self._open) > _MAX_OPEN:
                reply.fail(
                    WireError(f"more than {_MAX_OPEN} tool calls of one reply are open at once")
                )
            elif len(self._given) > _MAX_CALLS:
                reply.fail(WireError(f"one reply holds more than {_MAX_CALLS} tool calls"))
        elif arguments and name and call_id == call.id and call.arguments:
            whole = call.arguments.whole()
            if whole is not None:
                # The last event repeats the call, or contains a longer snapshot of it.
                if arguments != whole and is_object(arguments):
                    call.arguments.replace(arguments)
                    reply.keep_text(arguments)
                    reply.output_count += 1
                return
        if call_id and not call.id:
            call.id = call_id
            self._by_id[call_id] = call
        if name and name != call.name:
            call.name += name
        is_output = call.arguments.add(arguments)
        if is_output or name or extra or not arguments:
            reply.output_count += 1
        if extra:
            call.extra = {**(call.extra or {}), **extra}
            reply.keep_value(extra)
        reply.keep_text(arguments)
        reply.keep(len(name))

    def finished(self, calls: Iterable[tuple[str, str, str]]) -> None:
        """Take the calls of a finished message: ids, names and arguments. Calls that already arrived
        in fragments are not repeated."""
        known = {(call.name, canonical(call.arguments.text())) for call in self._open}
        known.update((name, canonical(text)) for name, text in self._given.values())
        for call_id, name, arguments in calls:
            if (name, canonical(arguments)) not in known:
                self.fragment(None, call_id, name, arguments)

    def _call_of(
        self, index: int | None, call_id: str, name: str, arguments: str
    ) -> _OpenCall | None:
        """The open call that a fragment continues; ``None`` if it begins a new one."""
        if index is not None:
            found = self._by_index.get(index)
            if found is None or not name:
                return found
            if call_id and found.id and call_id != found.id:
                # The server reuses an index, or gives each fragment its own id.
                torn = name == found.name and found.arguments and found.arguments.whole() is None
                return found if torn else None
        elif call_id:
            found = self._by_id.get(call_id)
            if found is None or not name:
                return found
        else:
            return None if name or not self._open else self._open[-1]
        if found.name and (whole := found.arguments.whole()) is not None:
            if found.id == call_id and name == found.name and _continues(arguments, whole, call_id):
                return found
            return found if call_id and arguments in ("", whole) else None
        return found

    def _hand_out_first(self) -> None:
        """Return the complete calls, in order."""
        while self._open:
            call = self._open[0]
            whole = call.arguments.whole()
            if whole is None or not call.name:
                return
            if whole.strip() == "{}" and len(self._open) <= _WAITING:
                return  # an empty object may stand for arguments that follow
            self._forget(self._open.popleft())
            self._hand_out(call, whole)

    def hand_out(self, reason: str | None) -> None:
        """Return all calls; the reply ended for `reason`."""
        while self._open:
            call = self._open.popleft()
            self._forget(call)
            arguments = call.arguments.text()
            if not call.name and not arguments.strip():
                self._reply.skipped += 1
            elif is_cut(reason) and (not is_object(arguments) or self._may_be_opening(arguments)):
                self.were_cut = True
                warn_cut_call(call.name, reason)
            else:
                self._hand_out(call, arguments)

    def _may_be_opening(self, arguments: str) -> bool:
        """Whether the last call of a cut reply may lack its arguments: servers that stream decoded
        objects begin with an empty one."""
        return not self._open and arguments.strip() == "{}"

    def _forget(self, call: _OpenCall) -> None:
        if call.index is not None and self._by_index.get(call.index) is call:
            del self._by_index[call.index]
        if self._by_id.get(call.id) is call:
            del self._by_id[call.id]

    def _hand_out(self, call: _OpenCall, arguments: str) -> None:
        call_id = call.id
        before = self._given.get(call_id)
        if call_id and before == (call.name, arguments):
            self._reply.skipped += 1  # the last event repeats a returned call
            return
        if not call_id or before is not None:
            # Two calls with one id could not be answered separately.
            call_id = _stamps.new_id("call_")
        self._given[call_id] = (call.name, arguments)
        self._reply.call(call_id, call.name, arguments, call.extra)


def _continues(arguments: str, whole: str, call_id: str) -> bool:
    """Whether `arguments` are a later snapshot of the arguments `whole`."""
    if not is_object(arguments):
        return False
    return whole.strip() == "{}" or (call_id != "" and extends(arguments, whole))
