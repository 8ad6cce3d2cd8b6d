"""Claude over the Messages API: Anthropic's own, Bedrock's, Vertex AI's, Azure's, or a local server's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

from rejoinder._core.families import UNKNOWN
from rejoinder._core.hosts import HOSTS
from rejoinder._core.items import ChatItem
from rejoinder._foreign import read
from rejoinder._options import COUNT, checked
from rejoinder.errors import ConfigurationError
from rejoinder.providers.answering.decoder import ReplyDecoder
from rejoinder.providers.answering.stream import WireStream
from rejoinder.providers.anthropic.dialect import DIALECT
from rejoinder.providers.anthropic.format import (
    attachment_block,
    go_on,
    request_body,
    to_chat_ctx,
)
from rejoinder.providers.anthropic.hosts import (
    BedrockHost,
    DirectHost,
    Host,
    VertexHost,
    find_host,
)
from rejoinder.providers.anthropic.options import Options
from rejoinder.providers.anthropic.state import of_host
from rejoinder.providers.anthropic.wire import make_decoder
from rejoinder.providers.asking.ask import HttpLLM, Question, ask
from rejoinder.providers.asking.attachments import Attachment, attach
from rejoinder.providers.asking.checks import OPTION_RULES, checked_options, environment, or_none
from rejoinder.providers.asking.fields import (
    NO_EXTRAS,
    HttpExtras,
    has_header,
)
from rejoinder.providers.asking.replies import reply_schema
from rejoinder.providers.asking.served import Option as ReasoningOption
from rejoinder.providers.asking.served import served
from rejoinder.providers.asking.tools import tool_specs
from rejoinder.providers.asking.transports import make_transport
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


class LLMStream(WireStream):
    """One reply of a Claude model."""


class LLM(HttpLLM):
    """Claude models, by the Messages API.

    The host determines how a request is signed and addressed. It is recognized by `base_url`, or chosen
    by `with_bedrock`, `with_vertex` and `with_azure`. Any other URL is a server that speaks Anthropic's
    own API.

    Args:
        model: the host's name of the model.
        api_key: key of Anthropic or Azure; else ``ANTHROPIC_API_KEY``. Optional when `base_url` is
            set.
        auth_token: sent as ``Authorization: Bearer`` instead of a key; else
            ``ANTHROPIC_AUTH_TOKEN``.
        base_url: the address before ``/v1/messages``; else ``ANTHROPIC_BASE_URL``, else
            ``https://api.anthropic.com``.
        user: an opaque name of the end user, sent as ``metadata.user_id``.
        client: an object with `api_key` and `base_url`, such as ``anthropic.AsyncAnthropic``;
            these two are taken from it.
        top_k, temperature: sampling, as in the API.
        max_tokens: limit of generated tokens, which the API requires: 1024 by default.
        parallel_tool_calls: whether several calls may come in one reply.
        tool_choice: default when `chat()` does not pass one.
        caching: ``"ephemeral"`` sets up to four cache breakpoints; a mapping such as
            ``{"type": "ephemeral", "ttl": "1h"}`` sets them with these members.
        strict_tools: let the API enforce the schemas of tools.
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

    _speaks = "anthropic"

    @checked(**OPTION_RULES | {"top_k": COUNT})
    def __init__(
        self,
        *,
        model: str = "claude-sonnet-4-6",
        api_key: NotGivenOr[str] = NOT_GIVEN,
        base_url: NotGivenOr[str] = NOT_GIVEN,
        user: NotGivenOr[str] = NOT_GIVEN,
        client: Any = None,
        top_k: NotGivenOr[int] = NOT_GIVEN,
        max_tokens: NotGivenOr[int] = NOT_GIVEN,
        temperature: NotGivenOr[float] = NOT_GIVEN,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
        caching: NotGivenOr[Literal["ephemeral"] | Mapping[str, Any]] = NOT_GIVEN,
        auth_token: NotGivenOr[str] = NOT_GIVEN,
        strict_tools: bool = False,
        reasoning: NotGivenOr[ReasoningOption] = NOT_GIVEN,
        family: NotGivenOr[str] = NOT_GIVEN,
        http_session: ClientSession | None = None,
        transport: HttpTransport | None = None,
        _host: Host | None = None,
    ) -> None:
        if _host is None:
            if client is not None:
                if not is_given(api_key) and (key := read(client, "api_key")):
                    api_key = str(key)
                if not is_given(base_url) and (url := read(client, "base_url")):
                    base_url = str(url)
            _host = find_host(or_none(api_key), or_none(auth_token), or_none(base_url))
        super().__init__(
            model=model,
            provider=urlsplit(_host.base_url).netloc,
            base_url=_host.base_url,
            transport=make_transport(http_session, transport),
        )
        self._host = _host
        self._served = served(
            model,
            "messages",
            HOSTS.get(_host.platform, HOSTS["anthropic"]),
            DIALECT,
            reasoning=reasoning,
            family=family,
        )
        claude = _host.hosts_claude or self._served.family.maker == "anthropic"
        self._mark = "" if claude else self._provider
        self._reasoning: ReasoningOption | None = or_none(reasoning)
        self._max_tokens: int | None = or_none(max_tokens)
        self._temperature: float | None = or_none(temperature)
        self._top_k: int | None = or_none(top_k)
        self._user: str | None = or_none(user)
        self._caching: str | Mapping[str, Any] | None = or_none(caching)
        self._parallel_tool_calls: bool | None = or_none(parallel_tool_calls)
        self._tool_choice: Any = or_none(tool_choice)
        self._strict_tools = strict_tools

    @classmethod
    @checked_options
    def with_bedrock(
        cls,
        *,
        model: str,
        api_key: NotGivenOr[str] = NOT_GIVEN,
        api_secret: NotGivenOr[str] = NOT_GIVEN,
        session_token: NotGivenOr[str] = NOT_GIVEN,
        bearer_token: NotGivenOr[str] = NOT_GIVEN,
        region: NotGivenOr[str] = NOT_GIVEN,
        base_url: NotGivenOr[str] = NOT_GIVEN,
        session: Any = None,
        **options: Any,
    ) -> Self:
        """A Claude model on Amazon Bedrock, by ``invoke-with-response-stream``.

        Args:
            model: e.g. ``us.anthropic.claude-sonnet-4-5-20250929-v1:0``, or an inference profile.
            api_key, api_secret, session_token: AWS credentials; else ``bearer_token``, else
                ``AWS_BEARER_TOKEN_BEDROCK``, else the environment and botocore's chain.
            region: else that of `base_url`, ``AWS_REGION``, ``AWS_DEFAULT_REGION``, us-east-1.
            session: a session of botocore, boto3 or aioboto3 to take credentials from.
            options: as for `LLM`.

        Raises:
            ConfigurationError: half of a pair of keys, or an unknown region.
        """
        host = BedrockHost(
            or_none(api_key),
            or_none(api_secret),
            or_none(session_token),
            or_none(bearer_token),
            or_none(region),
            or_none(base_url),
            session,
        )
        return cls(model=model, _host=host, **options)

    @classmethod
    @checked_options
    def with_vertex(
        cls,
        *,
        model: str,
        project: NotGivenOr[str] = NOT_GIVEN,
        location: NotGivenOr[str] = NOT_GIVEN,
        credentials: Any = None,
        access_token: NotGivenOr[str] = NOT_GIVEN,
        base_url: NotGivenOr[str] = NOT_GIVEN,
        **options: Any,
    ) -> Self:
        """A Claude model on Vertex AI.

        Args:
            model: e.g. ``claude-sonnet-4-5@20250929``.
            project: else ``ANTHROPIC_VERTEX_PROJECT_ID``, ``GOOGLE_CLOUD_PROJECT``, else that of the
                credentials.
            location: else ``CLOUD_ML_REGION``, ``GOOGLE_CLOUD_LOCATION``, else ``global``.
            credentials: credentials of google-auth; else the application default ones.
            access_token: a token, used unchanged.
            options: as for `LLM`.
        """
        host = VertexHost(
            or_none(project),
            or_none(location),
            credentials,
            or_none(access_token),
            or_none(base_url),
        )
        return cls(model=model, _host=host, **options)

    @classmethod
    @checked_options
    def with_azure(
        cls,
        *,
        model: str,
        resource: NotGivenOr[str] = NOT_GIVEN,
        api_key: NotGivenOr[str] = NOT_GIVEN,
        azure_ad_token: NotGivenOr[str] = NOT_GIVEN,
        base_url: NotGivenOr[str] = NOT_GIVEN,
        **options: Any,
    ) -> Self:
        """A Claude deployment on Azure AI Foundry.

        Args:
            model: the name of the deployment.
            resource: the resource; else ``ANTHROPIC_FOUNDRY_RESOURCE``. Or give `base_url`, else
                ``ANTHROPIC_FOUNDRY_BASE_URL``: ``https://{resource}.services.ai.azure.com/anthropic``.
            api_key: else ``ANTHROPIC_FOUNDRY_API_KEY``.
            azure_ad_token: sent as ``Authorization: Bearer`` instead of the key.
            options: as for `LLM`.

        Raises:
            ConfigurationError: no address or no key.
        """
        address = or_none(base_url) or environment("ANTHROPIC_FOUNDRY_BASE_URL")
        if address is None:
            name = or_none(resource) or environment("ANTHROPIC_FOUNDRY_RESOURCE")
            if name is None:
                raise ConfigurationError(
                    "Azure: pass resource or base_url, or set ANTHROPIC_FOUNDRY_RESOURCE"
                )
            address = f"https://{name}.services.ai.azure.com/anthropic"
        token = or_none(azure_ad_token)
        key = None if token else or_none(api_key) or environment("ANTHROPIC_FOUNDRY_API_KEY")
        if not key and not token:
            raise ConfigurationError(
                "Azure: pass api_key or azure_ad_token, or set ANTHROPIC_FOUNDRY_API_KEY"
            )
        return cls(model=model, _host=DirectHost(address, key, token, "azure"), **options)

    @property
    def continues_prefill(self) -> bool:
        """Whether the model continues a reply at the end of the history. Newer models refuse to, and all
        models refuse while they think or must follow a schema."""
        return self._served.family.prefill and self._reasoning in (None, "off", 0)

    def _continues(self, extra_kwargs: NotGivenOr[dict[str, Any]]) -> bool:
        return self.continues_prefill and not _forbids_prefill(HttpExtras(extra_kwargs).body)

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
                a JSON schema.
            extra_kwargs: further members of the body (``thinking``, ``stop_sequences``, ...), and
                ``extra_headers``, ``extra_query``, ``extra_body``, ``betas`` (a list).

        Raises:
            ConfigurationError: an option or the conversation holds something that cannot be sent.
        """
        extras = NO_EXTRAS if extra_kwargs is NOT_GIVEN else HttpExtras(extra_kwargs)
        members = {**extras.body}
        betas: list[str] = list(map(str, members.pop("betas", None) or ()))
        if self._host.platform == "bedrock" and betas:
            members["anthropic_beta"] = betas
        elif betas and not has_header(extras.headers, "anthropic-beta"):
            extras.headers["anthropic-beta"] = ",".join(betas)
        schema = None
        if not isinstance(response_format, NotGiven):
            _, schema = reply_schema(response_format, "anthropic")
        asked = self._served.reason(members, extras.reasoning)
        prefill = self._served.family.prefill and schema is None
        if members and _forbids_prefill(members):
            prefill = False
        question = _Question(
            dialect=DIALECT,
            decode_error=self._host.errors(),
            extras=extras,
            specs=tool_specs(
                tools,
                DIALECT,
                strict=self._strict_tools and self._served.family.strict,
            ),
            choice=self._tool_choice if isinstance(tool_choice, NotGiven) else tool_choice,
            served=self._served,
            asked=asked,
            prefill=prefill,
            host=self._host,
            mark=self._mark,
            options=Options(
                model=self._model,
                platform=self._host.platform,
                max_tokens=self._max_tokens,
                temperature=self._temperature,
                top_k=self._top_k,
                user=self._user,
                caching=self._caching,
                parallel_tool_calls=self._parallel_tool_calls
                if isinstance(parallel_tool_calls, NotGiven)
                else parallel_tool_calls,
                response_schema=schema,
                extra=members,
            ),
        )
        return ask(
            self, question, LLMStream, chat_ctx=chat_ctx, tools=tools, conn_options=conn_options
        )

    async def _ready(self) -> str:
        await self._host.warm()
        return self._host.base_url


@dataclass(kw_only=True, eq=False)
class _Question(Question):
    provider = "anthropic"
    compose = staticmethod(request_body)
    may_pause = True

    host: Host
    mark: str
    """The only server that can read the state of this model; empty for Claude."""
    options: Options

    def part(self, attachment: Attachment) -> dict[str, Any] | None:
        return attachment_block(attachment)

    def attach(self, messages: list[dict[str, Any]], found: dict[str, dict[str, Any]]) -> None:
        attach(messages, found, key="content")

    def own_state(self, items: Sequence[ChatItem]) -> Sequence[ChatItem]:
        return of_host(items, self.mark, unmarked=not self.mark or self.family is UNKNOWN)

    def convert(self, items: Sequence[ChatItem]) -> tuple[list[dict[str, Any]], Any]:
        return to_chat_ctx(items)

    def go_on(self, body: dict[str, Any], parts: Sequence[dict[str, Any]]) -> None:
        go_on(body, parts)

    async def request(self, body: bytes, connect_timeout: float | None) -> Request:
        return await self.host.request(self.options.model, self.extras, body, connect_timeout)

    def decoder(self, *, allow_empty: bool) -> ReplyDecoder:
        return make_decoder(
            allow_empty=allow_empty,
            framing=self.host.framing,
            host=self.mark,
            family=self.family,
        )


def _forbids_prefill(extra: Mapping[str, Any]) -> bool:
    """Whether members of the body exclude a prefilled reply."""
    shape = extra.get("output_config")
    if extra.get("output_format") or (
        isinstance(shape, Mapping) and cast("Mapping[str, Any]", shape).get("format")
    ):
        return True
    thinking = extra.get("thinking")
    if not isinstance(thinking, Mapping):
        return False
    return cast("Mapping[str, Any]", thinking).get("type") != "disabled"
