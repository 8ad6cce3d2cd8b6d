"""Models behind LiveKit's inference gateway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from rejoinder import _stamps
from rejoinder._core.hosts import HOSTS
from rejoinder._core.items import ChatItem
from rejoinder._core.rules import FOREIGN_STATE
from rejoinder._secrets import Hidden
from rejoinder.errors import ConfigurationError
from rejoinder.providers.answering.decoder import ReplyDecoder
from rejoinder.providers.answering.stream import WireStream
from rejoinder.providers.asking.ask import HttpLLM, Question, ask
from rejoinder.providers.asking.attachments import Attachment
from rejoinder.providers.asking.checks import check_base_url, checked_options, environment
from rejoinder.providers.asking.fields import (
    NO_EXTRAS,
    HttpExtras,
    build_url,
    checked_extras,
    merge_headers,
)
from rejoinder.providers.asking.replies import completions_response_format
from rejoinder.providers.asking.served import Option as ReasoningOption
from rejoinder.providers.asking.served import served
from rejoinder.providers.asking.tools import tool_specs
from rejoinder.providers.asking.transports import make_transport
from rejoinder.providers.completions.format import to_messages
from rejoinder.providers.completions.request import named_choice
from rejoinder.providers.inference.dialect import DIALECT
from rejoinder.providers.inference.format import attachment_part, request_body
from rejoinder.providers.inference.token import mint
from rejoinder.providers.inference.wire import decode_error, make_decoder
from rejoinder.transport.http import Request
from rejoinder.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectOptions,
    NotGiven,
    NotGivenOr,
    is_given,
)

if TYPE_CHECKING:
    from typing import Self

    from rejoinder.llm.chat_context import ChatContext
    from rejoinder.llm.tool_context import ToolChoice
    from rejoinder.transport._aiohttp import ClientSession
    from rejoinder.transport.http import HttpTransport

__all__ = ["LLM", "LLMStream"]

_BASE_URL: Final = "https://agent-gateway.livekit.cloud/v1"
_STAGING_URL: Final = "https://agent-gateway.staging.livekit.cloud/v1"


class LLMStream(WireStream):
    """One reply of the gateway."""


class LLM(HttpLLM):
    """Models behind LiveKit's inference gateway.

    Args:
        model: e.g. ``openai/gpt-4.1-mini``.
        provider: the provider that should serve the model, if several can.
        base_url: else ``LIVEKIT_INFERENCE_URL``, else the gateway of LiveKit Cloud.
        api_key: else ``LIVEKIT_INFERENCE_API_KEY``, else ``LIVEKIT_API_KEY``.
        api_secret: else ``LIVEKIT_INFERENCE_API_SECRET``, else ``LIVEKIT_API_SECRET``. It signs a new
            token for each request.
        extra_kwargs: members of every body; they override those of a call.
        inference_class: ``"priority"``, ``"standard"`` or ``"low"``.
        reasoning: how much to think, in the same words for every provider: ``"off"``, ``"low"``,
            ``"medium"``, ``"high"``, or a number of tokens. The API's own fields override it.
        family: the kind of model, if its name does not show it: another model of the same kind, or a
            row of ``docs/capabilities.md``.
        http_session: your own `aiohttp.ClientSession`; it is not closed here.
        transport: your own `rejoinder.transport.http.HttpTransport`, instead of `http_session`; it is
            not closed here.

    Raises:
        ConfigurationError: key or secret is missing, or `base_url` is not a valid URL.
    """

    @checked_options
    def __init__(
        self,
        model: str,
        *,
        provider: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        api_secret: str | None = None,
        extra_kwargs: Mapping[str, Any] | None = None,
        inference_class: Literal["priority", "standard", "low"] | None = None,
        reasoning: NotGivenOr[ReasoningOption] = NOT_GIVEN,
        family: NotGivenOr[str] = NOT_GIVEN,
        http_session: ClientSession | None = None,
        transport: HttpTransport | None = None,
    ) -> None:
        staging = ".staging.livekit.cloud" in (environment("LIVEKIT_URL") or "")
        address = check_base_url(
            base_url
            or environment("LIVEKIT_INFERENCE_URL")
            or (_STAGING_URL if staging else _BASE_URL),
            endpoints=("/chat/completions",),
        )
        key = api_key or environment("LIVEKIT_INFERENCE_API_KEY", "LIVEKIT_API_KEY")
        secret = api_secret or environment("LIVEKIT_INFERENCE_API_SECRET", "LIVEKIT_API_SECRET")
        if not key or not secret:
            raise ConfigurationError(
                "LiveKit inference: pass api_key and api_secret, or set LIVEKIT_API_KEY and "
                "LIVEKIT_API_SECRET"
            )
        super().__init__(
            model=model,
            provider="livekit",
            base_url=address,
            transport=make_transport(http_session, transport),
        )
        self._reasoning: NotGivenOr[ReasoningOption] = reasoning
        self._family: NotGivenOr[str] = family
        self._serve(model)
        self._url = build_url(self._base_url, "chat/completions")
        self._served_by = provider
        self._api_key = key
        self._api_secret = secret
        self._extra_kwargs = dict(extra_kwargs or {})
        self._inference_class = inference_class

    def _serve(self, model: str) -> None:
        self._model = model
        self._served = served(
            model,
            "chat",
            HOSTS["inference"],
            DIALECT,
            reasoning=self._reasoning,
            family=self._family,
        )
        self._takes_audio = self._served.takes("audio") is True
        self._state = self._served.takes_back(FOREIGN_STATE)

    @classmethod
    @checked_options
    def from_model_string(cls, model: str) -> Self:
        """An `LLM` for this model, with all other options from the environment."""
        return cls(model)

    @checked_options
    def update_options(
        self,
        *,
        model: NotGivenOr[str] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[Mapping[str, Any]] = NOT_GIVEN,
    ) -> None:
        """Use another model, or other members of the body, from the next call on."""
        if is_given(model) and model is not None:
            self._serve(model)
        if is_given(extra_kwargs) and extra_kwargs is not None:
            self._extra_kwargs = dict(extra_kwargs)

    @checked_options
    def chat(
        self,
        *,
        chat_ctx: ChatContext,
        tools: list[Any] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
        response_format: NotGivenOr[Any] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    ) -> LLMStream:
        """Ask the model; see `rejoinder.llm.LLM.chat`.

        Args:
            response_format: the form of the answer: a pydantic model, a TypedDict, a dataclass, or the
                API's own mapping.
            extra_kwargs: further members of the body, and ``extra_headers``, ``extra_query``,
                ``extra_body``.

        Raises:
            ConfigurationError: an option or a part of the conversation cannot be sent.
        """
        fields = {} if extra_kwargs is NOT_GIVEN else checked_extras(extra_kwargs)
        choice: Any = tool_choice
        if isinstance(tool_choice, NotGiven):
            choice = fields.pop("tool_choice", None)
        if not isinstance(parallel_tool_calls, NotGiven):
            fields["parallel_tool_calls"] = parallel_tool_calls
        schema = self._served.family.schema
        if not isinstance(response_format, NotGiven):
            shape = completions_response_format(response_format, schema=schema)
            if shape is not None:
                fields["response_format"] = shape
        fields.update(self._extra_kwargs)
        choice = fields.pop("tool_choice", choice)
        if choice is not None:
            choice = named_choice(choice)
        extras = HttpExtras(fields) if fields else NO_EXTRAS
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if self._served_by:
            headers["X-LiveKit-Inference-Provider"] = self._served_by
        if self._inference_class:
            headers["X-LiveKit-Inference-Priority"] = self._inference_class
        question = _Question(
            dialect=DIALECT,
            decode_error=decode_error,
            extras=extras,
            specs=tool_specs(tools, DIALECT, schema=schema),
            choice=choice,
            served=self._served,
            takes_audio=self._takes_audio,
            state=self._state,
            url=build_url(self._url, query=extras.query) if extras.query else self._url,
            headers=headers,
            api_key=self._api_key,
            api_secret=self._api_secret,
            options={**extras.body, "model": self._model},
        )
        return ask(
            self, question, LLMStream, chat_ctx=chat_ctx, tools=tools, conn_options=conn_options
        )


@dataclass(kw_only=True, eq=False)
class _Question(Question):
    provider = "inference"
    compose = staticmethod(request_body)

    url: str
    headers: Mapping[str, str]
    api_key: str = field(repr=False)
    api_secret: str = field(repr=False)
    options: Mapping[str, Any]
    """The members of the body beside messages and tools."""

    def part(self, attachment: Attachment) -> dict[str, Any]:
        return attachment_part(attachment)

    def convert(self, items: Sequence[ChatItem]) -> tuple[list[dict[str, Any]], Any]:
        return to_messages(items, reasoning_back=self.family.reasoning_back), None

    async def request(self, body: bytes, connect_timeout: float | None) -> Request:
        token = mint(self.api_key, self.api_secret, _stamps.wall_now())
        own = {**self.headers, "Authorization": f"Bearer {token}"}
        headers = merge_headers(own, self.extras.headers) if self.extras.headers else own
        keys = Hidden((self.api_key, self.api_secret))
        return Request("POST", self.url, headers, body, connect_timeout, keys)

    def decoder(self, *, allow_empty: bool) -> ReplyDecoder:
        return make_decoder(allow_empty=allow_empty, family=self.family)
