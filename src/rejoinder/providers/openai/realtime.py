"""OpenAI's realtime models, and the servers that speak the same protocol: Azure, xAI, Voice Live.

    from rejoinder.providers.openai import realtime

    model = realtime.RealtimeModel(voice="marin")
    session = model.session()

Names, options and defaults are those of LiveKit Agents 1.2.17, except the default model and
transcriber: OpenAI switches those of that version off in January and February 2027.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

from rejoinder._foreign import dump, dumps
from rejoinder._options import COUNT, NAME, NUMBER, Rule, checked
from rejoinder._sections import explained
from rejoinder.errors import ConfigurationError
from rejoinder.llm.realtime import RealtimeCapabilities
from rejoinder.llm.tool_context import ProviderTool, ToolContext, is_raw_function_tool
from rejoinder.llm.utils import build_legacy_openai_schema
from rejoinder.providers.asking.checks import environment, or_none
from rejoinder.providers.openai.access import checked_url
from rejoinder.providers.openai.realtime_address import Server, azure_server, plain_server
from rejoinder.providers.openai.realtime_dialects import DIALECTS, facts_of
from rejoinder.providers.openai.realtime_dialing import dial
from rejoinder.providers.openai.realtime_wire import OpenAIRealtimeProtocol
from rejoinder.providers.sessions.model import WireModel, open_websockets
from rejoinder.providers.sessions.options import SESSION_RULES
from rejoinder.providers.sessions.session import SessionOptions, WireSession
from rejoinder.transport.ws import WebSocket, WebSocketTransport
from rejoinder.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectOptions,
    NotGivenOr,
    is_given,
)

logger = logging.getLogger("rejoinder")

__all__ = ["RealtimeModel", "RealtimeModelBeta", "RealtimeSession", "RealtimeSessionBeta"]

DEFAULT_MODEL: Final = "gpt-realtime-2.1"
DEFAULT_TRANSCRIPTION: Final[Mapping[str, Any]] = {"model": "gpt-transcribe"}
DEFAULT_TURN_DETECTION: Final[Mapping[str, Any]] = {
    "type": "semantic_vad",
    "create_response": True,
    "eagerness": "medium",
    "interrupt_response": True,
}
BETA_TURN_DETECTION: Final[Mapping[str, Any]] = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 200,
    "create_response": True,
    "interrupt_response": True,
}
_MAX_DURATION: Final = 1200.0

_ExtraEvents = Literal[
    "openai_server_event_received", "openai_client_event_queued", "tool_calls_cancelled"
]
_OPTIONS: Final = (
    "voice",
    "turn_detection",
    "tool_choice",
    "input_audio_transcription",
    "input_audio_noise_reduction",
    "max_response_output_tokens",
    "speed",
    "tracing",
    "temperature",
    "truncation",
    "reasoning",
    "parallel_tool_calls",
    "prompt",
)


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping) or dumps(value)


def _is_object_or_name(value: object) -> bool:
    return isinstance(value, str) or _is_object(value)


def _is_filled(value: object) -> bool:
    return not isinstance(value, str) or bool(value.strip())


def _is_limit(value: object) -> bool:
    return COUNT.type_fits(value) or isinstance(value, str)


def _is_in_range(value: object) -> bool:
    return value == "inf" if isinstance(value, str) else COUNT.value_fits(value)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _are_modalities(value: Sequence[object]) -> bool:
    return len(value) > 0 and all(entry in ("text", "audio") for entry in value)


OBJECT: Final = Rule("a dict or an object of the `openai` package", _is_object)
_OBJECT_OR_NAME: Final = Rule(
    "a string or a dict or an object of the `openai` package", _is_object_or_name, _is_filled
)
_RULES: Final[Mapping[str, Rule]] = {
    **SESSION_RULES,
    "event": OBJECT,
    "input_audio_noise_reduction": _OBJECT_OR_NAME.optional,
    "input_audio_transcription": OBJECT.optional,
    "max_response_output_tokens": Rule(
        "a whole number of at least 1 or 'inf'", _is_limit, _is_in_range
    ).optional,
    "modalities": Rule("a list of 'text' and 'audio'", _is_list, _are_modalities).optional,
    "prompt": OBJECT.optional,
    "reasoning": OBJECT.optional,
    "tracing": _OBJECT_OR_NAME.optional,
    "truncation": _OBJECT_OR_NAME.optional,
    "turn_detection": OBJECT.optional,
    "voice": _OBJECT_OR_NAME,
}
_checked: Final = checked(**_RULES)
_checked_azure: Final = checked(**_RULES | {"voice": NAME, "temperature": NUMBER})


class RealtimeModel(WireModel["RealtimeSession", WebSocketTransport]):
    """A speech-to-speech model of OpenAI or of a server that speaks its protocol.

    Args:
        model: name of the model.
        voice: name of the voice, or ``{"id": ...}``.
        modalities: output modalities; ``["text"]`` for text only.
        tool_choice: as in `generate_reply`, for the whole session.
        base_url: address of another server; ``http`` and ``ws`` mean a socket without TLS. Default:
            ``OPENAI_BASE_URL``, else OpenAI's.
        input_audio_transcription: settings of the transcriber; ``None`` turns it off.
        input_audio_noise_reduction: ``"near_field"``, ``"far_field"`` or the API's object.
        turn_detection: the API's object; ``None``: the caller commits the sound.
        speed: speed of the speech, 0.25 to 1.5.
        tracing: the API's value.
        api_key: default ``OPENAI_API_KEY``.
        http_session: your own ``aiohttp.ClientSession``; it is not closed here.
        azure_deployment, entra_token, api_version: use Azure; without `api_version`, its generally
            available API.
        max_session_duration: age in seconds at which a connection is replaced, between two turns;
            ``None``: never.
        conn_options: deadline and retries of connecting.
        temperature: ignored; the API no longer accepts it.
        truncation, reasoning, parallel_tool_calls, prompt: the API's values.
        reply_timeout: seconds from the request for a reply to its beginning.
        silence_timeout: seconds without any event after which a service counts as dead.
        dialect: ``"ga"``, ``"beta"``, ``"voice-live"`` or ``"xai"``; by default derived from the
            address.
        transport: opens the sockets; for tests.

    Raises:
        ConfigurationError: the key is missing, the address is not a valid URL, or the model uses
            another API.
    """

    @_checked
    def __init__(
        self,
        *,
        model: str = DEFAULT_MODEL,
        voice: Any = "marin",
        modalities: NotGivenOr[Sequence[Literal["text", "audio"]]] = NOT_GIVEN,
        tool_choice: NotGivenOr[Any] = NOT_GIVEN,
        base_url: NotGivenOr[str] = NOT_GIVEN,
        input_audio_transcription: NotGivenOr[Any] = NOT_GIVEN,
        input_audio_noise_reduction: NotGivenOr[Any] = NOT_GIVEN,
        turn_detection: NotGivenOr[Any] = NOT_GIVEN,
        speed: NotGivenOr[float] = NOT_GIVEN,
        tracing: NotGivenOr[Any] = NOT_GIVEN,
        api_key: str | None = None,
        http_session: Any = None,
        azure_deployment: str | None = None,
        entra_token: str | None = None,
        api_version: str | None = None,
        max_session_duration: NotGivenOr[float | None] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        temperature: NotGivenOr[float] = NOT_GIVEN,
        truncation: NotGivenOr[Any] = NOT_GIVEN,
        reasoning: NotGivenOr[Any] = NOT_GIVEN,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        prompt: NotGivenOr[Any] = NOT_GIVEN,
        reply_timeout: float = 10.0,
        silence_timeout: float = 20.0,
        dialect: str | None = None,
        transport: WebSocketTransport | None = None,
    ) -> None:
        if is_given(temperature):
            warnings.warn(
                "temperature has no effect on realtime models of the current API",
                DeprecationWarning,
                stacklevel=3,
            )
        facts = facts_of(model)
        if not facts.realtime:
            raise ConfigurationError(f"RealtimeModel: model {model!r} cannot be used: {facts.hint}")
        for name, value in (("reasoning", reasoning), ("parallel_tool_calls", parallel_tool_calls)):
            if is_given(value) and facts.reasons is False:
                raise ConfigurationError(
                    f"RealtimeModel: {model!r} does not accept {name}; omit it, or use "
                    f"{DEFAULT_MODEL!r}"
                )
        if facts.shut_down is not None:
            logger.warning(
                "the realtime model %r is switched off on %s; use %r",
                model,
                facts.shut_down,
                facts.successor,
            )
        azure = bool(azure_deployment or entra_token or api_version)
        self._server = (
            azure_server(azure_deployment or model, base_url, api_key, entra_token, api_version)
            if azure
            else plain_server(model, base_url, api_key, dialect)
        )
        given: dict[str, Any] = {
            "voice": voice,
            "modalities": list(or_none(modalities) or ("text", "audio")),
            "input_audio_transcription": _value(input_audio_transcription, DEFAULT_TRANSCRIPTION),
            "input_audio_noise_reduction": _noise(input_audio_noise_reduction),
            "turn_detection": _value(turn_detection, DEFAULT_TURN_DETECTION),
            "max_response_output_tokens": "inf",
            "tracing": _value(tracing, None),
        }
        for name, value in (
            ("tool_choice", tool_choice),
            ("speed", speed),
            ("truncation", truncation),
            ("reasoning", reasoning),
            ("parallel_tool_calls", parallel_tool_calls),
            ("prompt", prompt),
        ):
            if is_given(value):
                given[name] = plain(value)
        self._make(
            model=model,
            settings=given,
            http_session=http_session,
            transport=transport,
            options=SessionOptions(
                conn_options=conn_options,
                reply_timeout=reply_timeout,
                silence=silence_timeout,
                max_duration=max_session_duration
                if is_given(max_session_duration)
                else _MAX_DURATION,
            ),
        )

    def _make(
        self,
        *,
        model: str,
        settings: dict[str, Any],
        http_session: Any,
        transport: WebSocketTransport | None,
        options: SessionOptions,
    ) -> None:
        super().__init__(
            model=model,
            settings=settings,
            options=options,
            transport=transport,
            capabilities=RealtimeCapabilities(
                message_truncation=True,
                turn_detection=settings["turn_detection"] is not None,
                user_transcription=settings["input_audio_transcription"] is not None,
                auto_tool_reply_generation=False,
                audio_output="audio" in settings["modalities"],
                manual_function_calls=True,
                can_disable_turn_detection=True,
                mutable_chat_context=True,
                mutable_instructions=True,
                mutable_tools=True,
                per_response_tool_choice=True,
            ),
        )
        self._http_session = http_session

    @classmethod
    @_checked_azure
    def with_azure(
        cls,
        *,
        azure_deployment: str,
        azure_endpoint: str | None = None,
        api_version: str | None = None,
        api_key: str | None = None,
        entra_token: str | None = None,
        base_url: str | None = None,
        voice: str = "marin",
        modalities: NotGivenOr[Sequence[Literal["text", "audio"]]] = NOT_GIVEN,
        input_audio_transcription: NotGivenOr[Any] = NOT_GIVEN,
        input_audio_noise_reduction: Any = None,
        turn_detection: NotGivenOr[Any] = NOT_GIVEN,
        speed: NotGivenOr[float] = NOT_GIVEN,
        tracing: NotGivenOr[Any] = NOT_GIVEN,
        http_session: Any = None,
        temperature: float = 0.8,
    ) -> RealtimeModelBeta:
        """A model on Azure OpenAI through its preview API.

        Raises:
            ConfigurationError: no key, no version or no endpoint, or both `base_url` and
                `azure_endpoint`.
        """
        return RealtimeModelBeta.with_azure(
            azure_deployment=azure_deployment,
            azure_endpoint=azure_endpoint,
            api_version=api_version,
            api_key=api_key,
            entra_token=entra_token,
            base_url=base_url,
            voice=voice,
            modalities=modalities,
            input_audio_transcription=input_audio_transcription,
            input_audio_noise_reduction=input_audio_noise_reduction,
            turn_detection=turn_detection,
            speed=speed,
            tracing=tracing,
            http_session=http_session,
            temperature=temperature,
        )

    @property
    def provider(self) -> str:
        return checked_url(self._server.access.base_url).netloc

    @_checked
    def update_options(
        self,
        *,
        voice: NotGivenOr[Any] = NOT_GIVEN,
        turn_detection: NotGivenOr[Any] = NOT_GIVEN,
        tool_choice: NotGivenOr[Any] = NOT_GIVEN,
        input_audio_transcription: NotGivenOr[Any] = NOT_GIVEN,
        input_audio_noise_reduction: NotGivenOr[Any] = NOT_GIVEN,
        max_response_output_tokens: NotGivenOr[Any] = NOT_GIVEN,
        speed: NotGivenOr[float] = NOT_GIVEN,
        tracing: NotGivenOr[Any] = NOT_GIVEN,
        temperature: NotGivenOr[float] = NOT_GIVEN,
        truncation: NotGivenOr[Any] = NOT_GIVEN,
        reasoning: NotGivenOr[Any] = NOT_GIVEN,
    ) -> None:
        """Change options of this model and of its live sessions; only changes are sent."""
        self._change_settings(_changes(locals()))

    def _new_session(self, settings: dict[str, Any]) -> RealtimeSession:
        return RealtimeSession(self, settings)

    def _without_turn_detection(self, settings: dict[str, Any]) -> None:
        settings["turn_detection"] = None

    def _new_transport(self) -> WebSocketTransport:
        return open_websockets(self._http_session)

    async def _dial(self) -> WebSocket:
        """Open a socket for one connection; keys are resolved now.

        Raises:
            APIError: no connection.
        """
        server = self._server
        return await dial(
            self._open_transport(),
            server.access,
            server.path,
            query=server.query,
            headers={"OpenAI-Beta": "realtime=v1"} if server.beta_header else None,
            connect_timeout=self._options.conn_options.connect_timeout,
        )


class RealtimeModelBeta(RealtimeModel):
    """Like `RealtimeModel`, with the beta form of the protocol, which Azure's preview versions
    use."""

    @_checked
    def __init__(
        self,
        *,
        model: str = DEFAULT_MODEL,
        voice: Any = "alloy",
        modalities: NotGivenOr[Sequence[Literal["text", "audio"]]] = NOT_GIVEN,
        tool_choice: NotGivenOr[Any] = NOT_GIVEN,
        base_url: NotGivenOr[str] = NOT_GIVEN,
        input_audio_transcription: NotGivenOr[Any] = NOT_GIVEN,
        input_audio_noise_reduction: Any = None,
        turn_detection: NotGivenOr[Any] = NOT_GIVEN,
        temperature: NotGivenOr[float] = NOT_GIVEN,
        speed: NotGivenOr[float] = NOT_GIVEN,
        tracing: NotGivenOr[Any] = NOT_GIVEN,
        api_key: str | None = None,
        http_session: Any = None,
        azure_deployment: str | None = None,
        entra_token: str | None = None,
        api_version: str | None = None,
        max_session_duration: NotGivenOr[float | None] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        transport: WebSocketTransport | None = None,
    ) -> None:
        azure = bool(azure_deployment or entra_token or api_version)
        if azure:
            server = azure_server(
                azure_deployment or model, base_url, api_key, entra_token, api_version
            )
            self._server = Server(server.access, server.query, DIALECTS["beta"], server.path)
        else:
            server = plain_server(model, base_url, api_key, "beta")
            self._server = Server(
                server.access, server.query, server.dialect, server.path, beta_header=True
            )
        settings: dict[str, Any] = {
            "voice": voice,
            "modalities": list(or_none(modalities) or ("text", "audio")),
            "input_audio_transcription": _value(input_audio_transcription, DEFAULT_TRANSCRIPTION),
            "input_audio_noise_reduction": _noise(input_audio_noise_reduction),
            "turn_detection": _value(turn_detection, BETA_TURN_DETECTION),
            "temperature": temperature if is_given(temperature) else 0.8,
            "max_response_output_tokens": "inf",
        }
        for name, value in (("tool_choice", tool_choice), ("speed", speed), ("tracing", tracing)):
            if is_given(value):
                settings[name] = plain(value)
        self._make(
            model=model,
            settings=settings,
            http_session=http_session,
            transport=transport,
            options=SessionOptions(
                conn_options=conn_options,
                max_duration=max_session_duration
                if is_given(max_session_duration)
                else _MAX_DURATION,
            ),
        )

    @classmethod
    @_checked_azure
    def with_azure(
        cls,
        *,
        azure_deployment: str,
        azure_endpoint: str | None = None,
        api_version: str | None = None,
        api_key: str | None = None,
        entra_token: str | None = None,
        base_url: str | None = None,
        voice: str = "alloy",
        modalities: NotGivenOr[Sequence[Literal["text", "audio"]]] = NOT_GIVEN,
        input_audio_transcription: NotGivenOr[Any] = NOT_GIVEN,
        input_audio_noise_reduction: Any = None,
        turn_detection: NotGivenOr[Any] = NOT_GIVEN,
        speed: NotGivenOr[float] = NOT_GIVEN,
        tracing: NotGivenOr[Any] = NOT_GIVEN,
        http_session: Any = None,
        temperature: float = 0.8,
    ) -> RealtimeModelBeta:
        """A model on Azure OpenAI through its preview API; see `RealtimeModel.with_azure`."""
        key = api_key or environment("AZURE_OPENAI_API_KEY")
        if not (key or entra_token):
            raise ConfigurationError(
                explained(
                    "with_azure: no credentials; pass api_key= or entra_token=, or set "
                    "AZURE_OPENAI_API_KEY",
                    "no credentials",
                )
            )
        version = api_version or environment("OPENAI_API_VERSION")
        if not version:
            raise ConfigurationError(
                "with_azure: no API version; pass api_version= or set OPENAI_API_VERSION"
            )
        endpoint = azure_endpoint or environment("AZURE_OPENAI_ENDPOINT")
        if base_url is not None and azure_endpoint is not None:
            raise ConfigurationError("with_azure: pass base_url= or azure_endpoint=, not both")
        if base_url is None:
            if not endpoint:
                raise ConfigurationError(
                    "with_azure: no endpoint; pass azure_endpoint= or base_url=, or set "
                    "AZURE_OPENAI_ENDPOINT"
                )
            base_url = f"{endpoint.rstrip('/')}/openai"
        return RealtimeModelBeta(
            voice=voice,
            modalities=modalities,
            input_audio_transcription=input_audio_transcription
            if is_given(input_audio_transcription)
            else {"model": "whisper-1"},
            input_audio_noise_reduction=input_audio_noise_reduction,
            turn_detection=turn_detection,
            temperature=temperature,
            speed=speed,
            tracing=tracing,
            api_key=key,
            http_session=http_session,
            azure_deployment=azure_deployment,
            entra_token=entra_token,
            api_version=version,
            base_url=base_url,
        )

    def _new_session(self, settings: dict[str, Any]) -> RealtimeSession:
        return RealtimeSessionBeta(self, settings)


class RealtimeSession(WireSession[_ExtraEvents]):
    """One conversation. Emits ``"openai_server_event_received"`` with each event of the server and
    ``"openai_client_event_queued"`` with each one that `send_event` sends, as dicts."""

    _frame_event = "openai_server_event_received"

    def __init__(self, model: RealtimeModel, settings: dict[str, Any]) -> None:
        dialect = model._server.dialect
        self._openai_model = model
        super().__init__(
            model,
            dial=model._dial,
            make_protocol=lambda: OpenAIRealtimeProtocol(model.model, dialect),
            describe_tools=describe_tools,
            options=model._options,
            settings=settings,
        )

    @property
    def capabilities(self) -> RealtimeCapabilities:
        """The capabilities of this session with its current options."""
        options = self._settings.options
        return replace(
            super().capabilities,
            turn_detection=options["turn_detection"] is not None,
            user_transcription=options["input_audio_transcription"] is not None,
        )

    @_checked
    def update_options(
        self,
        *,
        tool_choice: NotGivenOr[Any] = NOT_GIVEN,
        voice: NotGivenOr[Any] = NOT_GIVEN,
        turn_detection: NotGivenOr[Any] = NOT_GIVEN,
        input_audio_transcription: NotGivenOr[Any] = NOT_GIVEN,
        input_audio_noise_reduction: NotGivenOr[Any] = NOT_GIVEN,
        max_response_output_tokens: NotGivenOr[Any] = NOT_GIVEN,
        speed: NotGivenOr[float] = NOT_GIVEN,
        tracing: NotGivenOr[Any] = NOT_GIVEN,
        truncation: NotGivenOr[Any] = NOT_GIVEN,
        reasoning: NotGivenOr[Any] = NOT_GIVEN,
    ) -> None:
        """Change options of only this session; only changes are sent."""
        self._change_settings(_changes(locals()))

    @_checked
    def send_event(self, event: Any) -> None:
        """Send an event of your own, a dict or a model of the ``openai`` package."""
        from rejoinder._core import jsontext

        fields: dict[str, Any] = plain(event)
        self.emit("openai_client_event_queued", fields)
        link = self._connections.link
        if link is not None:
            link.send_frames((jsontext.encode(fields).decode(),))


class RealtimeSessionBeta(RealtimeSession):
    """Like `RealtimeSession`, in the beta form of the protocol."""


# -- options -------------------------------------------------------------------------------------


def describe_tools(tool_ctx: ToolContext) -> list[dict[str, Any]]:
    """Tools in the format of the API.

    Raises:
        ConfigurationError: a provider tool has no description.
    """
    found: list[dict[str, Any]] = []
    for tool in tool_ctx.flatten():
        if isinstance(tool, ProviderTool):
            spec = tool.to_dict()
            if not spec:
                raise ConfigurationError(
                    f"tools: the provider tool {tool.id!r} has no `spec` for the realtime API"
                )
            found.append(spec)
        elif is_raw_function_tool(tool):
            schema = {k: v for k, v in tool.info.raw_schema.items() if k != "meta"}
            found.append({"type": "function", **schema})
        else:
            found.append(build_legacy_openai_schema(tool, internally_tagged=True))
    return found


def _value(given: Any, default: Any) -> Any:
    if not is_given(given):
        return dict(default) if isinstance(default, Mapping) else default  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return plain(given)


def plain(value: Any) -> Any:
    """Objects of the ``openai`` package as plain data."""
    return dump(value, mode="json", by_alias=True, exclude_unset=True) if dumps(value) else value


def _noise(given: Any) -> Any:
    value = _value(given, None)
    return {"type": value} if isinstance(value, str) else value


def _changes(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call that were given."""
    found: dict[str, Any] = {}
    for name in _OPTIONS:
        value = given.get(name, NOT_GIVEN)
        if is_given(value):
            found[name] = _noise(value) if name == "input_audio_noise_reduction" else plain(value)
    return found
