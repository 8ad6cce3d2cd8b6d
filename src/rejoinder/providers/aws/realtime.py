"""Amazon's speech-to-speech models on Bedrock: Nova Sonic 1, 2 and 2.5.

    from rejoinder.providers.aws import realtime

    model = realtime.RealtimeModel(voice="tiffany", region="us-east-1")
    session = model.session()

Names and options are those of LiveKit Agents 1.2.17 and what later versions added; the default model
is Nova 2 Sonic, because Nova Sonic 1 was switched off in September 2026. Needs ``rejoinder[aws]``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, cast
from urllib.parse import urlsplit

from rejoinder import _stamps
from rejoinder.clouds.aws import check_region, credentials_from, dns_suffix
from rejoinder.errors import ConfigurationError
from rejoinder.llm.realtime import RealtimeCapabilities
from rejoinder.llm.tool_context import ToolContext
from rejoinder.providers.asking.checks import check_base_url, environment, or_none
from rejoinder.providers.asking.tools import tool_specs
from rejoinder.providers.aws.dialect import DIALECT
from rejoinder.providers.aws.realtime_format import tool_choice as _checked_choice
from rejoinder.providers.aws.realtime_models import (
    DEFAULT_MODEL,
    Sensitivity,
    check_region_of,
    check_voice,
    facts_of,
)
from rejoinder.providers.aws.realtime_wire import NovaSonicProtocol
from rejoinder.providers.sessions.model import WireModel
from rejoinder.providers.sessions.options import SessionOptions, checked_session_options
from rejoinder.providers.sessions.session import WireSession
from rejoinder.transport.ws import WebSocket
from rejoinder.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectOptions,
    NotGivenOr,
    is_given,
)

if TYPE_CHECKING:
    from rejoinder.transport._h2 import H2Transport

logger = logging.getLogger("rejoinder")

__all__ = ["RealtimeModel", "RealtimeSession"]

_MAX_DURATION: Final = 360.0
"""Seconds; the service ends a session after 8 minutes."""
_MAX_TOKENS: Final = 10_000
_HOST: Final = re.compile(r"bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.[a-z0-9.-]+")
_SENSITIVITIES: Final = ("HIGH", "MEDIUM", "LOW")

_ExtraEvents = Literal["bedrock_server_event_received", "bedrock_client_event_queued"]


class RealtimeModel(WireModel["RealtimeSession", "H2Transport"]):
    """A Nova Sonic model.

    Args:
        model: its id, an inference profile or its ARN.
        voice: name of a voice of the model.
        temperature, top_p: 0 to 1; default 0.7 and 0.9. With tools both default to 1.0, which this
            service treats as greedy sampling.
        max_tokens: maximum tokens of one reply, at most 10,000.
        tool_choice: ``"auto"``, ``"required"``, ``"none"`` or the name of a function, for the session.
        region: by default ``AWS_REGION``, ``AWS_DEFAULT_REGION``, or the region of the AWS
            configuration. A `base_url` that names a region takes precedence.
        modalities: ``"mixed"``: accept text input too, if the model supports it; ``"audio"``: it
            only answers speech. Answers are always speech with a transcript.
        turn_detection: ``"HIGH"``, ``"MEDIUM"`` or ``"LOW"``: how soon a pause ends the user's turn.
        generate_reply_timeout: seconds from the request for a reply to its beginning.
        reply_timeout: the same, under the name that other models use.
        api_key, api_secret: access key id and secret access key; else the environment and the chain
            of botocore (profiles, SSO, metadata services). Bedrock API keys cannot open sessions.
        session_token: goes with temporary `api_key` and `api_secret`.
        session: a session of botocore, boto3, aiobotocore or aioboto3 with credentials and a region.
        base_url: address of another server; ``http`` means HTTP/2 by prior knowledge, without TLS.
        max_session_duration: age in seconds at which a connection is replaced between two turns. The
            service allows 480. ``None``: never.
        conn_options: connecting and reconnecting.
        silence_timeout: seconds without any event after which a service counts as dead.
        transport: opens the streams; for tests.

    Raises:
        ConfigurationError: not a Nova Sonic model, a voice of another model, a region without the
            model, half of a pair of keys, or an option out of range.
    """

    @checked_session_options
    def __init__(
        self,
        *,
        model: str = DEFAULT_MODEL,
        voice: NotGivenOr[str] = "tiffany",
        temperature: NotGivenOr[float] = NOT_GIVEN,
        top_p: NotGivenOr[float] = NOT_GIVEN,
        max_tokens: NotGivenOr[int] = 1024,
        tool_choice: NotGivenOr[Any] = NOT_GIVEN,
        region: NotGivenOr[str] = "us-east-1",
        modalities: Any = "mixed",
        turn_detection: NotGivenOr[Sensitivity] = NOT_GIVEN,
        generate_reply_timeout: float = 10.0,
        reply_timeout: NotGivenOr[float] = NOT_GIVEN,
        api_key: NotGivenOr[str] = NOT_GIVEN,
        api_secret: NotGivenOr[str] = NOT_GIVEN,
        session_token: NotGivenOr[str] = NOT_GIVEN,
        session: Any = None,
        base_url: NotGivenOr[str] = NOT_GIVEN,
        max_session_duration: NotGivenOr[float | None] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        silence_timeout: float = 20.0,
        transport: Any = None,
    ) -> None:
        self._facts = facts = facts_of(model)
        if facts.shut_down is not None:
            logger.warning(
                "%r was switched off on %s; use %r", model, facts.shut_down, facts.successor
            )
        self._address, self._region = _place(model, or_none(region), or_none(base_url))
        self._takes_text = _takes_text(modalities) and facts.text_input
        self._credentials = credentials_from(
            or_none(api_key), or_none(api_secret), or_none(session_token), "", session
        )[1]
        settings: dict[str, Any] = {
            "voice": or_none(voice) or "tiffany",
            "temperature": _share("temperature", or_none(temperature)),
            "top_p": _share("top_p", or_none(top_p)),
            "max_tokens": or_none(max_tokens) or 1024,
            "turn_detection": _sensitivity(or_none(turn_detection), model, facts.turn_detection),
            "tool_choice": or_none(tool_choice),
        }
        _checked_choice(settings["tool_choice"])
        if settings["max_tokens"] > _MAX_TOKENS:
            raise ConfigurationError(
                f"max_tokens: expected at most {_MAX_TOKENS}, got {settings['max_tokens']}"
            )
        if not check_voice(settings["voice"], model, facts):
            logger.warning("the voice %r is not known here", settings["voice"])
        super().__init__(
            model=model,
            settings=settings,
            options=SessionOptions(
                conn_options=conn_options,
                reply_timeout=reply_timeout if is_given(reply_timeout) else generate_reply_timeout,
                silence=silence_timeout,
                max_duration=max_session_duration
                if is_given(max_session_duration)
                else _MAX_DURATION,
            ),
            transport=transport,
            capabilities=RealtimeCapabilities(
                message_truncation=False,
                turn_detection=True,
                user_transcription=True,
                auto_tool_reply_generation=True,
                audio_output=True,
                manual_function_calls=False,
                can_disable_turn_detection=False,
                mutable_chat_context=True,
                mutable_instructions=True,
                mutable_tools=True,
                per_response_tool_choice=False,
            ),
        )

    @classmethod
    def with_nova_sonic_1(cls, **options: Any) -> RealtimeModel:
        """Nova Sonic 1, which answers only speech; switched off in September 2026."""
        options.setdefault("model", "amazon.nova-sonic-v1:0")
        return cls(**options)

    @classmethod
    def with_nova_sonic_2(cls, **options: Any) -> RealtimeModel:
        """Nova 2 Sonic."""
        options.setdefault("model", DEFAULT_MODEL)
        return cls(**options)

    @classmethod
    def with_nova_sonic_2_5(cls, **options: Any) -> RealtimeModel:
        """Nova 2.5 Sonic."""
        options.setdefault("model", "amazon.nova-2-5-sonic")
        return cls(**options)

    @property
    def provider(self) -> str:
        return "Amazon"

    @checked_session_options
    def update_options(self, *, tool_choice: NotGivenOr[Any] = NOT_GIVEN) -> None:
        """Change options of this model and of its live sessions."""
        if is_given(tool_choice):
            _checked_choice(tool_choice)
            self._change_settings({"tool_choice": tool_choice})

    def _new_session(self, settings: dict[str, Any]) -> RealtimeSession:
        return RealtimeSession(self, settings)

    def _without_turn_detection(self, settings: dict[str, Any]) -> None:
        logger.warning("Nova Sonic decides about turns itself; that cannot be turned off")

    def _new_transport(self) -> H2Transport:
        from rejoinder.transport._h2 import H2Transport

        return H2Transport()

    async def _dial(self) -> WebSocket:
        """Open a stream with the current credentials.

        Raises:
            APIError: no connection.
            ConfigurationError: there are no credentials, or h2 is not installed.
        """
        from rejoinder.providers.aws.realtime_stream import open_stream

        region = await self._resolved_region()
        return await open_stream(
            self._open_transport(),
            base_url=self._address or f"https://bedrock-runtime.{region}.{dns_suffix(region)}",
            model=self._model,
            credentials=self._credentials,
            region=region,
            connect_timeout=self._options.conn_options.connect_timeout,
        )

    async def _resolved_region(self) -> str:
        if self._region is None:
            found = await self._credentials.region()
            if found is None:
                raise ConfigurationError(
                    "region: no region was given, and neither AWS_REGION nor the AWS configuration "
                    "specifies one; pass region='us-east-1' or another"
                )
            if self._address is None:
                check_region(found)
                check_region_of(found, self._model, self._facts)
            self._region = found
        return self._region


class RealtimeSession(WireSession[_ExtraEvents]):
    """One conversation. Emits ``"bedrock_server_event_received"`` with each event of the service, as
    a dict."""

    _frame_event = "bedrock_server_event_received"

    def __init__(self, model: RealtimeModel, settings: dict[str, Any]) -> None:
        self._warned: set[str] = set()
        super().__init__(
            model,
            dial=model._dial,
            make_protocol=lambda: NovaSonicProtocol(
                model.model, model._facts, _stamps.new_id("sonic_"), takes_text=model._takes_text
            ),
            describe_tools=describe_tools,
            options=model._options,
            settings=settings,
        )

    @checked_session_options
    def update_options(self, *, tool_choice: NotGivenOr[Any] = NOT_GIVEN) -> None:
        """Change options of this session; they take effect between two turns, on a new connection."""
        if is_given(tool_choice):
            _checked_choice(tool_choice)
        super().update_options(tool_choice=tool_choice)

    def commit_audio(self) -> None:
        """Has no effect: the service decides when a turn is over."""
        self._warn_once("commit_audio", "the service decides when a turn of the user is over")

    def clear_audio(self) -> None:
        """Has no effect: the service has already received the pushed sound."""
        self._warn_once("clear_audio", "sound that was sent cannot be withdrawn")

    def push_video(self, frame: Any) -> None:
        """Has no effect: the model does not accept pictures."""
        self._warn_once("push_video", "the model takes no pictures")

    def _warn_once(self, name: str, why: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            logger.warning("%s has no effect on Nova Sonic: %s", name, why)


def describe_tools(tool_ctx: ToolContext) -> list[dict[str, Any]]:
    """Tools in the format of the Converse API. The protocol encodes their schemas as text.

    Raises:
        ConfigurationError: a tool cannot be described.
    """
    return tool_specs(list(tool_ctx.flatten()), DIALECT)


# -- options -------------------------------------------------------------------------------------


def _place(model: str, region: str | None, base_url: str | None) -> tuple[str | None, str | None]:
    """Address and region of the service, validated as far as possible."""
    address = base_url or environment("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL")
    where = region or environment("AWS_REGION", "AWS_DEFAULT_REGION")
    if address is not None:
        address = check_base_url(address)
        named = _HOST.fullmatch(urlsplit(address).hostname or "")
        return address, named[1] if named is not None else where
    if where is not None:
        check_region(where)
        check_region_of(where, model, facts_of(model))
    return None, where


def _takes_text(modalities: object) -> bool:
    """Whether text may be sent.

    Raises:
        ConfigurationError: text-only answers, or an unknown modality.
    """
    if modalities in ("mixed", "audio"):
        return modalities == "mixed"
    names: list[object] = [modalities]
    if isinstance(modalities, list | tuple):
        names = list(cast("Sequence[object]", modalities))
    if names and all(name in ("audio", "text") for name in names) and "audio" in names:
        return "text" in names
    only = " (it always answers in speech, with a transcript)" if names == ["text"] else ""
    raise ConfigurationError(
        f"modalities: expected 'mixed', 'audio' or a list of 'audio' and 'text' with 'audio' in it"
        f"{only}, got {modalities!r}"
    )


def _share(name: str, value: float | None) -> float | None:
    if value is not None and not 0 <= value <= 1:
        raise ConfigurationError(f"{name}: expected a number from 0 to 1, got {value!r}")
    return value


def _sensitivity(value: str | None, model: str, taken: bool) -> str | None:
    if value is None:
        return None
    if value not in _SENSITIVITIES:
        raise ConfigurationError(
            f"turn_detection: expected one of {', '.join(_SENSITIVITIES)}, got {value!r}"
        )
    if not taken:
        raise ConfigurationError(
            f"turn_detection is not taken by {model!r}; leave it out, or use {DEFAULT_MODEL!r}"
        )
    return value
