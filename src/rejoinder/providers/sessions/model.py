"""WireModel: the common part of all vendors' realtime models."""

from __future__ import annotations

import asyncio
import weakref
from abc import abstractmethod
from typing import Any, Generic, Protocol, TypeVar

from rejoinder.llm.realtime import RealtimeCapabilities, RealtimeModel
from rejoinder.providers.sessions.options import checked_session_options
from rejoinder.providers.sessions.session import SessionOptions, WireSession
from rejoinder.transport.ws import WebSocketTransport

__all__ = ["WireModel", "open_websockets"]


class _Transport(Protocol):
    async def aclose(self) -> None: ...


TSession = TypeVar("TSession", bound=WireSession[Any])
TTransport = TypeVar("TTransport", bound=_Transport)


class WireModel(RealtimeModel, Generic[TSession, TTransport]):
    """Makes sessions over one transport, and closes them.

    Args:
        model: the provider's name of the model.
        capabilities: capabilities of the model with its settings.
        settings: the vendor's options, for sessions made from now on.
        options: deadlines and bounds of the sessions.
        transport: opens the connections, and stays open; by default one is made when needed.
    """

    def __init__(
        self,
        *,
        model: str,
        capabilities: RealtimeCapabilities,
        settings: dict[str, Any],
        options: SessionOptions,
        transport: TTransport | None,
    ) -> None:
        super().__init__(capabilities=capabilities)
        self._model = model
        self._settings = settings
        self._options = options
        self._given_transport = transport
        self._transport = transport
        self._sessions: weakref.WeakSet[TSession] = weakref.WeakSet()

    @property
    def model(self) -> str:
        return self._model

    @checked_session_options
    def session(self, *, turn_detection_disabled: bool = False) -> TSession:
        """A new session, which connects by itself. Needs a running event loop."""
        settings = dict(self._settings)
        if turn_detection_disabled:
            self._without_turn_detection(settings)
        session = self._new_session(settings)
        self._sessions.add(session)
        return session

    async def aclose(self) -> None:
        """Close the sessions and the connections."""
        await asyncio.gather(*(session.aclose() for session in list(self._sessions)))
        if self._transport is not None and self._given_transport is None:
            await self._transport.aclose()

    @abstractmethod
    def _new_session(self, settings: dict[str, Any]) -> TSession: ...

    @abstractmethod
    def _new_transport(self) -> TTransport: ...

    @abstractmethod
    def _without_turn_detection(self, settings: dict[str, Any]) -> None:
        """Change `settings` so that the application decides when the user has finished."""

    def _open_transport(self) -> TTransport:
        if self._transport is None:
            self._transport = self._new_transport()
        return self._transport

    def _change_settings(self, changes: dict[str, Any]) -> None:
        """Change options of this model and of its live sessions."""
        self._settings.update(changes)
        for session in list(self._sessions):
            session._change_settings(changes)


def open_websockets(http_session: Any) -> WebSocketTransport:
    """A transport over aiohttp. `http_session`: one of the caller's, which stays open."""
    from rejoinder.transport._aiohttp import AiohttpTransport
    from rejoinder.transport._aiohttp_ws import AiohttpWebSocketTransport

    return AiohttpWebSocketTransport(AiohttpTransport(http_session))
