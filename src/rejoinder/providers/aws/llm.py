"""Models on Amazon Bedrock, by ConverseStream."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from rejoinder._core.hosts import HOSTS
from rejoinder._core.items import ChatItem
from rejoinder.clouds.aws import (
    check_region,
    credentials_from,
    dns_suffix,
    is_stale,
)
from rejoinder.errors import ConfigurationError
from rejoinder.providers.answering.decoder import ReplyDecoder
from rejoinder.providers.answering.errors import with_second_chance
from rejoinder.providers.answering.stream import WireStream
from rejoinder.providers.asking.ask import HttpLLM, Question, ask
from rejoinder.providers.asking.attachments import Attachment, attach
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
    has_header,
    merge_headers,
    path_part,
)
from rejoinder.providers.asking.replies import reply_schema
from rejoinder.providers.asking.served import Option as ReasoningOption
from rejoinder.providers.asking.served import served
from rejoinder.providers.asking.tools import tool_specs
from rejoinder.providers.asking.transports import make_transport
from rejoinder.providers.aws.dialect import DIALECT
from rejoinder.providers.aws.format import attachment_block, request_body, to_chat_ctx
from rejoinder.providers.aws.options import Options
from rejoinder.providers.aws.wire import decode_error, make_decoder
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
    from rejoinder.llm.chat_context import ChatContext
    from rejoinder.llm.tool_context import ToolChoice
    from rejoinder.transport._aiohttp import ClientSession
    from rejoinder.transport.http import HttpTransport

__all__ = ["LLM", "LLMStream"]

_CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"
_HOST: Final = re.compile(r"bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.[a-z0-9.-]+")


class LLMStream(WireStream):
    """One reply of a model on Bedrock."""


class LLM(HttpLLM):
    """Models on Amazon Bedrock.

    Args:
        model: a model id, an inference profile or its ARN; default: environment variable
            ``BEDROCK_INFERENCE_PROFILE_ARN``.
        api_key, api_secret: access key id and secret access key; else a Bedrock API key
            (`bearer_token` or ``AWS_BEARER_TOKEN_BEDROCK``), else the environment and the chain of
            botocore (profiles, SSO, metadata services), which is asked in a thread.
        region: default: ``AWS_REGION``, ``AWS_DEFAULT_REGION``, else that of `session` or of the
            AWS configuration. A region in `base_url` takes precedence.
        temperature, max_output_tokens, top_p: ``inferenceConfig``.
        tool_choice: default when `chat()` does not pass one.
        additional_request_fields: ``additionalModelRequestFields``, in the model's own names.
        cache_system, cache_tools: put a cache point behind the system texts, the tools.
        session: a session of botocore, boto3, aiobotocore or aioboto3, to take credentials and
            the region from.
        session_token: goes with temporary `api_key` and `api_secret`.
        bearer_token: a Bedrock API key.
        base_url: else ``AWS_ENDPOINT_URL_BEDROCK_RUNTIME``, ``AWS_ENDPOINT_URL``, else the
            region's own.
        reasoning: how much to think, in the same words for every provider: ``"off"``, ``"low"``,
            ``"medium"``, ``"high"``, or a number of tokens; the API's own options win.
        family: the kind of model, if its name does not show it: a model of the same kind, or a row
            of ``docs/capabilities.md``.
        http_session: your own `aiohttp.ClientSession`; it is not closed here.
        transport: anything that sends requests (see `rejoinder.transport.http`), instead of
            `http_session`; it is not closed here.

    Raises:
        ConfigurationError: no model, an unknown region, or half of a pair of keys.
    """

    @checked_options
    def __init__(
        self,
        *,
        model: NotGivenOr[str] = "global.anthropic.claude-sonnet-4-6",
        api_key: NotGivenOr[str] = NOT_GIVEN,
        api_secret: NotGivenOr[str] = NOT_GIVEN,
        region: NotGivenOr[str] = "us-east-1",
        temperature: NotGivenOr[float] = NOT_GIVEN,
        max_output_tokens: NotGivenOr[int] = NOT_GIVEN,
        top_p: NotGivenOr[float] = NOT_GIVEN,
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
        additional_request_fields: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
        cache_system: bool = False,
        cache_tools: bool = False,
        session: Any = None,
        session_token: NotGivenOr[str] = NOT_GIVEN,
        bearer_token: NotGivenOr[str] = NOT_GIVEN,
        base_url: NotGivenOr[str] = NOT_GIVEN,
        reasoning: NotGivenOr[ReasoningOption] = NOT_GIVEN,
        family: NotGivenOr[str] = NOT_GIVEN,
        http_session: ClientSession | None = None,
        transport: HttpTransport | None = None,
    ) -> None:
        name = or_none(model) or environment("BEDROCK_INFERENCE_PROFILE_ARN")
        if not name:
            raise ConfigurationError(
                "Bedrock: no model. Pass model or set BEDROCK_INFERENCE_PROFILE_ARN"
            )
        address = or_none(base_url) or environment(
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL"
        )
        address = None if address is None else check_base_url(address)
        where: str | None = (
            region if is_given(region) else environment("AWS_REGION", "AWS_DEFAULT_REGION")
        )
        named = None if address is None else _HOST.fullmatch(urlsplit(address).hostname or "")
        if named is not None:
            where = named[1]
        elif where is not None and address is None:
            check_region(where)
        super().__init__(
            model=name,
            provider="AWS Bedrock",
            base_url=address or "",
            transport=make_transport(http_session, transport),
        )
        self._served = served(
            name, "converse", HOSTS["bedrock"], DIALECT, reasoning=reasoning, family=family
        )
        self._takes_audio = self._served.takes("audio") is True
        self._region = where
        self._url: str | None = None
        self._bearer, self._credentials = credentials_from(
            or_none(api_key),
            or_none(api_secret),
            or_none(session_token),
            or_none(bearer_token),
            session,
        )
        self._temperature: float | None = or_none(temperature)
        self._max_output_tokens: int | None = or_none(max_output_tokens)
        self._top_p: float | None = or_none(top_p)
        self._tool_choice: Any = or_none(tool_choice)
        self._additional: dict[str, Any] | None = or_none(additional_request_fields)
        self._cache_system = cache_system
        self._cache_tools = cache_tools

    @checked_options
    def chat(
        self,
        *,
        chat_ctx: ChatContext,
        tools: list[Any] | None = None,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
        temperature: NotGivenOr[float] = NOT_GIVEN,
        response_format: NotGivenOr[Any] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    ) -> LLMStream:
        """Ask the model; see `rejoinder.llm.LLM.chat`.

        Args:
            parallel_tool_calls: accepted; Converse has no such option.
            response_format: the form of the answer: a pydantic model, a TypedDict, a dataclass, or
                a JSON schema. Not every model supports it.
            extra_kwargs: further members of the body (``guardrailConfig``, ``requestMetadata``,
                ...), and ``extra_headers``, ``extra_query``, ``extra_body``.

        Raises:
            ConfigurationError: an option or the conversation holds something that cannot be sent,
                such as an image URL in the last user turn.
        """
        extras = NO_EXTRAS if extra_kwargs is NOT_GIVEN else HttpExtras(extra_kwargs)
        name, schema = "", None
        if not isinstance(response_format, NotGiven):
            name, schema = reply_schema(response_format, "bedrock")
        decode = decode_error
        if self._bearer is None:
            decode = with_second_chance(decode_error, is_stale, self._credentials.renew)
        reasoned: dict[str, Any] = {"additionalModelRequestFields": self._additional or {}}
        asked = self._served.reason(reasoned, extras.reasoning)
        question = _Question(
            dialect=DIALECT,
            decode_error=decode,
            extras=extras,
            specs=tool_specs(tools, DIALECT),
            choice=self._tool_choice if isinstance(tool_choice, NotGiven) else tool_choice,
            served=self._served,
            asked=asked,
            takes_audio=self._takes_audio,
            llm=self,
            options=Options(
                max_tokens=self._max_output_tokens,
                temperature=self._temperature if isinstance(temperature, NotGiven) else temperature,
                top_p=self._top_p,
                additional_request_fields=reasoned.get("additionalModelRequestFields"),
                cache_system=self._cache_system,
                cache_tools=self._cache_tools,
                response_name=name,
                response_schema=schema,
                extra=extras.body,
            ),
        )
        return ask(
            self, question, LLMStream, chat_ctx=chat_ctx, tools=tools, conn_options=conn_options
        )

    async def _resolved_region(self) -> str:
        if self._region is None:
            found = await self._credentials.region()
            if found is None:
                raise ConfigurationError(
                    "region: none was given, and neither AWS_REGION nor the AWS configuration "
                    "names one; pass region='us-east-1' or another"
                )
            self._region = found if self._base_url else check_region(found)
        return self._region

    def _address(self, region: str) -> str:
        return self._base_url or f"https://bedrock-runtime.{region}.{dns_suffix(region)}"

    async def _find_url(self) -> str:
        """The URL of the model; it does not change once the region is known."""
        path = f"model/{path_part('model', self._model)}/converse-stream"
        self._url = build_url(self._address(await self._resolved_region()), path)
        return self._url

    async def _ready(self) -> str:
        if self._bearer is None:
            await self._credentials.get()
        return self._address(await self._resolved_region())


@dataclass(kw_only=True, eq=False)
class _Question(Question):
    provider = "aws"
    compose = staticmethod(request_body)

    llm: LLM
    options: Options

    def part(self, attachment: Attachment) -> dict[str, Any] | None:
        return attachment_block(attachment)

    def attach(self, messages: list[dict[str, Any]], found: dict[str, dict[str, Any]]) -> None:
        attach(messages, found, key="content")

    def convert(self, items: Sequence[ChatItem]) -> tuple[list[dict[str, Any]], Any]:
        return to_chat_ctx(items)

    async def request(self, body: bytes, connect_timeout: float | None) -> Request:
        llm, extras = self.llm, self.extras
        url = llm._url or await llm._find_url()
        if extras.query:
            url = build_url(url, query=extras.query)
        own = {"Accept": _CONTENT_TYPE, "Content-Type": "application/json"}
        if llm._bearer is not None:
            own["Authorization"] = f"Bearer {llm._bearer}"
        headers = merge_headers(own, extras.headers) if extras.headers else own
        request = Request("POST", url, headers, body, connect_timeout)
        if llm._bearer is not None or has_header(headers, "Authorization"):
            return request
        return await llm._credentials.sign_request(request, region=await llm._resolved_region())

    def decoder(self, *, allow_empty: bool) -> ReplyDecoder:
        return make_decoder(allow_empty=allow_empty, family=self.family)
