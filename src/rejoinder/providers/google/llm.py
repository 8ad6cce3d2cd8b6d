"""Gemini, by the Gemini API or by Vertex AI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from rejoinder._core.hosts import HOSTS
from rejoinder._core.items import ChatItem
from rejoinder._core.output import OutputSpec
from rejoinder._core.schema_compiler import compile_schema
from rejoinder._foreign import dumps
from rejoinder._options import mapping
from rejoinder._sections import explained
from rejoinder.clouds.google import (
    GoogleCredentials,
    check_location,
    is_stale,
    vertex_host,
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
    merge_headers,
    path_part,
)
from rejoinder.providers.asking.replies import reply_type, tell
from rejoinder.providers.asking.served import Option as ReasoningOption
from rejoinder.providers.asking.served import served
from rejoinder.providers.asking.tools import tool_specs
from rejoinder.providers.asking.transports import make_transport
from rejoinder.providers.google.dialect import DIALECT
from rejoinder.providers.google.format import attachment_part, request_body, to_contents
from rejoinder.providers.google.options import (
    GENERATION_FIELDS,
    Options,
    built_in_tools,
    member_of,
    plain,
)
from rejoinder.providers.google.schema import gemini_schema
from rejoinder.providers.google.wire import decode_error, make_decoder
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

_GEMINI_URL: Final = "https://generativelanguage.googleapis.com"


class LLMStream(WireStream):
    """One reply of a Gemini model."""


class LLM(HttpLLM):
    """Gemini models.

    Args:
        model: e.g. ``gemini-2.5-flash``; on Vertex AI also a full resource name.
        api_key: key of the Gemini API; else ``GOOGLE_API_KEY``, else ``GEMINI_API_KEY``. With
            `vertexai` and no project it is used for Vertex AI's express mode.
        vertexai: use Vertex AI; else by ``GOOGLE_GENAI_USE_VERTEXAI`` (``1`` or ``true``).
        project: project in Google Cloud; else ``GOOGLE_CLOUD_PROJECT``, else that of the credentials.
        location: location in Google Cloud; else ``GOOGLE_CLOUD_LOCATION``, else ``us-central1``.
        temperature, max_output_tokens, top_p, top_k, presence_penalty, frequency_penalty, seed:
            as in the API.
        tool_choice: default when `chat()` does not pass one.
        thinking_config: ``{"thinking_budget": 0}``, ``{"thinking_level": "low"}``,
            ``{"include_thoughts": True}``, or an object of google-genai.
        automatic_function_calling_config: accepted for compatibility; tools run on your side.
        gemini_tools: Google's own tools; see `rejoinder.providers.google.options.built_in_tools`.
        http_options: a mapping or object with `base_url`, `api_version` and `headers`; deadlines
            are those of `APIConnectOptions`.
        safety_settings, service_tier, cached_content, media_resolution, retrieval_config: as in the
            API, as mappings or objects of google-genai.
        credentials: credentials of google-auth, for Vertex AI; else the application default ones.
        base_url: the address before ``/v1beta/models``; else ``GOOGLE_GEMINI_BASE_URL`` or
            ``GOOGLE_VERTEX_BASE_URL``.
        reasoning: how much to think, in the same words for every provider: ``"off"``, ``"low"``,
            ``"medium"``, ``"high"``, or a number of tokens; the API's own options win.
        family: the kind of model, if its name does not show it: a model of the same kind, or a row
            of ``docs/capabilities.md``.
        http_session: your own `aiohttp.ClientSession`; it is not closed here.
        transport: anything that sends requests (see `rejoinder.transport.http`), instead of
            `http_session`; it is not closed here.

    Raises:
        ConfigurationError: the API key is missing, `base_url` is not a valid URL, or the API does not know an
            option.
    """

    @checked_options
    def __init__(
        self,
        *,
        model: str = "gemini-3.5-flash",
        api_key: NotGivenOr[str] = NOT_GIVEN,
        vertexai: NotGivenOr[bool] = NOT_GIVEN,
        project: NotGivenOr[str] = NOT_GIVEN,
        location: NotGivenOr[str] = NOT_GIVEN,
        temperature: NotGivenOr[float] = NOT_GIVEN,
        max_output_tokens: NotGivenOr[int] = NOT_GIVEN,
        top_p: NotGivenOr[float] = NOT_GIVEN,
        top_k: NotGivenOr[float] = NOT_GIVEN,
        presence_penalty: NotGivenOr[float] = NOT_GIVEN,
        frequency_penalty: NotGivenOr[float] = NOT_GIVEN,
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
        thinking_config: NotGivenOr[Any] = NOT_GIVEN,
        automatic_function_calling_config: NotGivenOr[Any] = NOT_GIVEN,
        gemini_tools: NotGivenOr[Sequence[Any]] = NOT_GIVEN,
        http_options: NotGivenOr[Any] = NOT_GIVEN,
        seed: NotGivenOr[int] = NOT_GIVEN,
        safety_settings: NotGivenOr[Sequence[Any]] = NOT_GIVEN,
        service_tier: NotGivenOr[str] = NOT_GIVEN,
        cached_content: NotGivenOr[str] = NOT_GIVEN,
        media_resolution: NotGivenOr[str] = NOT_GIVEN,
        retrieval_config: NotGivenOr[Any] = NOT_GIVEN,
        credentials: Any = None,
        base_url: NotGivenOr[str] = NOT_GIVEN,
        reasoning: NotGivenOr[ReasoningOption] = NOT_GIVEN,
        family: NotGivenOr[str] = NOT_GIVEN,
        http_session: ClientSession | None = None,
        transport: HttpTransport | None = None,
    ) -> None:
        http: Any = plain(or_none(http_options)) or {}
        mapping("a mapping or an object with base_url, api_version and headers").check(
            "LLM.http_options", http
        )
        raw: Any = or_none(http_options)
        if isinstance(raw, Mapping):
            sent = cast("Mapping[str, Any]", raw).get("headers")
        else:
            sent = http.get("headers")
        headers = HttpExtras({"extra_headers": sent}).headers
        address = or_none(base_url) or http.get("baseUrl")
        version = http.get("apiVersion")
        vertex: bool | None = or_none(vertexai)
        if vertex is None:
            vertex = (environment("GOOGLE_GENAI_USE_VERTEXAI") or "").lower() in ("1", "true")
        key: str | None = or_none(api_key)
        own_project: str | None = None
        own_credentials: GoogleCredentials | None = None
        where = ""
        if vertex:
            own_project = or_none(project) or environment("GOOGLE_CLOUD_PROJECT")
            where = or_none(location) or environment("GOOGLE_CLOUD_LOCATION") or "us-central1"
            if key and (or_none(project) is not None or credentials is not None):
                key = None  # a project or credentials mean the account
            if key is None:
                own_credentials = GoogleCredentials(credentials)
            elif not is_given(location):
                where = "global"
            address = address or environment("GOOGLE_VERTEX_BASE_URL")
            if not address:
                address = f"https://{vertex_host(check_location(where))}"
            version = version or "v1beta1"
        else:
            key = key or environment("GOOGLE_API_KEY", "GEMINI_API_KEY")
            custom = address or environment("GOOGLE_GEMINI_BASE_URL")
            if not key and not custom:
                raise ConfigurationError(
                    explained(
                        "Gemini: no API key. Pass api_key or set GOOGLE_API_KEY; for Vertex AI pass "
                        "vertexai=True",
                        "no key",
                    )
                )
            address = custom or _GEMINI_URL
            version = version or "v1beta"
        super().__init__(
            model=model,
            provider="Vertex AI" if vertex else "Gemini",
            base_url=_with_version(check_base_url(address), str(version)),
            transport=make_transport(http_session, transport),
        )
        self._served = served(
            model,
            "gemini",
            HOSTS["vertex" if vertex else "gemini"],
            DIALECT,
            reasoning=reasoning,
            family=family,
        )
        self._headers = headers
        self._vertexai = vertex
        self._api_key = key
        self._project = own_project
        self._location = where
        self._credentials = own_credentials
        self._tool_choice: Any = or_none(tool_choice)
        self._built_in = built_in_tools(or_none(gemini_tools) or ())
        self._generation: dict[str, Any] = {
            name: value
            for name, value in {
                "temperature": or_none(temperature),
                "maxOutputTokens": or_none(max_output_tokens),
                "topP": or_none(top_p),
                "topK": or_none(top_k),
                "presencePenalty": or_none(presence_penalty),
                "frequencyPenalty": or_none(frequency_penalty),
                "seed": or_none(seed),
                "mediaResolution": plain(or_none(media_resolution)),
                "thinkingConfig": _thinking(or_none(thinking_config)),
            }.items()
            if value is not None
        }
        self._extra_config: dict[str, Any] = {
            name: value
            for name, value in {
                "safetySettings": plain(or_none(safety_settings)),
                "serviceTier": plain(or_none(service_tier)),
                "cachedContent": or_none(cached_content),
            }.items()
            if value is not None
        }
        self._retrieval_config: Any = plain(or_none(retrieval_config))

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
        gemini_tools: NotGivenOr[Sequence[Any]] = NOT_GIVEN,
    ) -> LLMStream:
        """Ask the model; see `rejoinder.llm.LLM.chat`.

        Args:
            parallel_tool_calls: accepted; Gemini has no such option.
            response_format: the form of the answer: a pydantic model, a TypedDict, a dataclass, or
                a JSON schema.
            extra_kwargs: further members of ``generationConfig`` or of the body, and
                ``extra_headers``, ``extra_query``, ``extra_body``.
            gemini_tools: Google's own tools, instead of those of this LLM.

        Raises:
            ConfigurationError: an option or the conversation holds something that cannot be sent.
        """
        extras = NO_EXTRAS if extra_kwargs is NOT_GIVEN else HttpExtras(extra_kwargs)
        generation: dict[str, Any] = {}
        extra_config: dict[str, Any] = {}
        for name, value in extras.body.items():
            member = member_of(name)
            if member in GENERATION_FIELDS:
                generation[member] = (
                    _thinking(value)
                    if member == "thinkingConfig"
                    else value
                    if member in ("responseSchema", "responseJsonSchema")
                    else plain(value)
                )
            elif member not in ("httpOptions", "automaticFunctionCalling"):
                extra_config[member] = value if member == "labels" else plain(value)
        specs: list[dict[str, Any]] = []
        theirs: list[dict[str, Any]] = []
        for spec in tool_specs(tools, DIALECT):
            (specs if "name" in spec else theirs).append(spec)
        built_in = self._built_in
        if not isinstance(gemini_tools, NotGiven) and gemini_tools is not None:
            built_in = built_in_tools(gemini_tools)
        if theirs:
            built_in = [*built_in, *built_in_tools(theirs)]
        schema, json_schema = None, None
        if not isinstance(response_format, NotGiven):
            schema, json_schema = _response(response_format)
        options = Options(
            generation={**generation, **self._generation},
            extra_config={**extra_config, **self._extra_config},
            built_in=built_in,
            combines_tools=not self._vertexai and self._served.family.built_in_with_tools,
            call_ids=not self._vertexai,
            response_schema=schema,
            response_json_schema=json_schema,
            retrieval_config=self._retrieval_config,
        )
        decode = decode_error
        if self._credentials is not None:
            decode = with_second_chance(decode_error, is_stale, self._credentials.renew)
        question = _Question(
            dialect=DIALECT,
            decode_error=decode,
            extras=extras,
            specs=specs,
            choice=self._tool_choice if isinstance(tool_choice, NotGiven) else tool_choice,
            served=self._served,
            signatures=self._served.family.signed_calls,
            llm=self,
            options=options,
        )
        return ask(
            self, question, LLMStream, chat_ctx=chat_ctx, tools=tools, conn_options=conn_options
        )

    async def _address(self) -> tuple[str, dict[str, str]]:
        """The URL of the model, and the header fields with the credentials."""
        name = path_part("model", self._model, safe="/@")
        if self._credentials is None:
            auth = {} if self._api_key is None else {"x-goog-api-key": self._api_key}
            if self._vertexai:
                path = name if "/" in name else f"publishers/google/models/{name}"
            else:
                path = name if "/" in name else f"models/{name}"
            return f"{self._base_url}/{path}", auth
        token = await self._credentials.token()
        auth = {"Authorization": f"Bearer {token}"}
        if (payer := self._credentials.quota_project) is not None:
            auth["x-goog-user-project"] = payer
        if name.startswith("projects/"):
            return f"{self._base_url}/{name}", auth
        project = self._project or await self._credentials.project()
        if not project:
            raise ConfigurationError(
                "Vertex AI: the credentials name no project; pass project, or set "
                "GOOGLE_CLOUD_PROJECT"
            )
        path = name if "/" in name else f"publishers/google/models/{name}"
        place = path_part("location", self._location)
        where = f"projects/{path_part('project', project)}/locations/{place}"
        return f"{self._base_url}/{where}/{path}", auth

    async def _ready(self) -> str:
        if self._credentials is not None:
            await self._credentials.token()
        return self._base_url


@dataclass(kw_only=True, eq=False)
class _Question(Question):
    provider = "google"
    compose = staticmethod(request_body)

    takes_audio: bool = True
    llm: LLM
    options: Options

    def part(self, attachment: Attachment) -> dict[str, Any] | None:
        return attachment_part(attachment)

    def attach(self, messages: list[dict[str, Any]], found: dict[str, dict[str, Any]]) -> None:
        attach(messages, found, key="parts")

    def convert(self, items: Sequence[ChatItem]) -> tuple[list[dict[str, Any]], Any]:
        return to_contents(items)

    async def request(self, body: bytes, connect_timeout: float | None) -> Request:
        llm, extras = self.llm, self.extras
        url, auth = await llm._address()
        own = {"Content-Type": "application/json", "Accept": "text/event-stream", **auth}
        headers = own
        if llm._headers or extras.headers:
            headers = merge_headers(own, llm._headers, extras.headers)
        url = f"{url}:streamGenerateContent?alt=sse"
        if extras.query:
            url = build_url(url, query=extras.query)
        return Request("POST", url, headers, body, connect_timeout)

    def decoder(self, *, allow_empty: bool) -> ReplyDecoder:
        return make_decoder(allow_empty=allow_empty, family=self.family)


def _with_version(url: str, version: str) -> str:
    last = url.rpartition("/")[2]
    return url if last.startswith("v1") or last == version else f"{url}/{version}"


def _thinking(config: object) -> Any:
    """The thinking options in the API's form."""
    if config is None:
        return None
    found = plain(config)
    if not isinstance(found, dict):
        raise ConfigurationError(
            "thinking_config: expected a mapping like {'thinking_budget': 0} or an object of "
            f"google-genai, got {config!r}"
        )
    thinking = cast("dict[str, Any]", found)
    budget = thinking.get("thinkingBudget")
    if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int)):
        raise ConfigurationError(
            f"thinking_config: thinking_budget has to be an integer, got {budget!r}"
        )
    return thinking


def _response(response_format: object) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The schema of the answer in Gemini's dialect, or else as JSON schema."""
    if response_format is None:
        return None, None
    if type(response_format).__name__ == "Schema" and dumps(response_format):
        return plain(response_format), None
    if isinstance(response_format, Mapping):
        kind = cast("Mapping[str, Any]", response_format).get("type")
        if isinstance(kind, str) and kind.isupper():
            return dict(cast("Mapping[str, Any]", response_format)), None
    spec = reply_type(cast("object", response_format))
    if spec is None:
        return None, None
    try:
        found = gemini_schema(_in_own_words(spec))
    except ValueError:
        found = None
    if found is not None:
        return _ordered(found), None
    written = compile_schema(spec.value_schema, "gemini", own=spec.own, any_root=True)
    return None, tell(spec.name, "gemini", written).schema


def _in_own_words(spec: OutputSpec) -> Mapping[str, Any]:
    """A schema that `gemini_schema` can express without loss.

    Raises:
        ValueError: it cannot be expressed without loss.
    """
    if spec.own:
        return spec.value_schema
    written = compile_schema(spec.value_schema, "gemini.schema", any_root=True)
    if written.count:
        raise ValueError(str(written))
    return written.schema


def _ordered(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` with the order of its members, in which Gemini then writes them."""
    ordered: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties" and isinstance(value, dict):
            members = cast("dict[str, dict[str, Any]]", value)
            ordered[key] = {name: _ordered(member) for name, member in members.items()}
            ordered["property_ordering"] = list(members)
        elif key == "items" and isinstance(value, dict):
            ordered[key] = _ordered(cast("dict[str, Any]", value))
        elif key == "any_of" and isinstance(value, list):
            ordered[key] = [_ordered(entry) for entry in cast("list[dict[str, Any]]", value)]
        else:
            ordered[key] = value
    return ordered
