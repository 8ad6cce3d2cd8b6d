"""OpenAI, Azure OpenAI, and the many servers that speak their dialect."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Unpack
from urllib.parse import urlsplit

from rejoinder._core import dialects
from rejoinder._core.hosts import HOSTS, Host, find_host
from rejoinder._core.items import ChatItem
from rejoinder._core.rules import FOREIGN_STATE
from rejoinder._options import WrongTypeError, mapping, one_of
from rejoinder.errors import ConfigurationError
from rejoinder.llm.tool_context import ToolChoice
from rejoinder.providers.answering.decoder import ReplyDecoder
from rejoinder.providers.answering.stream import WireStream
from rejoinder.providers.asking.ask import HttpLLM, Question, ask
from rejoinder.providers.asking.attachments import Attachment, attach_joined
from rejoinder.providers.asking.checks import check_base_url, checked_options
from rejoinder.providers.asking.fields import (
    NO_EXTRAS,
    HttpExtras,
    build_url,
    merge_headers,
    path_part,
)
from rejoinder.providers.asking.replies import completions_response_format
from rejoinder.providers.asking.served import Option as ReasoningOption
from rejoinder.providers.asking.served import Served, served
from rejoinder.providers.asking.tools import tool_specs
from rejoinder.providers.asking.transports import make_transport
from rejoinder.providers.completions.format import to_messages
from rejoinder.providers.completions.request import named_choice, request_body
from rejoinder.providers.openai import responses_format, responses_wire, wire
from rejoinder.providers.openai.access import (
    Access,
    Secret,
    access_of_azure,
    access_of_client,
    access_of_key,
    resolve_secret,
    with_key,
)
from rejoinder.providers.openai.attachments import FILES, chat_part, responses_part
from rejoinder.providers.openai.dialect import DIALECT, RESPONSES
from rejoinder.providers.openai.options import (
    MoreOptions,
    ReasoningEffort,
    Verbosity,
    conn_options_of,
    plugin_fields,
)
from rejoinder.transport.http import HttpTransport, Request
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
    from rejoinder.transport._aiohttp import ClientSession

__all__ = ["LLM", "LLMStream"]

logger = logging.getLogger("rejoinder")


class LLMStream(WireStream):
    """A reply of an OpenAI model."""


class Preset:
    """A constructor of `LLM` for one host: made from its row in `rejoinder._core.hosts`.

    Args:
        key: key of the row.
    """

    __signature__: inspect.Signature

    def __init__(self, key: str) -> None:
        self._key = key
        host = HOSTS[key]
        self.__name__ = f"with_{key}"
        self.__doc__ = (
            f"{host.name}. The key is `api_key` or ``{host.key_env}``; `options` are those of "
            "`LLM`.\n\nRaises:\n    ConfigurationError: the API key is missing."
        )

    @checked_options
    def __call__(
        self,
        *,
        model: str | None = None,
        api_key: Secret | None = None,
        base_url: str | None = None,
        **options: Unpack[MoreOptions],
    ) -> LLM:
        return LLM.with_host(self._key, model=model, api_key=api_key, base_url=base_url, **options)


class LLM(HttpLLM):
    """A model of OpenAI, or of any server that speaks its dialect.

    Args:
        model: name of the model.
        api_key: or environment variable ``OPENAI_API_KEY``; also a function (sync or async) that
            returns one, called for each attempt. Optional when `base_url` is set.
        base_url: or environment variable ``OPENAI_BASE_URL``.
        client: an ``openai.AsyncOpenAI`` or ``openai.AsyncAzureOpenAI`` whose address, key and
            header fields are taken over; it is not used for anything else.
        user: names the end user to the provider (older form of `safety_identifier`).
        safety_identifier: names the end user to the provider.
        prompt_cache_key: groups requests that share a prefix.
        temperature: randomness; omitted for models that refuse it.
        top_p: nucleus sampling; omitted for the same models.
        parallel_tool_calls: whether several calls may come in one reply.
        tool_choice: which tools the model may or must call; sent only with tools.
        store: whether the provider keeps the reply.
        metadata: labels kept with a stored reply.
        max_completion_tokens: limit of generated tokens, thinking included.
        timeout: seconds, or an object with `connect` and `read` (such as ``httpx.Timeout``): the
            deadlines of calls without their own `conn_options`.
        max_retries: the retries of calls without their own `conn_options`.
        service_tier: ``"auto"``, ``"flex"``, ``"priority"``.
        reasoning_effort: how long to think; some models get a low default, for low latency.
        verbosity: how long the answer is.
        extra_body: further fields, merged over the body.
        extra_headers: further header fields.
        extra_query: further fields of the URL's query.
        http_session: your own ``aiohttp.ClientSession``; it is not closed here.
        transport: anything that sends requests (see `rejoinder.transport.http`), instead of
            `http_session`; it is not closed here.
        api: ``"chat"`` for Chat Completions, ``"responses"`` for the Responses API.
        prompt_cache_retention: ``"in_memory"`` or ``"24h"``.
        trust_done: treat ``[DONE]`` without a `finish_reason` as a complete answer: for servers
            that never send one (Snowflake Cortex). With others this would hide cut answers.
        audio_input: whether the model takes sound; otherwise its transcript is sent. Known for
            OpenAI's audio models, Gemini, Voxtral and Qwen Omni.
        reasoning: how much to think, in the same words for every provider: ``"off"``, ``"low"``,
            ``"medium"``, ``"high"``, or a number of tokens. Translated for the model and its
            host; the provider's own options (`reasoning_effort`, `extra_body`) win.
        family: the kind of model, if its name does not show it (a deployment, a fine-tuned
            model): a model of the same kind, such as ``"gpt-5"``, or a row of
            ``docs/capabilities.md``.

    Raises:
        ConfigurationError: (a `ValueError`) no key, or an address that cannot be used.
    """

    _speaks = "openai"

    @checked_options
    def __init__(
        self,
        *,
        model: str = "gpt-4.1",
        api_key: NotGivenOr[Secret] = NOT_GIVEN,
        base_url: NotGivenOr[str] = NOT_GIVEN,
        client: Any | None = None,
        user: NotGivenOr[str] = NOT_GIVEN,
        safety_identifier: NotGivenOr[str] = NOT_GIVEN,
        prompt_cache_key: NotGivenOr[str] = NOT_GIVEN,
        temperature: NotGivenOr[float] = NOT_GIVEN,
        top_p: NotGivenOr[float] = NOT_GIVEN,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
        store: NotGivenOr[bool] = NOT_GIVEN,
        metadata: NotGivenOr[dict[str, str]] = NOT_GIVEN,
        max_completion_tokens: NotGivenOr[int] = NOT_GIVEN,
        timeout: Any | None = None,
        max_retries: NotGivenOr[int] = NOT_GIVEN,
        service_tier: NotGivenOr[str] = NOT_GIVEN,
        reasoning_effort: NotGivenOr[ReasoningEffort] = NOT_GIVEN,
        verbosity: NotGivenOr[Verbosity] = NOT_GIVEN,
        extra_body: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
        extra_headers: NotGivenOr[dict[str, str]] = NOT_GIVEN,
        extra_query: NotGivenOr[dict[str, str]] = NOT_GIVEN,
        _provider_fmt: NotGivenOr[str] = NOT_GIVEN,
        _strict_tool_schema: bool = True,
        http_session: ClientSession | None = None,
        transport: HttpTransport | None = None,
        api: Literal["chat", "responses"] = "chat",
        prompt_cache_retention: NotGivenOr[str] = NOT_GIVEN,
        trust_done: bool = False,
        audio_input: NotGivenOr[bool] = NOT_GIVEN,
        reasoning: NotGivenOr[ReasoningOption] = NOT_GIVEN,
        family: NotGivenOr[str] = NOT_GIVEN,
        _host: Host | None = None,
        _deployment: str | None = None,
        _access: Access | None = None,
    ) -> None:
        if api not in ("chat", "responses"):
            raise ConfigurationError(f"api: expected 'chat' or 'responses', got {api!r}")
        extras = HttpExtras(
            {
                "extra_body": extra_body,
                "extra_headers": extra_headers,
                "extra_query": extra_query,
            }
        )
        if _access is None:
            _access = (
                access_of_client(client)
                if client is not None
                else access_of_key(_host or HOSTS["openai"], api_key, base_url)
            )
        address = check_base_url(_access.base_url, endpoints=("/chat/completions", "/responses"))
        netloc = urlsplit(address).netloc.rpartition("@")[2]
        super().__init__(
            model=model,
            provider=netloc,
            base_url=_access.base_url,
            transport=make_transport(http_session, transport),
            conn_options=conn_options_of(timeout, max_retries),
        )
        self._fields: dict[str, Any] = {
            name: value
            for name, value in {
                "model": _deployment or model,
                "user": user,
                "safety_identifier": safety_identifier,
                "prompt_cache_key": prompt_cache_key,
                "prompt_cache_retention": prompt_cache_retention,
                "temperature": temperature,
                "top_p": top_p,
                "parallel_tool_calls": parallel_tool_calls,
                "tool_choice": tool_choice,
                "store": store,
                "metadata": metadata,
                "max_completion_tokens": max_completion_tokens,
                "service_tier": service_tier,
                "reasoning_effort": reasoning_effort,
                "verbosity": verbosity,
            }.items()
            if is_given(value) and value is not None
        }
        self._extra_body = extras.body
        self._host = _host or find_host(netloc)
        self._responses = api == "responses"
        self._own_dialect = self._dialect = RESPONSES if self._responses else DIALECT
        if is_given(_provider_fmt):
            self._dialect = dialects.find(_provider_fmt)
        self._served = served(
            model,
            "responses" if self._responses else "chat",
            self._host,
            self._dialect,
            reasoning=reasoning,
            family=family,
        )
        self._takes_audio = (
            audio_input if is_given(audio_input) else self._served.takes("audio") is True
        )
        self._state = () if self._responses else self._served.takes_back(FOREIGN_STATE)
        self._trust_done = trust_done
        known = self._served.family
        self._of_tools: dict[str, Any] = {
            "strict": _strict_tool_schema and known.strict,
            "schema": known.schema,
        }
        self._usual = self._options(NO_EXTRAS)
        self._access = _access
        self._state_host = netloc.lower().removesuffix(":443")
        self._address = build_url(address, "responses" if self._responses else "chat/completions")
        self._query = {**_access.query, **extras.query}
        self._url = build_url(self._address, query=self._query)
        self._headers = merge_headers(
            {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"},
            _access.headers,
            extras.headers,
        )
        if isinstance(_access.key, str):
            self._headers = with_key(self._headers, _access.key, _access.key_header)

    # -- asking ------------------------------------------------------------------------------

    @checked_options
    def chat(
        self,
        *,
        chat_ctx: ChatContext,
        tools: list[Any] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
        response_format: NotGivenOr[type[Any] | dict[str, Any]] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    ) -> LLMStream:
        """See `rejoinder.llm.LLM.chat`.

        Args:
            response_format: the form of the reply: a pydantic model, a ``TypedDict``, a
                dataclass, or OpenAI's own object.
            extra_kwargs: further fields of the body; ``extra_body``, ``extra_headers`` and
                ``extra_query`` as in the constructor. Fields of the constructor win.

        Raises:
            ValueError: an option or a message cannot be sent.
        """
        extra = NO_EXTRAS if extra_kwargs is NOT_GIVEN else HttpExtras(extra_kwargs)
        url = self._url
        if extra.query:
            url = build_url(self._address, query={**self._query, **extra.query})
        fields, choice, served = self._usual if extra is NO_EXTRAS else self._options(extra)
        if not isinstance(tool_choice, NotGiven):
            choice = tool_choice
        if choice is not None:
            choice = named_choice(choice, flat=self._responses)
        if not isinstance(parallel_tool_calls, NotGiven):
            fields = {**fields, "parallel_tool_calls": parallel_tool_calls}
        if not isinstance(response_format, NotGiven):
            schema = self._served.family.schema
            shape = completions_response_format(response_format, schema=schema)
            if shape is not None:
                fields = {**fields, "response_format": shape}
        specs = tool_specs(tools, self._own_dialect, **self._of_tools)
        if self._responses:
            for spec in specs:
                if spec.get("type") == "function":
                    # If `strict` is missing, this API assumes true and changes the schema to fit.
                    spec.setdefault("strict", False)
        question = (_ResponsesQuestion if self._responses else _Question)(
            dialect=self._dialect,
            decode_error=wire.decode_error,
            extras=extra,
            specs=specs,
            choice=choice,
            takes_audio=self._takes_audio,
            served=served,
            state=self._state,
            llm=self,
            url=url,
            options=fields,
        )
        return ask(
            self, question, LLMStream, chat_ctx=chat_ctx, tools=tools, conn_options=conn_options
        )

    def _options(self, extra: HttpExtras) -> tuple[dict[str, Any], object, Served]:
        """For a call with these parameters: the members of the body beside messages and tools, the
        tool choice, and the facts about the model."""
        fields = {**extra.fields, **self._fields}
        choice: object = fields.pop("tool_choice", None)
        served = self._served_by(fields)
        if self._responses:
            if served.family.encrypted:
                fields.setdefault("include", ["reasoning.encrypted_content"])
        elif self._host.limits_by_max_tokens:
            limit = fields.pop("max_completion_tokens", None)
            if limit is not None:
                fields.setdefault("max_tokens", limit)
        if self._extra_body or extra.extra_body:
            fields["extra_body"] = {**self._extra_body, **extra.extra_body}
            served = self._served_by(fields)
        return fields, choice, served

    def _served_by(self, fields: Mapping[str, Any]) -> Served:
        """The facts about the model of a request, because a call may name another model."""
        named = (fields.get("extra_body") or fields).get("model", fields["model"])
        if named in (self._model, self._fields["model"]):
            return self._served
        return self._served.named(str(named))

    # -- other servers -----------------------------------------------------------------------

    @staticmethod
    @checked_options
    def with_azure(
        *,
        model: str = "gpt-4o",
        azure_endpoint: str | None = None,
        azure_deployment: str | None = None,
        api_version: str | None = None,
        api_key: Secret | None = None,
        azure_ad_token: str | None = None,
        azure_ad_token_provider: Secret | None = None,
        organization: str | None = None,
        project: str | None = None,
        base_url: str | None = None,
        user: NotGivenOr[str] = NOT_GIVEN,
        safety_identifier: NotGivenOr[str] = NOT_GIVEN,
        prompt_cache_key: NotGivenOr[str] = NOT_GIVEN,
        temperature: NotGivenOr[float] = NOT_GIVEN,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
        timeout: Any | None = None,
        reasoning_effort: NotGivenOr[ReasoningEffort] = NOT_GIVEN,
        top_p: NotGivenOr[float] = NOT_GIVEN,
        verbosity: NotGivenOr[Verbosity] = NOT_GIVEN,
        max_completion_tokens: NotGivenOr[int] = NOT_GIVEN,
        **options: Any,
    ) -> LLM:
        """Azure OpenAI.

        Args:
            azure_endpoint: or ``AZURE_OPENAI_ENDPOINT``; `base_url` is the alternative.
            azure_deployment: name of the deployment; default `model`.
            api_version: or ``OPENAI_API_VERSION``.
            api_key: or ``AZURE_OPENAI_API_KEY``.
            azure_ad_token: or ``AZURE_OPENAI_AD_TOKEN``; used instead of a key.
            azure_ad_token_provider: a function, sync or async, that gives a token; asked for each
                attempt.
            organization: or ``OPENAI_ORG_ID``.
            project: or ``OPENAI_PROJECT_ID``.
            options: further arguments of `LLM`.

        Raises:
            ConfigurationError: no endpoint, no version, or neither key nor token.
        """
        responses = options.get("api") == "responses"
        access = access_of_azure(
            endpoint=azure_endpoint,
            deployment=azure_deployment or model,
            version=api_version,
            key=api_key,
            token=azure_ad_token_provider or azure_ad_token,
            organization=organization,
            project=project,
            base_url=base_url,
            responses=responses,
        )
        return LLM(
            model=model,
            user=user,
            safety_identifier=safety_identifier,
            prompt_cache_key=prompt_cache_key,
            temperature=temperature,
            parallel_tool_calls=parallel_tool_calls,
            tool_choice=tool_choice,
            timeout=timeout,
            reasoning_effort=reasoning_effort,
            top_p=top_p,
            verbosity=verbosity,
            max_completion_tokens=max_completion_tokens,
            _access=access,
            _host=HOSTS["azure"],
            # The address names the deployment in Chat Completions, the body in Responses.
            _deployment=(azure_deployment or model) if responses else None,
            **options,
        )

    @staticmethod
    @checked_options
    def with_host(
        host: str,
        *,
        model: str | None = None,
        api_key: Secret | None = None,
        base_url: str | None = None,
        **options: Unpack[MoreOptions],
    ) -> LLM:
        """A model at a host of the table `rejoinder._core.hosts.HOSTS`.

        Args:
            host: key of the row, which supplies omitted arguments.
            options: those of `LLM`.

        Raises:
            ConfigurationError: the row has no address and `base_url` is left out.
        """
        one_of(*HOSTS).check("LLM.with_host.host", host)
        row = HOSTS[host]
        if not base_url and not row.base_url:
            raise ConfigurationError(
                f"LLM.with_host({host!r}): the table has no address for this host; pass base_url="
            )
        if row.tool_choice is not None:
            options.setdefault("tool_choice", row.tool_choice)
        options.setdefault("_strict_tool_schema", row.strict_tools)
        return LLM(
            model=model or row.model,
            api_key=api_key or NOT_GIVEN,
            base_url=base_url or row.base_url,
            _host=row,
            **options,
        )

    with_cerebras = Preset("cerebras")
    with_fireworks = Preset("fireworks")
    with_x_ai = Preset("x_ai")
    with_deepseek = Preset("deepseek")
    with_cometapi = Preset("cometapi")
    with_octo = Preset("octo")
    with_perplexity = Preset("perplexity")
    with_together = Preset("together")
    with_telnyx = Preset("telnyx")
    with_nebius = Preset("nebius")
    with_sambanova = Preset("sambanova")
    with_ovhcloud = Preset("ovhcloud")

    @staticmethod
    @checked_options
    def with_openrouter(
        *,
        model: str = "auto",
        api_key: Secret | None = None,
        base_url: str = "https://openrouter.ai/api/v1",
        site_url: str | None = None,
        app_name: str | None = None,
        fallback_models: list[str] | None = None,
        provider: Mapping[str, Any] | None = None,
        plugins: Sequence[Any] | None = None,
        **options: Unpack[MoreOptions],
    ) -> LLM:
        """OpenRouter. The key is `api_key` or ``OPENROUTER_API_KEY``.

        Args:
            site_url: your site, for OpenRouter's rankings.
            app_name: your application, for the same.
            fallback_models: models to try, in order, if `model` is unavailable.
            provider: preferences among the hosts of a model, e.g. ``{"order": [...]}``.
            plugins: objects or dicts such as ``{"id": "web", "max_results": 5}``.
            options: those of `LLM`.

        Raises:
            ConfigurationError: no key.
        """
        given = options.get("extra_headers")
        if isinstance(given, Mapping):
            mapping().check("LLM.with_openrouter.extra_headers", given)
        headers: dict[str, str] = {}
        if site_url:
            headers["HTTP-Referer"] = site_url
        if app_name:
            headers["X-Title"] = app_name
        body: dict[str, Any] = {}
        if provider:
            body["provider"] = dict(provider)
        if fallback_models:
            body["models"] = [model, *fallback_models]
        if plugins:
            body["plugins"] = [plugin_fields(plugin) for plugin in plugins]
        extras = HttpExtras({name: options.get(name) for name in ("extra_headers", "extra_body")})
        options["extra_headers"] = headers | extras.headers
        options["extra_body"] = {**body, **extras.body}
        return LLM.with_host(
            "openrouter", model=model, api_key=api_key, base_url=base_url, **options
        )

    @staticmethod
    @checked_options
    def with_ollama(
        *,
        model: str = "llama3.1",
        base_url: str = "http://localhost:11434/v1",
        **options: Unpack[MoreOptions],
    ) -> LLM:
        """Ollama on this machine; no key is needed. `options` are those of `LLM`."""
        _refuse_options("with_ollama", options, "api_key")
        return LLM.with_host("ollama", model=model, api_key="ollama", base_url=base_url, **options)

    @staticmethod
    @checked_options
    def with_letta(
        *,
        agent_id: str,
        base_url: str = "https://api.letta.com/v1/voice-beta",
        api_key: Secret | None = None,
        **options: Unpack[MoreOptions],
    ) -> LLM:
        """An agent of Letta. The key is `api_key` or ``LETTA_API_KEY``.

        Args:
            agent_id: id of the agent; it becomes part of the address.
            base_url: address of a Letta server.
            options: those of `LLM`.

        Raises:
            ConfigurationError: no key, or `base_url` is not an http address.
        """
        _refuse_options("with_letta", options, "model")
        return LLM.with_host(
            "letta",
            model=HOSTS["letta"].model,
            api_key=api_key,
            base_url=f"{base_url.rstrip('/')}/{path_part('agent_id', agent_id)}",
            **options,
        )


def _refuse_options(where: str, options: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if name in options:
            raise WrongTypeError(f"LLM.{where}.{name}: is fixed here; leave it out")


LLM.__module__ = LLMStream.__module__ = "rejoinder.providers.openai"


@dataclass(kw_only=True, eq=False)
class _Question(Question):
    provider = "openai"
    files = FILES
    compose = staticmethod(request_body)

    llm: LLM
    url: str = field(repr=False)
    options: Mapping[str, Any]
    """The members of the body beside messages and tools."""

    def part(self, attachment: Attachment) -> dict[str, Any] | None:
        return chat_part(attachment)

    def convert(self, items: Sequence[ChatItem]) -> tuple[list[dict[str, Any]], Any]:
        if self.dialect is not DIALECT:
            return self.dialect.convert(items)
        llm = self.llm
        messages = to_messages(
            items,
            reasoning_back=llm._served.family.reasoning_back,
            reasoning_details=llm._host.reasoning_details,
            host=llm._state_host,
        )
        return messages, None

    async def request(self, body: bytes, connect_timeout: float | None) -> Request:
        llm = self.llm
        # Call the caller's function before any header field is a local variable: a reporter of its
        # error shows the variables of this frame.
        key = llm._access.key
        made = None if key is None or isinstance(key, str) else await resolve_secret(key)
        headers = llm._headers
        if self.extras.headers:
            headers = merge_headers(headers, self.extras.headers)
        if made is not None:
            headers = with_key(headers, made, llm._access.key_header)
        return Request("POST", self.url, headers, body, connect_timeout)

    def decoder(self, *, allow_empty: bool) -> ReplyDecoder:
        llm = self.llm
        return wire.make_decoder(
            allow_empty=allow_empty,
            trust_done=llm._trust_done,
            family=self.family,
            host=llm._state_host,
        )


class _ResponsesQuestion(_Question):
    compose = staticmethod(responses_format.request_body)

    def part(self, attachment: Attachment) -> dict[str, Any] | None:
        return responses_part(attachment)

    def attach(self, messages: list[dict[str, Any]], found: dict[str, dict[str, Any]]) -> None:
        attach_joined(messages, found, text_type="input_text")

    def own_state(self, items: Sequence[ChatItem]) -> Sequence[ChatItem]:
        items = responses_format.without_foreign_state(items, self.llm._state_host)
        extra: Mapping[str, Any] = self.options.get("extra_body") or {}
        if extra.get("store", self.options.get("store")) is False:
            items = responses_format.without_stored_state(items)
        return items

    def convert(self, items: Sequence[ChatItem]) -> tuple[list[dict[str, Any]], Any]:
        return responses_format.to_chat_ctx(items)

    def decoder(self, *, allow_empty: bool) -> ReplyDecoder:
        return responses_wire.make_decoder(
            allow_empty=allow_empty, host=self.llm._state_host, family=self.family
        )


def _show_signatures() -> None:
    """Let `help` and editors see which options the constructors of other servers take."""
    own = inspect.signature(LLM.__init__).parameters
    for name in [*HOSTS, "azure"]:
        constructor = getattr(LLM, f"with_{name}", None)
        if constructor is None:
            continue
        signature = inspect.signature(constructor)
        row = HOSTS[name]
        defaults = {"model": row.model, "base_url": row.base_url, "tool_choice": row.tool_choice}
        shown: dict[str, inspect.Parameter] = {}
        for key, parameter in signature.parameters.items():
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                default = defaults.get(key) if isinstance(constructor, Preset) else None
                shown[key] = parameter.replace(default=default) if default else parameter
        for key in MoreOptions.__annotations__:
            if key in own and key not in shown and not (key == "client" and name == "azure"):
                choice = key == "tool_choice" and defaults[key]
                shown[key] = own[key].replace(default=choice) if choice else own[key]
        constructor.__signature__ = signature.replace(parameters=list(shown.values()))


_show_signatures()
