"""OpenAI's Live API: full-duplex speech models (``gpt-live-*``) on OpenAI and Azure.

    from rejoinder.providers.openai import live

    model = live.GPTLiveModel(voice="marin")
    session = model.session()

The speech model converses; it delegates tasks to a backend model of the service
(``delegation="responses"``), or to the application (``delegation="client"``, or a
`rejoinder.delegation.Delegate`, which uses any `LLM` for them).

Names and options are those of LiveKit Agents 1.8. `DuplexModel` and `DuplexSession` are other names
of `GPTLiveModel` and `GPTLiveSession`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict

from rejoinder import _stamps
from rejoinder._aio import Chan
from rejoinder._core import jsontext
from rejoinder._core.items import ChatItem, ChatMessage
from rejoinder._core.realtime import messages as m
from rejoinder._core.realtime.frames import read_frame
from rejoinder._foreign import method
from rejoinder._options import FLAG, NAME, SECONDS, STRING, Rule, checked, mapping
from rejoinder._sections import explained
from rejoinder.errors import ConfigurationError
from rejoinder.llm.duplex import (
    Delegate,
    DelegatedTasks,
    DuplexAudioFrame,
    DuplexCapabilities,
    DuplexOutputTranscriptDelta,
)
from rejoinder.llm.duplex import DuplexModel as _BaseModel
from rejoinder.llm.duplex import DuplexSession as _BaseSession
from rejoinder.llm.realtime import RealtimeError
from rejoinder.media import AudioFrame
from rejoinder.providers.asking.checks import environment, or_none
from rejoinder.providers.openai.access import Access, checked_url
from rejoinder.providers.openai.live_format import SAMPLE_RATE
from rejoinder.providers.openai.live_wire import OpenAILiveProtocol, Told
from rejoinder.providers.openai.realtime import OBJECT, describe_tools, plain
from rejoinder.providers.openai.realtime_address import plain_server
from rejoinder.providers.openai.realtime_dialects import MODELS, facts_of
from rejoinder.providers.openai.realtime_dialing import dial
from rejoinder.providers.sessions.link import Link
from rejoinder.providers.sessions.model import WireModel, open_websockets
from rejoinder.providers.sessions.options import SESSION_RULES, checked_session_options
from rejoinder.providers.sessions.session import SessionOptions, WireSession
from rejoinder.transport.ws import WebSocket, WebSocketTransport
from rejoinder.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectOptions,
    NotGivenOr,
    is_given,
)

__all__ = [
    "DuplexModel",
    "DuplexSession",
    "GPTLiveDelegation",
    "GPTLiveModel",
    "GPTLiveSession",
    "GPTLiveVoices",
    "ResponsesDelegationOptions",
]

logger = logging.getLogger("rejoinder")

DEFAULT_MODEL: Final = "gpt-live-1"
DEFAULT_VOICE: Final = "marin"
DEFAULT_BACKEND_MODEL: Final = "gpt-5.6-luna"
"""The default of LiveKit Agents 1.8."""
GPTLiveVoices = Literal["beacon", "cedar", "cinder", "marin", "stone", "vesper"]
"""The voices that LiveKit Agents 1.8 names; the service has more."""

_PATH: Final = "live/sessions"
_UNSENT: Final = 64
"""Texts kept while there is no connection."""
_UNREAD: Final = 1500
"""Maximum pieces of sound kept for a slow reader of `audio_stream`; the oldest are dropped."""

_Events = Literal[
    "delegation_created",
    "function_call",
    "openai_client_event_queued",
    "openai_server_event_received",
    "transcript_delta",
]


class ResponsesDelegationOptions(TypedDict, total=False):
    """The backend model of ``delegation="responses"``. A key that is missing is not sent."""

    model: str
    """Default ``gpt-5.6-luna``. On Azure the name of a deployment, and required."""
    instructions: str
    """Instructions for the backend model; those of the session are for the speech model."""
    tool_choice: Any
    parallel_tool_calls: bool
    reasoning: Mapping[str, Any]
    """For example ``{"effort": "medium"}``."""
    text: Mapping[str, Any]
    """For example ``{"verbosity": "low"}``."""
    service_tier: str
    max_output_tokens: int


@dataclass
class GPTLiveDelegation:
    """``"delegation_created"``: the model delegates a task to the application.

    The event does not describe the task; the user's request in the conversation does. Answer it with
    `GPTLiveSession.append_commentary` and this id.
    """

    id: str
    pending_transcript: str
    """The user's speech in the current turn, which is not in the conversation yet."""


def _delegates(value: object) -> bool:
    if isinstance(value, type):
        return False  # the class itself
    return isinstance(value, str) or method(value, "attach") is not None


_VOICE: Final = Rule(
    "the name of a voice or a dict like {'id': ...}",
    lambda value: STRING.type_fits(value) or mapping().type_fits(value),
    lambda value: bool(value) and (STRING.type_fits(value) or mapping().value_fits(value)),
)
_RULES: Final[Mapping[str, Rule]] = {
    **SESSION_RULES,
    "acknowledgement_delay": Rule(
        "seconds of at least 0",
        lambda value: isinstance(value, int | float) and not isinstance(value, bool),
        lambda seconds: seconds >= 0,
    ).optional,
    "delegation": Rule(
        "'responses', 'client' or a Delegate, such as Delegate(llm)",
        _delegates,
        lambda value: not isinstance(value, str) or value in ("responses", "client"),
    ),
    "event": OBJECT,
    "max_session_duration": SECONDS.optional,
    "responses_options": mapping().optional,
    "safety_identifier": NAME.optional,
    "service_tier": NAME.optional,
    "store": FLAG.optional,
    "voice": _VOICE,
}
_checked: Final = checked(**_RULES)


class GPTLiveModel(WireModel["GPTLiveSession", WebSocketTransport], _BaseModel):
    """A full-duplex speech model of OpenAI.

    Args:
        model: name of the model; ignored on Azure, which uses the deployment.
        voice: name of the voice, or ``{"id": ...}``.
        delegation: the receiver of the tasks that the model delegates. ``"responses"``: a backend
            model of the service, which may call tools. ``"client"``: the application, by the event
            ``"delegation_created"``. A `rejoinder.delegation.Delegate`: any `LLM`.
        responses_options: options of the backend model.
        service_tier: header ``OpenAI-Service-Tier`` of the connection.
        api_key: default ``OPENAI_API_KEY``, on Azure ``AZURE_OPENAI_API_KEY``.
        base_url: address of another server; ``http`` and ``ws`` mean a socket without TLS. Default:
            ``OPENAI_BASE_URL``, else OpenAI's; on Azure the endpoint, by default
            ``AZURE_OPENAI_ENDPOINT``.
        http_session: your own ``aiohttp.ClientSession``; it is not closed here.
        max_session_duration: age in seconds at which a session is replaced, between two turns; by
            default a minute before the end that the service names. ``None``: never earlier.
        conn_options: deadline and retries of connecting.
        azure_deployment, entra_token: make it a model on Azure; see `with_azure`.
        acknowledgement_delay: seconds that the model waits before it acknowledges a delegated task
            aloud.
        store: the service keeps the session.
        safety_identifier: a stable name of the user, for the abuse detection of the service.
        reply_timeout: seconds from the request for a reply to its beginning.
        silence_timeout: seconds without any event after which a service counts as dead.
        transport: opens the sockets; for tests.

    Raises:
        ConfigurationError: the key is missing, the address is not a valid URL, the model uses
            another API, or an option has a wrong type or value.
    """

    @_checked
    def __init__(
        self,
        *,
        model: str = DEFAULT_MODEL,
        voice: GPTLiveVoices | str | Mapping[str, Any] = DEFAULT_VOICE,
        delegation: Literal["responses", "client"] | Delegate = "responses",
        responses_options: NotGivenOr[ResponsesDelegationOptions] = NOT_GIVEN,
        service_tier: NotGivenOr[str] = NOT_GIVEN,
        api_key: str | None = None,
        base_url: NotGivenOr[str] = NOT_GIVEN,
        http_session: Any = None,
        max_session_duration: NotGivenOr[float | None] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        azure_deployment: str | None = None,
        entra_token: str | None = None,
        acknowledgement_delay: NotGivenOr[float] = NOT_GIVEN,
        store: NotGivenOr[bool] = NOT_GIVEN,
        safety_identifier: NotGivenOr[str] = NOT_GIVEN,
        reply_timeout: float = 10.0,
        silence_timeout: float = 20.0,
        transport: WebSocketTransport | None = None,
    ) -> None:
        owner = delegation if isinstance(delegation, str) else "client"
        responses: dict[str, Any] = dict(or_none(responses_options) or {})
        if responses and owner != "responses":
            raise ConfigurationError(
                "GPTLiveModel: responses_options are for delegation='responses'; a Delegate has its "
                "own options"
            )
        azure = bool(azure_deployment or entra_token)
        if azure:
            self._access = _azure_access(azure_deployment, base_url, api_key, entra_token)
            model = azure_deployment or model
            if owner == "responses" and not responses.get("model"):
                raise ConfigurationError(
                    "GPTLiveModel: Azure needs responses_options={'model': ...}, the name of a "
                    "deployment of a Responses model; or use delegation='client'"
                )
        else:
            _refuse_other_models(model)
            self._access = _live_access(plain_server(model, base_url, api_key, "ga").access)
        responses.setdefault("model", DEFAULT_BACKEND_MODEL)
        settings: dict[str, Any] = {"voice": voice}
        if owner == "responses":
            settings["responses"] = responses
        further = {
            "acknowledgement_delay": or_none(acknowledgement_delay),
            "store": or_none(store),
            "safety_identifier": or_none(safety_identifier),
        }
        settings |= {name: value for name, value in further.items() if value is not None}
        super().__init__(
            model=model,
            capabilities=DuplexCapabilities(
                user_transcription=True,
                auto_tool_reply_generation=True,
                mutable_chat_context=True,
                mutable_instructions=True,
                mutable_tools=True,
            ),
            settings=settings,
            options=SessionOptions(
                conn_options=conn_options,
                reply_timeout=reply_timeout,
                silence=silence_timeout,
                max_duration=or_none(max_session_duration),
            ),
            transport=transport,
        )
        self._owner = owner
        self._delegate = None if isinstance(delegation, str) else delegation
        self._headers = (
            {"OpenAI-Service-Tier": service_tier} if is_given(service_tier) and service_tier else {}
        )
        self._http_session = http_session

    @classmethod
    @_checked
    def with_azure(
        cls,
        *,
        azure_deployment: str,
        azure_endpoint: str | None = None,
        api_key: str | None = None,
        entra_token: str | None = None,
        base_url: str | None = None,
        voice: GPTLiveVoices | str | Mapping[str, Any] = DEFAULT_VOICE,
        delegation: Literal["responses", "client"] | Delegate = "responses",
        responses_options: NotGivenOr[ResponsesDelegationOptions] = NOT_GIVEN,
        service_tier: NotGivenOr[str] = NOT_GIVEN,
        http_session: Any = None,
        max_session_duration: NotGivenOr[float | None] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> GPTLiveModel:
        """A model on Azure OpenAI.

        Raises:
            ConfigurationError: no key or no endpoint, both `base_url` and `azure_endpoint`, or no
                backend model for ``delegation="responses"``.
        """
        if base_url is not None and azure_endpoint is not None:
            raise ConfigurationError("with_azure: pass base_url= or azure_endpoint=, not both")
        address = base_url or azure_endpoint
        return cls(
            voice=voice,
            delegation=delegation,
            responses_options=responses_options,
            service_tier=service_tier,
            api_key=api_key,
            base_url=address if address is not None else NOT_GIVEN,
            http_session=http_session,
            max_session_duration=max_session_duration,
            conn_options=conn_options,
            azure_deployment=azure_deployment,
            entra_token=entra_token,
        )

    @property
    def provider(self) -> str:
        return checked_url(self._access.base_url).netloc

    def _new_session(self, settings: dict[str, Any]) -> GPTLiveSession:
        return GPTLiveSession(self, settings)

    def _without_turn_detection(self, settings: dict[str, Any]) -> None:
        """The model itself detects turns, always."""

    def _new_transport(self) -> WebSocketTransport:
        return open_websockets(self._http_session)

    async def _dial(self) -> WebSocket:
        """Open a socket for one connection.

        Raises:
            APIError: no connection.
        """
        return await dial(
            self._open_transport(),
            self._access,
            _PATH,
            headers=self._headers,
            connect_timeout=self._options.conn_options.connect_timeout,
        )


class GPTLiveSession(WireSession[_Events], _BaseSession[_Events]):
    """A session of the Live API.

    The events of `DuplexSession`, and ``"delegation_created"`` (`GPTLiveDelegation`),
    ``"openai_server_event_received"`` and ``"openai_client_event_queued"`` (dicts).
    """

    _frame_event = "openai_server_event_received"

    def __init__(self, model: GPTLiveModel, settings: dict[str, Any]) -> None:
        self._live_model = model
        self._stream: Chan[DuplexAudioFrame] | None = None
        self._odd = b""
        self._muted = False
        self._unsent: deque[tuple[Told, str]] = deque(maxlen=_UNSENT)
        self._tasks: DelegatedTasks | None = None
        super().__init__(
            model,
            dial=model._dial,
            make_protocol=lambda: OpenAILiveProtocol(model.model, model._owner),
            describe_tools=describe_tools,
            options=model._options,
            settings=settings,
        )
        delegate = model._delegate
        if delegate is not None:
            self._tasks = delegate.attach(self)

    # -- messages to the model ------------------------------------------------------------------

    @property
    def session_id(self) -> str | None:
        """The service's id of the session; ``None`` while there is no connection."""
        found = self._current()
        return None if found is None else found[1].session_id

    @checked(text=STRING, delegation_id=NAME.optional)
    def append_instructions(self, text: str, *, delegation_id: str | None = None) -> None:
        """Give the model a rule that applies from now on, even on later connections."""
        if delegation_id is None and text.strip() and self._over is None:
            rule = ChatMessage(id=_stamps.new_id("item_"), role="system", content=[text])
            items = self._conversation.to_chat_ctx().items
            previous = items[-1].id if items else None
            self._conversation.create(self._connections.link, previous, rule)
            return
        self._tell_model("instructions", text, delegation_id)

    @checked(text=STRING, delegation_id=NAME.optional)
    def append_thinking(self, text: str, *, delegation_id: str | None = None) -> None:
        """Give the model information that it does not speak about."""
        self._tell_model("thinking", text, delegation_id)

    @checked(text=STRING, delegation_id=NAME.optional)
    def append_commentary(self, text: str, *, delegation_id: str | None = None) -> None:
        """Give the model a text to pass on to the user in its own words. With `delegation_id`, the text
        answers that task; if the connection of the task is gone, it is sent without the id."""
        self._tell_model("commentary", text, delegation_id)

    @checked()
    def record(self, items: Iterable[ChatItem]) -> None:
        """Add items to the conversation without sending them to the model, for example the calls of
        the `LLM` that runs its tasks. Later connections begin with them."""
        link = self._connections.link
        for item in items:
            self._conversation.insert(None, item, at_tail=True)
            if link is not None:
                link.told([item.id])

    @checked(delegation_id=NAME)
    def cancel_delegation(self, delegation_id: str) -> None:
        """Stop a task of a `Delegate`, without an answer. Unknown ids are ignored."""
        if self._tasks is not None:
            self._tasks.cancel(delegation_id)

    @checked(delegation_id=NAME)
    def delegation_over(self, delegation_id: str) -> None:
        """A task needs no further answer, so requested replies no longer wait for it."""
        self._replies.unblocked(delegation_id, self._loop.time())
        if self._over is None:
            self._timer.arm()

    def mute_input(self) -> None:
        """The model hears nothing from now on."""
        self._mute(muted=True)

    def unmute_input(self) -> None:
        """The model hears the user again."""
        self._mute(muted=False)

    @_checked
    def send_event(self, event: Any) -> None:
        """Send an event of your own, a dict or a model of the ``openai`` package."""
        fields: dict[str, Any] = plain(event)
        self.emit("openai_client_event_queued", fields)
        link = self._connections.link
        if link is not None:
            link.send_frames((jsontext.encode(fields).decode(),))

    def _mute(self, *, muted: bool) -> None:
        self._muted = muted
        found = self._current()
        if found is not None:
            found[0].send_frames(found[1].mute(muted=muted))

    def _tell_model(self, how: Told, text: str, delegation_id: str | None) -> None:
        if self._over is not None or not text.strip():
            return
        if how == "commentary" and delegation_id is not None:
            self.delegation_over(delegation_id)
        found = self._current()
        if found is None:
            self._unsent.append((how, text))
            return
        link, protocol = found
        if delegation_id not in protocol.delegations:
            delegation_id = None
        link.send_frames(protocol.tell(how, text, delegation_id=delegation_id, keep=True))

    def _current(self) -> tuple[Link, OpenAILiveProtocol] | None:
        link = self._connections.link
        if link is None or not isinstance(link.protocol, OpenAILiveProtocol):
            return None
        return link, link.protocol

    # -- the session -----------------------------------------------------------------------------

    @_checked
    def update_options(
        self,
        *,
        tool_choice: NotGivenOr[Any] = NOT_GIVEN,
        responses_options: NotGivenOr[ResponsesDelegationOptions] = NOT_GIVEN,
    ) -> None:
        """Change the options of the backend model, for the tasks to come."""
        changes: dict[str, Any] = {}
        if is_given(tool_choice):
            changes["tool_choice"] = tool_choice
        if is_given(responses_options) and responses_options is not None:
            known: Mapping[str, Any] = self._settings.options.get("responses") or {}
            changes["responses"] = {**known, **responses_options}
        self._change_settings(changes)

    def commit_audio(self) -> None:
        """Does nothing: the model hears all sound at once."""

    @checked_session_options
    def push_video(self, frame: Any) -> None:
        """Does nothing: the model sees no video."""

    @property
    def audio_stream(self) -> AsyncIterator[DuplexAudioFrame]:
        """The sound of the model from now on, including silence. For one reader; if it is more than
        half a minute late, the oldest sound is dropped."""
        if self._stream is None:
            self._stream = Chan()
            if self._over is not None:
                self._stream.close()
        return self._stream

    @property
    def working(self) -> bool:
        found = self._current()
        backend = found is not None and not found[1].settled
        return super().working or backend or bool(self._tasks and self._tasks.running)

    def _between_turns(self) -> bool:
        # A task can be answered by its id only on the connection that delegated it.
        return super()._between_turns() and (self._tasks is None or not self._tasks.running)

    def installed(self, link: Link, *, again: bool) -> None:
        super().installed(link, again=again)
        if self._muted:
            self._mute(muted=True)
        unsent, self._unsent = self._unsent, deque(maxlen=_UNSENT)
        for how, text in unsent:
            self._tell_model(how, text, None)

    def lost(self, link: Link) -> None:
        if isinstance(link.protocol, OpenAILiveProtocol):
            self._unsent.extend(link.protocol.unconfirmed.values())
        super().lost(link)

    def saw(self, frame: m.Frame) -> None:
        super().saw(frame)
        if "transcript_delta" not in self._events:
            return
        fields = read_frame(frame) or {}
        if fields.get("type") == "session.output_transcript.delta":
            start, end = fields.get("start_ms"), fields.get("end_ms")
            text = jsontext.as_text(fields.get("delta"))
            told = DuplexOutputTranscriptDelta(
                text,
                start if isinstance(start, int) else None,
                end if isinstance(end, int) else None,
            )
            if text:
                self.emit("transcript_delta", told)

    def received(self, link: Link, event: m.Event) -> None:
        in_use = link is self._connections.link
        if isinstance(event, m.SoundMade) and not in_use:
            return  # a connection in preparation sends silence all the time
        if isinstance(event, m.ToolCalled) and in_use and not self._calls.knows(event.call.call_id):
            super().received(link, event)
            if event.call in self._calls.open:
                self.emit("function_call", event.call)
            return
        super().received(link, event)
        if not in_use:
            return
        if isinstance(event, m.SoundMade):
            self._sounded(event.data)
        elif isinstance(event, m.Delegated):
            if "delegation_created" not in self._events:
                logger.warning(
                    "%s: the model has delegated a task, and no handler of "
                    "'delegation_created' handles it; pass delegation=Delegate(llm)",
                    self._live_model.label,
                )
            self.emit("delegation_created", GPTLiveDelegation(event.delegation_id, event.words))

    def _sounded(self, data: bytes) -> None:
        stream = self._stream
        if stream is None or stream.closed:
            return
        data = self._odd + data
        whole = len(data) & ~1
        data, self._odd = data[:whole], data[whole:]
        if not data:
            return
        if len(stream) >= _UNREAD:
            stream.recv_nowait()
        stream.send_nowait(DuplexAudioFrame(AudioFrame(data, SAMPLE_RATE, 1, len(data) // 2)))

    async def aclose(self) -> None:
        """End the session, its connections and its tasks, within about a second. Never raises."""
        await super().aclose()
        if self._tasks is not None:
            await self._tasks.aclose()

    def _finish(self, why: RealtimeError) -> None:
        super()._finish(why)
        if self._tasks is not None:
            self._tasks.stop()
        self._unsent.clear()
        if self._stream is not None:
            self._stream.close()


DuplexModel = GPTLiveModel
DuplexSession = GPTLiveSession


# -- addresses -----------------------------------------------------------------------------------


def _refuse_other_models(model: str) -> None:
    """Raises:
    ConfigurationError: the model is known to use another API.
    """
    facts = facts_of(model)
    if model.startswith("gpt-live") or facts not in MODELS.values():
        return
    hint = facts.hint or "it speaks the Realtime API; use openai.realtime.RealtimeModel"
    raise ConfigurationError(f"GPTLiveModel: model {model!r} cannot be used: {hint}")


def _live_access(access: Access) -> Access:
    """The address without a final ``/live/sessions``, which is appended when a session connects."""
    path = checked_url(access.base_url).path.rstrip("/")
    if not path.endswith(f"/{_PATH}"):
        return access
    url = access.base_url.replace(f"/{_PATH}", "", 1)
    return Access(url, access.key, access.key_header, access.headers, access.query)


def _azure_access(
    deployment: str | None,
    base_url: NotGivenOr[str],
    api_key: str | None,
    entra_token: str | None,
) -> Access:
    """Raises:
    ConfigurationError: the deployment, the endpoint or the credentials are missing.
    """
    if not deployment:
        raise ConfigurationError("GPTLiveModel: Azure needs azure_deployment, the deployed model")
    if api_key and entra_token:
        raise ConfigurationError("GPTLiveModel: pass api_key= or entra_token=, not both")
    url = or_none(base_url) or environment("AZURE_OPENAI_ENDPOINT")
    if not url:
        raise ConfigurationError(
            "GPTLiveModel: no Azure endpoint; pass base_url= or set AZURE_OPENAI_ENDPOINT"
        )
    key = entra_token or api_key or environment("AZURE_OPENAI_API_KEY")
    if not key:
        raise ConfigurationError(
            explained(
                "GPTLiveModel: no Azure credentials; pass api_key= or entra_token=, or set "
                "AZURE_OPENAI_API_KEY",
                "no credentials",
            )
        )
    scheme, mark, rest = str(url).partition("://")
    url = f"{ {'ws': 'http', 'wss': 'https'}.get(scheme.lower(), scheme) }{mark}{rest}".rstrip("/")
    path = checked_url(url).path
    if path in ("", "/"):
        url += "/openai/v1"
    elif path == "/openai":
        url += "/v1"
    # Azure answers a Bearer key with a redirect.
    header = "Authorization" if entra_token else "api-key"
    return _live_access(Access(url, key=key, key_header=header))
