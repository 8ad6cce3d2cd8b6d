"""Google's Live API: Gemini models that hear and speak, on the Developer API and on Vertex AI.

    from rejoinder.providers.google import realtime

    model = realtime.RealtimeModel(voice="Kore")
    session = model.session()

Names and options are those of LiveKit Agents 1.2.17, except the default model, because Google has
switched off the one of that version. Also importable as
``rejoinder.providers.google.beta.realtime``.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from rejoinder import _options, _stamps
from rejoinder._core.realtime.messages import SendImage, Traits
from rejoinder._foreign import has
from rejoinder._options import COUNT, FLAG, SECONDS, STRING, Rule, mapping
from rejoinder._sections import explained
from rejoinder.clouds.google import GoogleCredentials, check_location, vertex_host
from rejoinder.errors import ConfigurationError
from rejoinder.llm.realtime import RealtimeCapabilities
from rejoinder.llm.tool_context import ToolContext
from rejoinder.providers.asking.checks import (
    OPTION_RULES,
    check_base_url,
    environment,
    or_none,
)
from rejoinder.providers.asking.fields import HttpExtras, build_url, merge_headers, path_part
from rejoinder.providers.google.dialect import DIALECT
from rejoinder.providers.google.options import plain
from rejoinder.providers.google.realtime_format import IMAGE_TYPES, INPUT_RATE, OUTPUT_RATE
from rejoinder.providers.google.realtime_options import (
    built_in,
    changes,
    check,
    longest,
    settings_of,
)
from rejoinder.providers.google.realtime_rules import (
    DEFAULT_MODEL,
    DEFAULT_VERTEX_MODEL,
    LiveRules,
    rules_of,
)
from rejoinder.providers.google.realtime_wire import GeminiLiveProtocol
from rejoinder.providers.sessions.model import WireModel, open_websockets
from rejoinder.providers.sessions.session import SessionOptions, WireSession
from rejoinder.transport.ws import SocketRequest, WebSocket, WebSocketTransport
from rejoinder.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectOptions,
    NotGivenOr,
    is_given,
)

if TYPE_CHECKING:
    from rejoinder._core.images import EncodeOptions

__all__ = ["RealtimeModel", "RealtimeSession"]

logger = logging.getLogger("rejoinder")

_GEMINI_URL: Final = "https://generativelanguage.googleapis.com"

_Events = Literal["gemini_server_event_received"]


def _encodes(value: object) -> bool:
    return has(value, "format", "quality", "resize_options")


_RULES: Final[Mapping[str, Rule]] = {
    **{name: rule for name, rule in OPTION_RULES.items() if name not in ("transport", "model")},
    "voice": STRING,
    "top_k": COUNT.optional,
    "max_session_duration": SECONDS.optional,
    "reply_timeout": SECONDS,
    "silence_timeout": SECONDS.optional,
    "enable_affective_dialog": FLAG.optional,
    "image_encode_options": Rule("EncodeOptions", _encodes).optional,
    "labels": mapping().optional,
}
_checked = _options.checked(**_RULES)


class RealtimeModel(WireModel["RealtimeSession", WebSocketTransport]):
    """A Gemini model that hears and speaks.

    Options that the model does not support are refused at once. The documentation of realtime
    sessions lists them for each model.

    Args:
        instructions: instructions of every session; `RealtimeSession.update_instructions` changes
            those of one.
        model: e.g. ``gemini-3.8-live``; on Vertex AI also a full resource name.
        api_key: key of the Developer API; else ``GOOGLE_API_KEY``, else ``GEMINI_API_KEY``. With
            `vertexai` and no project it is used for Vertex AI's express mode.
        voice: name of the voice.
        language: BCP-47 code of the speech, e.g. ``en-US``.
        modalities: ``["AUDIO"]``, or ``["TEXT"]`` for a model that answers in text.
        vertexai: use Vertex AI; else by ``GOOGLE_GENAI_USE_VERTEXAI`` (``1`` or ``true``).
        project, location: of Google Cloud; else ``GOOGLE_CLOUD_PROJECT`` (or the credentials' own)
            and ``GOOGLE_CLOUD_LOCATION`` (or ``us-central1``).
        candidate_count, temperature, max_output_tokens, top_p, top_k, presence_penalty,
            frequency_penalty, media_resolution, safety_settings, labels, explicit_vad_signal,
            avatar_config: as the API has them.
        input_audio_transcription, output_audio_transcription: settings of the transcripts, ``None``
            for none.
        image_encode_options: how frames of `push_video` are encoded; by default a JPEG of at most
            1024 by 1024 pixels.
        enable_affective_dialog: the model responds to the mood of the user.
        proactivity: the model may stay silent; a flag, a mapping or an object of google-genai.
        realtime_input_config: speech detection, interruptions, and what belongs to a turn.
        context_window_compression: compress the conversation when it grows too long. Without it a
            session is begun anew, with its history as text, before Google ends it at 15 minutes.
        tool_behavior: ``"BLOCKING"`` or ``"NON_BLOCKING"``; the default depends on the model.
        tool_response_scheduling: when the model speaks about a result of a non-blocking call:
            ``"SILENT"``, ``"WHEN_IDLE"`` or ``"INTERRUPT"``.
        session_resumption: a mapping or an object of google-genai; its `handle` continues an
            earlier session.
        api_version: default ``v1beta``, or ``v1alpha`` if an option needs it (``v1beta1`` on Vertex).
        conn_options: deadline and retries of connecting.
        http_options: a mapping or object with `base_url`, `api_version` and `headers`.
        thinking_config: ``{"thinking_budget": 0}`` or ``{"thinking_level": "low"}``.
        gemini_tools: Google's own tools; the Live API takes ``google_search``.
        credentials: credentials of google-auth, for Vertex AI; else the application default ones.
        base_url: address of another server; ``http`` and ``ws`` mean a socket without TLS. Else
            ``GOOGLE_GEMINI_BASE_URL`` or ``GOOGLE_VERTEX_BASE_URL``.
        max_session_duration: age in seconds at which a session is begun anew between two turns, with
            its history; by default before the service ends it. ``None``: never. The connections of
            a session, of about ten minutes each, are replaced when the service asks for it.
        reply_timeout: seconds from the request for a reply to its beginning.
        silence_timeout: seconds without progress after which a reply has failed and a silent
            service is probed; by default 30, more for models that think long.
        http_session: your own ``aiohttp.ClientSession``; it is not closed here.
        transport: opens the sockets; for tests.

    Raises:
        ConfigurationError: the key is missing, the address is not a valid URL, or the model does
            not support the Live API or an option.
    """

    @_checked
    def __init__(
        self,
        *,
        instructions: NotGivenOr[str] = NOT_GIVEN,
        model: NotGivenOr[str] = NOT_GIVEN,
        api_key: NotGivenOr[str] = NOT_GIVEN,
        voice: str = "Puck",
        language: NotGivenOr[str] = NOT_GIVEN,
        modalities: NotGivenOr[Sequence[Any]] = NOT_GIVEN,
        vertexai: NotGivenOr[bool] = NOT_GIVEN,
        project: NotGivenOr[str] = NOT_GIVEN,
        location: NotGivenOr[str] = NOT_GIVEN,
        candidate_count: int = 1,
        temperature: NotGivenOr[float] = NOT_GIVEN,
        max_output_tokens: NotGivenOr[int] = NOT_GIVEN,
        top_p: NotGivenOr[float] = NOT_GIVEN,
        top_k: NotGivenOr[int] = NOT_GIVEN,
        presence_penalty: NotGivenOr[float] = NOT_GIVEN,
        frequency_penalty: NotGivenOr[float] = NOT_GIVEN,
        input_audio_transcription: NotGivenOr[Any] = NOT_GIVEN,
        output_audio_transcription: NotGivenOr[Any] = NOT_GIVEN,
        image_encode_options: NotGivenOr[EncodeOptions] = NOT_GIVEN,
        enable_affective_dialog: NotGivenOr[bool] = NOT_GIVEN,
        proactivity: NotGivenOr[Any] = NOT_GIVEN,
        realtime_input_config: NotGivenOr[Any] = NOT_GIVEN,
        context_window_compression: NotGivenOr[Any] = NOT_GIVEN,
        tool_behavior: NotGivenOr[Any] = NOT_GIVEN,
        tool_response_scheduling: NotGivenOr[Any] = NOT_GIVEN,
        session_resumption: NotGivenOr[Any] = NOT_GIVEN,
        api_version: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        http_options: NotGivenOr[Any] = NOT_GIVEN,
        thinking_config: NotGivenOr[Any] = NOT_GIVEN,
        gemini_tools: NotGivenOr[Sequence[Any]] = NOT_GIVEN,
        _gemini_tools: NotGivenOr[Sequence[Any]] = NOT_GIVEN,
        media_resolution: NotGivenOr[Any] = NOT_GIVEN,
        safety_settings: NotGivenOr[Sequence[Any]] = NOT_GIVEN,
        labels: NotGivenOr[Mapping[str, str]] = NOT_GIVEN,
        explicit_vad_signal: NotGivenOr[bool] = NOT_GIVEN,
        avatar_config: NotGivenOr[Any] = NOT_GIVEN,
        credentials: Any = None,
        base_url: NotGivenOr[str] = NOT_GIVEN,
        max_session_duration: NotGivenOr[float | None] = NOT_GIVEN,
        reply_timeout: float = 10.0,
        silence_timeout: NotGivenOr[float] = NOT_GIVEN,
        http_session: Any = None,
        transport: WebSocketTransport | None = None,
    ) -> None:
        given = dict(locals())
        http: Any = plain(or_none(http_options)) or {}
        mapping("a mapping or an object with base_url, api_version and headers").check(
            "RealtimeModel.http_options", http
        )
        vertex: bool | None = or_none(vertexai)
        if vertex is None:
            vertex = (environment("GOOGLE_GENAI_USE_VERTEXAI") or "").lower() in ("1", "true")
        name: str = or_none(model) or (DEFAULT_VERTEX_MODEL if vertex else DEFAULT_MODEL)
        rules = rules_of(name)
        settings = settings_of({n: v for n, v in given.items() if is_given(v)})
        settings["responseModalities"] = _modalities(or_none(modalities))
        if is_given(gemini_tools) or is_given(_gemini_tools):
            settings["builtInTools"] = built_in(
                or_none(gemini_tools) or or_none(_gemini_tools) or ()
            )
        for option in ("inputAudioTranscription", "outputAudioTranscription"):
            settings.setdefault(option, {})
        check(name, rules, settings)
        alpha = rules.alpha and not vertex
        needs_alpha = alpha and (
            settings.get("enableAffectiveDialog") or settings.get("proactivity")
        )
        version = or_none(api_version) or http.get("apiVersion")
        self._make(
            name=name,
            rules=rules,
            settings=settings,
            vertex=vertex,
            instructions=or_none(instructions),
            transport=transport,
            options=SessionOptions(
                conn_options=conn_options,
                reply_timeout=reply_timeout,
                silence=silence_timeout if is_given(silence_timeout) else rules.patience,
                max_duration=max_session_duration
                if is_given(max_session_duration)
                else longest(rules, settings),
            ),
        )
        self._version = version or ("v1beta1" if vertex else "v1alpha" if needs_alpha else "v1beta")
        self._headers = HttpExtras({"extra_headers": http.get("headers")}).headers
        self._encode_options = or_none(image_encode_options)
        self._http_session = http_session
        self._find_server(
            key=or_none(api_key),
            project=or_none(project),
            location=or_none(location),
            credentials=credentials,
            address=or_none(base_url) or http.get("baseUrl"),
        )

    def _make(
        self,
        *,
        name: str,
        rules: LiveRules,
        settings: dict[str, Any],
        vertex: bool,
        instructions: str | None,
        options: SessionOptions,
        transport: WebSocketTransport | None,
    ) -> None:
        super().__init__(
            model=name,
            settings=settings,
            options=options,
            transport=transport,
            capabilities=RealtimeCapabilities(
                message_truncation=False,
                turn_detection=not _is_manual(settings),
                user_transcription=settings["inputAudioTranscription"] is not None,
                auto_tool_reply_generation=True,
                audio_output="AUDIO" in settings["responseModalities"],
                manual_function_calls=False,
                can_disable_turn_detection=True,
                mutable_chat_context=True,
                mutable_instructions=True,
                mutable_tools=True,
            ),
        )
        self._rules = rules
        self._vertex = vertex
        self._instructions = instructions

    def _find_server(
        self,
        *,
        key: str | None,
        project: str | None,
        location: str | None,
        credentials: Any,
        address: str | None,
    ) -> None:
        self._credentials: GoogleCredentials | None = None
        self._project: str | None = None
        self._location = ""
        if self._vertex:
            self._project = project or environment("GOOGLE_CLOUD_PROJECT")
            self._location = location or environment("GOOGLE_CLOUD_LOCATION") or "us-central1"
            if key and (project is not None or credentials is not None):
                key = None  # a project or credentials mean the account
            if key is None:
                self._credentials = GoogleCredentials(credentials)
            address = address or environment("GOOGLE_VERTEX_BASE_URL")
            if not address:
                address = f"https://{vertex_host(check_location(self._location))}"
        else:
            key = key or environment("GOOGLE_API_KEY", "GEMINI_API_KEY")
            address = address or environment("GOOGLE_GEMINI_BASE_URL")
            if not key and not address:
                raise ConfigurationError(
                    explained(
                        "RealtimeModel: no API key. Pass api_key or set GOOGLE_API_KEY; for Vertex AI "
                        "pass vertexai=True",
                        "no key",
                    )
                )
            address = address or _GEMINI_URL
        self._api_key = key
        method = (
            f"google.cloud.aiplatform.{self._version}.LlmBidiService/BidiGenerateContent"
            if self._vertex
            else f"google.ai.generativelanguage.{self._version}"
            ".GenerativeService.BidiGenerateContent"
        )
        self._url = build_url(check_base_url(_http(address)), f"ws/{method}")
        self._full_name = self._model
        if self._vertex:
            path = self._model
            if "/" not in path:
                path = f"publishers/google/models/{path}"
            self._full_name = path
        elif "/" not in self._model:
            self._full_name = f"models/{self._model}"

    @property
    def provider(self) -> str:
        return "Vertex AI" if self._vertex else "Gemini"

    @property
    def rules(self) -> LiveRules:
        """The rules of this model."""
        return self._rules

    @_checked
    def update_options(
        self,
        *,
        voice: NotGivenOr[str] = NOT_GIVEN,
        temperature: NotGivenOr[float] = NOT_GIVEN,
        tool_behavior: NotGivenOr[Any] = NOT_GIVEN,
        tool_response_scheduling: NotGivenOr[Any] = NOT_GIVEN,
    ) -> None:
        """Change options of this model and of its live sessions. Each session changes to a new
        connection between two turns.

        Raises:
            ConfigurationError: the model does not support an option.
        """
        found = changes(locals(), is_given)
        check(self._model, self._rules, {**self._settings, **found})
        self._change_settings(found)

    def _new_session(self, settings: dict[str, Any]) -> RealtimeSession:
        return RealtimeSession(self, settings)

    def _without_turn_detection(self, settings: dict[str, Any]) -> None:
        config = dict(settings.get("realtimeInputConfig") or {})
        config["automaticActivityDetection"] = {"disabled": True}
        settings["realtimeInputConfig"] = config

    def _new_transport(self) -> WebSocketTransport:
        return open_websockets(self._http_session)

    async def _dial(self) -> WebSocket:
        """Open a socket for one connection; keys and tokens are resolved now.

        Raises:
            APIError: no connection.
            ConfigurationError: no credentials, or no project.
        """
        return await self._open_transport().connect(
            SocketRequest(
                self._url,
                merge_headers(await self._sign_in(), self._headers),
                connect_timeout=self._options.conn_options.connect_timeout,
            )
        )

    async def _sign_in(self) -> dict[str, str]:
        if self._credentials is None:
            return {} if self._api_key is None else {"x-goog-api-key": self._api_key}
        token = await self._credentials.token()
        auth = {"Authorization": f"Bearer {token}"}
        if (payer := self._credentials.quota_project) is not None:
            auth["x-goog-user-project"] = payer
        if not self._full_name.startswith("projects/"):
            project = self._project or await self._credentials.project()
            if not project:
                raise ConfigurationError(
                    "Vertex AI: the credentials do not include a project; pass project, or set "
                    "GOOGLE_CLOUD_PROJECT"
                )
            place = path_part("location", self._location)
            where = f"projects/{path_part('project', project)}/locations/{place}"
            self._full_name = f"{where}/{self._full_name}"
        return auth

    def _protocol(self) -> GeminiLiveProtocol:
        return GeminiLiveProtocol(
            lambda: self._full_name,
            self._rules,
            msgspec.structs.replace(
                _TRAITS,
                tells_speech=self._rules.tells_speech,
                result_media=IMAGE_TYPES if self._rules.result_media else frozenset(),
            ),
            vertex=self._vertex,
        )


_TRAITS: Final = Traits(
    input_rate=INPUT_RATE,
    output_rate=OUTPUT_RATE,
    confirms=False,
    history_at_once=True,
    names_replies=False,
    answers_move=False,
    pong=40.0,
)


class RealtimeSession(WireSession[_Events]):
    """One conversation. Emits ``"gemini_server_event_received"`` with each message of the server, as a
    dict."""

    _frame_event = "gemini_server_event_received"

    def __init__(self, model: RealtimeModel, settings: dict[str, Any]) -> None:
        self._gemini_model = model
        super().__init__(
            model,
            dial=model._dial,
            make_protocol=model._protocol,
            describe_tools=describe_tools,
            options=model._options,
            settings=settings,
            resume=_given_handle(settings),
            instructions=model._instructions,
        )

    @property
    def capabilities(self) -> RealtimeCapabilities:
        """The capabilities of this session."""
        return replace(super().capabilities, turn_detection=not _is_manual(self._settings.options))

    @property
    def session_resumption_handle(self) -> str | None:
        """The handle with which another session can be resumed; valid for two hours."""
        return self._connections.handle

    @_checked
    def update_options(
        self,
        *,
        tool_choice: NotGivenOr[Any] = NOT_GIVEN,
        voice: NotGivenOr[str] = NOT_GIVEN,
        temperature: NotGivenOr[float] = NOT_GIVEN,
        tool_behavior: NotGivenOr[Any] = NOT_GIVEN,
        tool_response_scheduling: NotGivenOr[Any] = NOT_GIVEN,
    ) -> None:
        """Change options of only this session. All except the scheduling of results need a new
        connection, which is opened between two turns.

        Raises:
            ConfigurationError: the model does not support an option.
        """
        found = changes(locals(), is_given)
        model = self._gemini_model
        check(model.model, model.rules, {**self._settings.options, **found})
        self._change_settings(found)

    def push_video(self, frame: Any) -> None:
        """Send a picture of the user's video; the service looks at one a second."""
        options = self._gemini_model._encode_options
        if options is None:
            super().push_video(frame)
            return
        from rejoinder._core.images import encode

        data = base64.b64encode(encode(frame, options)).decode("ascii")
        url = f"data:image/{options.format.lower()};base64,{data}"
        self._send(SendImage(_stamps.new_id("video_"), url))


def describe_tools(tool_ctx: ToolContext) -> list[dict[str, Any]]:
    """Tools as the Live API expects them: parameters in Google's own schema format, because it
    silently ignores JSON Schema.

    Raises:
        ConfigurationError: a provider tool has no description.
    """
    specs = tool_ctx.parse_function_tools(DIALECT, json_schema=False)
    for spec in specs:
        if "name" not in spec:
            raise ConfigurationError(
                f"tools: {spec!r} is not a function; pass Google's own tools as gemini_tools="
            )
    return specs


def _modalities(given: Sequence[Any] | None) -> list[str]:
    found = [str(plain(entry)).upper() for entry in given or ["AUDIO"]]
    if found not in (["AUDIO"], ["TEXT"]):
        raise ConfigurationError(
            f"RealtimeModel.modalities: expected ['AUDIO'] or ['TEXT'], got {found!r}; the "
            "transcript of sound comes with it"
        )
    return found


def _given_handle(settings: Mapping[str, Any]) -> str | None:
    resumption: Mapping[str, Any] = settings.get("sessionResumption") or {}
    return resumption.get("handle")


def _is_manual(settings: Mapping[str, Any]) -> bool:
    config: Mapping[str, Any] = settings.get("realtimeInputConfig") or {}
    detection: Mapping[str, Any] = config.get("automaticActivityDetection") or {}
    return detection.get("disabled") is True


def _http(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    return f"{ {'ws': 'http', 'wss': 'https'}.get(scheme.lower(), scheme) }{mark}{rest}"
