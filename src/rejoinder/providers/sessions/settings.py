"""The settings of a session (instructions, tools, options) and which of them are confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from rejoinder import _aio, _stamps
from rejoinder._core.realtime import messages as m
from rejoinder.errors import APIError
from rejoinder.llm.realtime import RealtimeError
from rejoinder.llm.tool_context import ToolContext

__all__ = ["Settings"]


class _State(msgspec.Struct):
    instructions: str | None
    tool_ctx: ToolContext
    tools: Sequence[dict[str, Any]] | None


class _Update(msgspec.Struct):
    """A change that the service has not confirmed."""

    command: m.UpdateSession
    before: _State
    options_before: dict[str, Any]
    done: asyncio.Future[None]


class Settings:
    """The settings in force, for this connection and every later one.

    Args:
        options: the vendor's options at the beginning.
        instructions: the instructions of the model, if any.

    Attributes:
        version: grows with each change.
    """

    def __init__(self, options: Mapping[str, Any], instructions: str | None = None) -> None:
        self.options = dict(options)
        self.version = 0
        self._state = _State(instructions, ToolContext.empty(), None)
        self._open: dict[str, _Update] = {}

    @property
    def instructions(self) -> str | None:
        return self._state.instructions

    @property
    def tools(self) -> Sequence[dict[str, Any]] | None:
        """The tools as the service received them."""
        return self._state.tools

    @property
    def tool_ctx(self) -> ToolContext:
        return self._state.tool_ctx

    @tool_ctx.setter
    def tool_ctx(self, tool_ctx: ToolContext) -> None:
        self._state.tool_ctx = tool_ctx

    def now(self, *, history: bool) -> m.UpdateSession:
        """All settings, for a new connection. `history`: a history will follow."""
        return m.UpdateSession(
            _stamps.new_id("session_update_"),
            instructions=self._state.instructions,
            tools=self._state.tools,
            options=dict(self.options),
            history=history,
        )

    def change(
        self,
        *,
        instructions: str | None = None,
        tools: tuple[ToolContext, Sequence[dict[str, Any]]] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> m.UpdateSession:
        """Change the given settings. Return the command for the service. `refused` undoes the
        change."""
        before = self._state
        changed = dict(options or {})
        known = {name: self.options[name] for name in changed if name in self.options}
        tool_ctx, specs = tools or (before.tool_ctx, before.tools)
        self._state = _State(
            before.instructions if instructions is None else instructions, tool_ctx, specs
        )
        self.options.update(changed)
        self.version += 1
        command = m.UpdateSession(
            _stamps.new_id("session_update_"),
            instructions=instructions,
            tools=None if tools is None else specs,
            options=changed or None,
        )
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open[command.ref] = _Update(command, before, known, done)
        return command

    # -- the service's answers -------------------------------------------------------------------

    async def confirmed(self, command: m.UpdateSession, *, within: float) -> None:
        """Wait until the service has confirmed a change.

        Raises:
            RealtimeError: it refused the change, which is undone, or did not confirm in time.
        """
        update = self._open.get(command.ref)
        if update is None:
            return
        try:
            async with _aio.within(within):
                await asyncio.shield(update.done)
        except TimeoutError:
            raise RealtimeError(
                f"the service did not confirm the change of the session within {within:g} s",
                code="timeout",
            ) from None

    def applied(self, ref: str) -> None:
        """The service confirmed a change; or the next connection begins with it."""
        update = self._open.pop(ref, None)
        if update is not None and not update.done.done():
            update.done.set_result(None)

    def refused(self, ref: str, error: APIError, code: str | None) -> bool:
        """The service refused a change. Undo it, or no later connection would be accepted. Return
        whether `ref` names a change."""
        update = self._open.pop(ref, None)
        if update is None:
            return False
        command, state = update.command, self._state
        if command.instructions is not None and state.instructions == command.instructions:
            state.instructions = update.before.instructions
        if command.tools is not None and state.tools is command.tools:
            state.tool_ctx, state.tools = update.before.tool_ctx, update.before.tools
        for name, value in (command.options or {}).items():
            if self.options.get(name) is not value:
                continue  # changed again since
            if name in update.options_before:
                self.options[name] = update.options_before[name]
            else:
                del self.options[name]
        self.version += 1
        if not update.done.done():
            update.done.set_exception(
                RealtimeError(f"the service refused the change: {error.message}", code=code)
            )
            update.done.exception()  # mark as retrieved, or asyncio warns
        return True

    def settle(self, why: RealtimeError | None = None) -> None:
        """The connection is gone, and the next one begins with all pending changes: confirm them.
        `why`: the session is over, so they fail."""
        for ref, update in list(self._open.items()):
            if why is not None and not update.done.done():
                update.done.set_exception(RealtimeError(str(why), code=why.code))
                update.done.exception()  # mark as retrieved, or asyncio warns
            self.applied(ref)
