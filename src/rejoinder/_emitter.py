"""EventEmitter: callbacks by event name.

It behaves like the emitter of ``livekit.rtc`` 1.2.1 (handlers run in order of registration, surplus
arguments are dropped), with three exceptions. A handler that raises never affects the emitting code.
`once` trims arguments like `on`. `off` finds a `once` handler by the original function.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

__all__ = ["EventEmitter"]

logger = logging.getLogger("rejoinder")

TEvent = TypeVar("TEvent")
F = TypeVar("F", bound=Callable[..., Any])


class EventEmitter(Generic[TEvent]):
    """Calls the callbacks registered for an event, in the order of their registration."""

    def __init__(self) -> None:
        # The key holds the callback and whether it was registered by `once`, because it may be both.
        self._events: dict[TEvent, dict[tuple[Callable[..., Any], bool], _Handler]] = {}

    @overload
    def on(self, event: TEvent, callback: F) -> F: ...
    @overload
    def on(self, event: TEvent, callback: None = None) -> Callable[[F], F]: ...
    def on(self, event: TEvent, callback: F | None = None) -> F | Callable[[F], F]:
        """Register `callback`. Without it, act as a decorator.

        Raises:
            ValueError: the callback is a coroutine function, which would never be awaited.
        """
        if callback is None:
            return lambda fn: self._register(event, fn, once=False)
        return self._register(event, callback, once=False)

    @overload
    def once(self, event: TEvent, callback: F) -> F: ...
    @overload
    def once(self, event: TEvent, callback: None = None) -> Callable[[F], F]: ...
    def once(self, event: TEvent, callback: F | None = None) -> F | Callable[[F], F]:
        """Like `on`, but only for the next event."""
        if callback is None:
            return lambda fn: self._register(event, fn, once=True)
        return self._register(event, callback, once=True)

    def off(self, event: TEvent, callback: Callable[..., Any]) -> None:
        """Remove `callback`. Unknown events and callbacks are ignored."""
        handlers = self._events.get(event)
        if handlers is not None:
            handlers.pop((callback, False), None)
            handlers.pop((callback, True), None)

    def emit(self, event: TEvent, *args: Any) -> None:
        """Call every handler of `event` that is registered now.

        Handlers that take fewer positional arguments get the first ones. If a handler raises, the
        exception is logged and the other handlers are still called.
        """
        self._emit_from(None, event, *args)

    def _follow(self, event: TEvent, callback: Callable[..., Any]) -> None:
        """Like `on`, for a callback whose first argument is the origin of the event."""
        self._events.setdefault(event, {})[callback, False] = _Handler(None, with_origin=True)

    def _is_heard(self, event: TEvent) -> bool:
        """Whether any handler of `event` is registered now."""
        return bool(self._events.get(event))

    def _emit_from(self, origin: object, event: TEvent, *args: Any) -> None:
        """Like `emit`, for events from one of several parts, such as one stream of an LLM."""
        handlers = self._events.get(event)
        if not handlers:
            return
        for key, handler in list(handlers.items()):
            callback, once = key
            if once:
                if handler.called:
                    continue  # an earlier handler has emitted the same event
                handler.called = True
                if handlers.get(key) is handler:
                    del handlers[key]
            try:
                if handler.with_origin:
                    callback(origin, *args)
                else:
                    callback(*(args if handler.arity is None else args[: handler.arity]))
            except (Exception, asyncio.CancelledError):
                # Reading the result of a cancelled task raises `CancelledError`. If it were passed on, it
                # would cancel the emitter.
                logger.exception("a handler of the event %r raised", event)

    def _register(self, event: TEvent, callback: F, *, once: bool) -> F:
        if inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(
            getattr(callback, "__call__", None)  # noqa: B004  a callable object may be async
        ):
            raise ValueError(
                f"handler of {event!r}: expected a plain function, got the coroutine function "
                f"{getattr(callback, '__qualname__', callback)!r}; start a task inside a plain one"
            )
        handler = _Handler(_positional_arity(callback))
        self._events.setdefault(event, {})[callback, once] = handler
        return callback


class _Handler:
    __slots__ = ("arity", "called", "with_origin")

    def __init__(self, arity: int | None, *, with_origin: bool = False) -> None:
        self.arity = arity
        """The number of positional arguments that it takes; ``None``: any number."""
        self.called = False
        self.with_origin = with_origin


def _positional_arity(callback: Callable[..., Any]) -> int | None:
    try:
        parameters = inspect.signature(callback).parameters.values()
    except (TypeError, ValueError):  # some builtins have no signature
        return None
    count = 0
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            return None
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            count += 1
    return count
