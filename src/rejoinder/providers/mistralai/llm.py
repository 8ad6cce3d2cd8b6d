"""Mistral's models, by chat completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rejoinder._core.hosts import HOSTS
from rejoinder._core.items import ChatItem
from rejoinder._foreign import read
from rejoinder._sections import explained
from rejoinder.errors import ConfigurationError
from rejoinder.providers.answering.decoder import ReplyDecoder
from rejoinder.providers.answering.stream import WireStream
from rejoinder.providers.asking.ask import HttpLLM, Question, ask
from rejoinder.providers.asking.attachments import Attachment
from rejoinder.providers.asking.checks import (
    check_base_url,
    checked_options,
    environment,
    or_none,
)
from rejoinder.providers.asking.fields import (
    NO_EXTRAS,
    HttpExtras,
    build_url,
    merge_headers,
)
from rejoinder.providers.asking.replies import completions_response_format
from rejoinder.providers.asking.served import Option as ReasoningOption
from rejoinder.providers.asking.served import served
from rejoinder.providers.asking.tools import tool_specs
from rejoinder.providers.asking.transports import make_transport
from rejoinder.providers.completions.request import named_choice
from rejoinder.providers.mistralai.dialect import DIALECT
from rejoinder.providers.mistralai.format import attachment_part, request_body, to_chat_ctx
from rejoinder.providers.mistralai.wire import decode_error, make_decoder
from rejoinder.transport.http import Request
from rejoinder.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectOptions,
    NotGiven,
    NotGivenOr,
)

if TYPE_CHECKING:
    from rejoinder.llm.chat_context import ChatContext
    from rejoinder.llm.tool_context import ToolChoice
    from rejoinder.transport._aiohttp import ClientSession
    from rejoinder.transport.http import HttpTransport

__all__ = ["LLM", "LLMStream"]

_BASE_URL: Final = "https://api.mistral.ai/v1"


class LLMStream(WireStream):
    """One reply of a Mistral model."""


class LLM(HttpLLM):
    """Mistral's models.

    Args:
        model: the model.
        api_key: else that of `client`, else ``MISTRAL_API_KEY``. Optional when `base_url` is set.
        client: a ``mistralai.Mistral``; its key and address are taken from it.
        temperature: sampling temperature, as in the API.
        max_completion_tokens: limit of generated tokens; sent as ``max_tokens``.
        timeout: accepted for compatibility; deadlines are those of `APIConnectOptions`.
        base_url: the address before ``/chat/completions``.
        reasoning: how much to think, in the same words for every provider: ``"off"``, ``"low"``,
            ``"medium"``, ``"high"``, or a number of tokens; the API's own options win.
        family: the kind of model, if its name does not show it: a model of the same kind, or a row
            of ``docs/capabilities.md``.
        http_session: your own `aiohttp.ClientSession`; it is not closed here.
        transport: anything that sends requests (see `rejoinder.transport.http`), instead of
            `http_session`; it is not closed here.

    Raises:
        ConfigurationError: the API key is missing, or `base_url` is not a valid URL.
    """

    @checked_options
    def __init__(
        self,
        model: str = "ministral-8b-latest",
        api_key: str | None = None,
        client: Any = None,
        temperature: NotGivenOr[float] = NOT_GIVEN,
        max_completion_tokens: NotGivenOr[int] = NOT_GIVEN,
        timeout: Any = None,
        *,
        base_url: NotGivenOr[str] = NOT_GIVEN,
        reasoning: NotGivenOr[ReasoningOption] = NOT_GIVEN,
        family: NotGivenOr[str] = NOT_GIVEN,
        http_session: ClientSession | None = None,
        transport: HttpTransport | None = None,
    ) -> None:
        found_key, found_url = _of_client(client)
        address = or_none(base_url) or found_url
        key = api_key or found_key or environment("MISTRAL_API_KEY")
        if not key and not address:
            raise ConfigurationError(
                explained("Mistral: no API key. Pass api_key or set MISTRAL_API_KEY", "no key")
            )
        super().__init__(
            model=model,
            provider="MistralAI",
            base_url=check_base_url(address or _BASE_URL, endpoints=("/chat/completions",)),
            transport=make_transport(http_session, transport),
        )
        self._served = served(
            model, "mistral", HOSTS["mistral"], DIALECT, reasoning=reasoning, family=family
        )
        self._takes_audio = self._served.takes("audio") is True
        self._url = build_url(self._base_url, "chat/completions")
        self._api_key: str | None = key
        self._temperature: float | None = or_none(temperature)
        self._max_completion_tokens: int | None = or_none(max_completion_tokens)

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
            response_format: the form of the answer: a pydantic model, a TypedDict, a dataclass, or
                the API's own mapping.
            extra_kwargs: further members of the body (``safe_prompt``, ``random_seed``, ...), and
                ``extra_headers``, ``extra_query``, ``extra_body``.

        Raises:
            ConfigurationError: an option or the conversation holds something that cannot be sent.
        """
        extras = NO_EXTRAS if extra_kwargs is NOT_GIVEN else HttpExtras(extra_kwargs)
        fields: dict[str, Any] = {**extras.body, "model": self._model}
        if self._temperature is not None:
            fields["temperature"] = self._temperature
        if self._max_completion_tokens is not None:
            fields["max_tokens"] = self._max_completion_tokens
            fields.pop("max_completion_tokens", None)
        if not isinstance(parallel_tool_calls, NotGiven):
            fields["parallel_tool_calls"] = parallel_tool_calls
        if not isinstance(response_format, NotGiven):
            shape = completions_response_format(response_format)
            if shape is not None:
                fields["response_format"] = shape
        question = _Question(
            dialect=DIALECT,
            decode_error=decode_error,
            extras=extras,
            specs=tool_specs(tools, DIALECT),
            choice=None if isinstance(tool_choice, NotGiven) else named_choice(tool_choice),
            served=self._served,
            takes_audio=self._takes_audio,
            url=build_url(self._url, query=extras.query) if extras.query else self._url,
            api_key=self._api_key,
            options=fields,
        )
        return ask(
            self, question, LLMStream, chat_ctx=chat_ctx, tools=tools, conn_options=conn_options
        )


@dataclass(kw_only=True, eq=False)
class _Question(Question):
    provider = "mistralai"
    compose = staticmethod(request_body)

    url: str
    api_key: str | None = field(repr=False)
    options: Mapping[str, Any]
    """The members of the body beside messages and tools."""

    def part(self, attachment: Attachment) -> dict[str, Any]:
        return attachment_part(attachment)

    def convert(self, items: Sequence[ChatItem]) -> tuple[list[dict[str, Any]], Any]:
        return to_chat_ctx(items)

    async def request(self, body: bytes, connect_timeout: float | None) -> Request:
        own = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if self.api_key is not None:
            own["Authorization"] = f"Bearer {self.api_key}"
        headers = merge_headers(own, self.extras.headers) if self.extras.headers else own
        return Request("POST", self.url, headers, body, connect_timeout)

    def decoder(self, *, allow_empty: bool) -> ReplyDecoder:
        return make_decoder(allow_empty=allow_empty, family=self.family)


def _of_client(client: Any) -> tuple[str | None, str | None]:
    """Key and URL of a ``mistralai.Mistral``, if they can be read."""
    setup = read(client, "sdk_configuration")
    if setup is None:
        return None, None
    security = read(setup, "security")
    if callable(security):
        security = security()
    key = read(security, "api_key")
    url = read(setup, "server_url", str)
    address = url.rstrip("/") if url else None
    if address is not None and not address.endswith("/v1"):
        address += "/v1"
    return (str(key) if key else None), address
