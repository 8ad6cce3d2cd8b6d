"""Hosts of models: what each server accepts, as data, and how to recognize it.

Pure; one row per host. `rejoinder._core.families` lists what a *model* refuses, because many hosts
serve one model, and one host serves many models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec

__all__ = [
    "API",
    "HOSTS",
    "Host",
    "ReasoningWire",
    "find_host",
    "known_host",
    "kind_of_refusal",
    "refuses_state",
]

API: TypeAlias = Literal["chat", "responses", "messages", "converse", "gemini", "mistral"]
"""The dialect of a request: Chat Completions, Responses, Anthropic's Messages, Bedrock's Converse,
Gemini's generateContent, Mistral's chat completions."""

ReasoningWire: TypeAlias = Literal["maker", "effort", "reasoning", "template", "none"]
"""How a request controls reasoning at a host. ``maker``: in the form of the model's maker. ``effort``:
``reasoning_effort`` for every model. ``reasoning``: OpenRouter's object. ``template``: arguments of
the chat template (vLLM, SGLang) for models whose maker has a switch. ``none``: not possible."""


class Host(msgspec.Struct, frozen=True):
    """One server, or one kind of server."""

    name: str
    """The name for error messages."""
    base_url: str = ""
    model: str = ""
    """The default model of its preset."""
    key_env: str | None = None
    """Environment variable of the key; ``None`` if the server needs no key."""
    strict_tools: bool = True
    """Whether it accepts strict tool schemas."""
    tool_choice: Literal["auto"] | None = "auto"
    """The value that is sent if the caller does not set it."""
    limits_by_max_tokens: bool = False
    """Whether it knows the limit of generated tokens only by its old name, ``max_tokens``."""

    key: str = ""
    says: tuple[str, ...] = ()
    """Further values of `provider` in its models, besides its locations and its key."""
    telemetry: str = ""
    """Its name in OpenTelemetry's conventions; empty if it equals its key."""
    prices: str = ""
    """Its name in the table of prices; empty if its prices are unknown."""
    apis: tuple[API, ...] = ("chat",)
    at: tuple[str, ...] = ()
    """Its network locations, or their endings."""
    developer: bool | None = False
    """Whether it knows the role ``developer``; ``None``: only for models of OpenAI, to which it passes
    the role on."""
    system_first: bool = False
    """Whether system messages must precede all others."""
    alternates: bool = False
    """Whether user and assistant messages must alternate, beginning with the user."""
    call_id_limit: int | None = None
    """Maximum length of a tool call's id. At other hosts, ids are sent back unchanged, because some
    servers keep state in them (LiteLLM: Gemini's signatures)."""
    reasoning: ReasoningWire = "effort"
    effort_on: str = "medium"
    """The effort that turns reasoning on for a model with only an on/off switch."""
    reasoning_details: bool = False
    """Whether `reasoning_details` must be sent back with their message."""
    choices: frozenset[str] = frozenset({"auto", "none", "required", "named"})
    """The kinds of tool choice that it accepts."""
    makers: frozenset[str] | None = None
    """The makers whose models it serves; ``None`` for many makers."""
    forces: frozenset[str] | None = None
    """The makers whose models accept a forced tool choice here; ``None`` for all."""
    schemas: bool = True
    """Whether it accepts a JSON schema as response format."""
    refuses: frozenset[str] = frozenset()
    """Fields of a request that it refuses."""
    takes: frozenset[str] = frozenset()
    """Parameters that it accepts, unlike other hosts of the same API."""
    differs: tuple[tuple[str, frozenset[tuple[str, Any]]], ...] = ()
    """By family, the facts that differ at this host."""


def _here(family: str, **fields: Any) -> tuple[str, frozenset[tuple[str, Any]]]:
    return family, frozenset(fields.items())


def _host(key: str, name: str, **fields: Any) -> tuple[str, Host]:
    return key, Host(name=name, key=key, **fields)


HOSTS: Final[dict[str, Host]] = dict(
    (
        _host(
            "openai",
            "OpenAI",
            prices="openai",
            takes=frozenset({"verbosity"}),
            base_url="https://api.openai.com/v1",
            model="gpt-4.1",
            key_env="OPENAI_API_KEY",
            tool_choice=None,
            apis=("chat", "responses"),
            at=("api.openai.com",),
            makers=frozenset({"openai"}),
            developer=True,
            # "Unrecognized request argument supplied: top_k"
            refuses=frozenset({"top_k"}),
            # "string too long. Expected a string with maximum length 40" (Chat Completions).
            call_id_limit=40,
        ),
        _host(
            "azure",
            "Azure OpenAI",
            prices="azure",
            telemetry="azure.ai.openai",
            takes=frozenset({"verbosity"}),
            model="gpt-4o",
            tool_choice=None,
            apis=("chat", "responses"),
            at=(".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com"),
            developer=True,
            refuses=frozenset({"top_k"}),
            call_id_limit=40,
        ),
        # Any other server that speaks the dialect: vLLM, SGLang, LiteLLM, a gateway.
        _host(
            "compatible",
            "a compatible server",
            developer=None,
            tool_choice=None,
            apis=("chat", "responses"),
            reasoning="template",
        ),
        _host(
            "cerebras",
            "Cerebras",
            prices="cerebras",
            base_url="https://api.cerebras.ai/v1",
            model="gpt-oss-120b",
            key_env="CEREBRAS_API_KEY",
            strict_tools=False,
            tool_choice=None,
            at=("api.cerebras.ai",),
        ),
        _host(
            "fireworks",
            "Fireworks",
            prices="fireworks",
            base_url="https://api.fireworks.ai/inference/v1",
            model="accounts/fireworks/models/llama-v3p3-70b-instruct",
            key_env="FIREWORKS_API_KEY",
            limits_by_max_tokens=True,
            at=("api.fireworks.ai",),
        ),
        _host(
            "groq",
            "Groq",
            prices="groq",
            at=("api.groq.com",),
            tool_choice=None,
            effort_on="default",
        ),
        _host(
            "x_ai",
            "xAI",
            prices="x-ai",
            base_url="https://api.x.ai/v1",
            model="grok-4.3",
            key_env="XAI_API_KEY",
            apis=("chat", "responses"),
            at=("api.x.ai",),
            makers=frozenset({"xai"}),
        ),
        _host(
            "openrouter",
            "OpenRouter",
            prices="openrouter",
            takes=frozenset({"verbosity"}),
            base_url="https://openrouter.ai/api/v1",
            model="auto",
            key_env="OPENROUTER_API_KEY",
            apis=("chat", "responses"),
            at=("openrouter.ai",),
            developer=None,
            reasoning="reasoning",
            # Gemini 3 behind it answers 400 without them (karthink/gptel #1190).
            reasoning_details=True,
        ),
        _host(
            "deepseek",
            "DeepSeek",
            prices="deepseek",
            base_url="https://api.deepseek.com/v1",
            model="deepseek-v4-flash",
            key_env="DEEPSEEK_API_KEY",
            limits_by_max_tokens=True,
            at=("api.deepseek.com",),
            makers=frozenset({"deepseek"}),
            reasoning="maker",
            # "This response_format type is unavailable now".
            schemas=False,
        ),
        _host(
            "moonshot",
            "Moonshot",
            prices="moonshotai",
            telemetry="moonshot_ai",
            tool_choice=None,
            at=("api.moonshot.ai", "api.moonshot.cn", "api.kimi.com"),
            makers=frozenset({"moonshot"}),
            reasoning="maker",
        ),
        _host(
            "dashscope",
            "Alibaba Model Studio",
            tool_choice=None,
            limits_by_max_tokens=True,
            at=(
                "dashscope.aliyuncs.com",
                "dashscope-intl.aliyuncs.com",
                "dashscope-us.aliyuncs.com",
            ),
            reasoning="maker",
        ),
        _host(
            "zai",
            "Z.ai",
            prices="zai",
            tool_choice=None,
            limits_by_max_tokens=True,
            at=("api.z.ai", "open.bigmodel.cn"),
            makers=frozenset({"zai"}),
            reasoning="maker",
            choices=frozenset({"auto"}),
            schemas=False,
        ),
        _host(
            "cometapi",
            "CometAPI",
            developer=None,
            base_url="https://api.cometapi.com/v1/",
            model="gpt-5-chat-latest",
            key_env="COMETAPI_API_KEY",
            at=("api.cometapi.com",),
        ),
        _host(
            "octo",
            "OctoAI",
            base_url="https://text.octoai.run/v1",
            model="llama-2-13b-chat",
            key_env="OCTOAI_TOKEN",
            limits_by_max_tokens=True,
            at=("text.octoai.run",),
            makers=frozenset({"meta", "mistral"}),
            reasoning="none",
        ),
        _host(
            "ollama",
            "Ollama",
            base_url="http://localhost:11434/v1",
            model="llama3.1",
            limits_by_max_tokens=True,
            at=("localhost:11434", "127.0.0.1:11434"),
        ),
        _host(
            "perplexity",
            "Perplexity",
            prices="perplexity",
            base_url="https://api.perplexity.ai",
            model="sonar",
            key_env="PERPLEXITY_API_KEY",
            limits_by_max_tokens=True,
            at=("api.perplexity.ai",),
            makers=frozenset({"perplexity"}),
            reasoning="none",
            # "After the (optional) system message(s), user or tool message(s) should alternate with
            # assistant message(s)" (perplexityai/api-discussion #265).
            system_first=True,
            alternates=True,
        ),
        _host(
            "together",
            "Together",
            prices="together",
            base_url="https://api.together.xyz/v1",
            model="meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo",
            key_env="TOGETHER_API_KEY",
            limits_by_max_tokens=True,
            at=("api.together.xyz", "api.together.ai"),
            reasoning="reasoning",
        ),
        _host(
            "telnyx",
            "Telnyx",
            base_url="https://api.telnyx.com/v2/ai",
            model="meta-llama/Meta-Llama-3.1-70B-Instruct",
            key_env="TELNYX_API_KEY",
            limits_by_max_tokens=True,
            at=("api.telnyx.com",),
            reasoning="template",
        ),
        _host(
            "nebius",
            "Nebius",
            base_url="https://api.studio.nebius.com/v1/",
            model="meta-llama/Meta-Llama-3.1-70B-Instruct",
            key_env="NEBIUS_API_KEY",
            limits_by_max_tokens=True,
            at=("api.studio.nebius.com", "api.studio.nebius.ai"),
            reasoning="template",
        ),
        _host(
            "letta",
            "Letta",
            base_url="https://api.letta.com/v1/voice-beta",
            model="letta-fast",
            key_env="LETTA_API_KEY",
            tool_choice=None,
            at=("api.letta.com",),
            makers=frozenset({"letta"}),
            reasoning="none",
        ),
        _host(
            "sambanova",
            "SambaNova",
            base_url="https://api.sambanova.ai/v1",
            model="DeepSeek-R1-0528",
            key_env="SAMBANOVA_API_KEY",
            strict_tools=False,
            tool_choice=None,
            at=("api.sambanova.ai",),
            reasoning="template",
        ),
        _host(
            "ovhcloud",
            "OVHcloud",
            prices="ovhcloud",
            base_url="https://oai.endpoints.kepler.ai.cloud.ovh.net/v1",
            model="gpt-oss-120b",
            key_env="OVHCLOUD_API_KEY",
            at=(".ai.cloud.ovh.net",),
            reasoning="template",
        ),
        # 400 for `stream_options` (anomalyco/opencode #4698).
        _host(
            "databricks",
            "Databricks",
            prices="databricks",
            tool_choice=None,
            limits_by_max_tokens=True,
            at=(".cloud.databricks.com", ".azuredatabricks.net", ".gcp.databricks.com"),
            refuses=frozenset({"stream_options"}),
        ),
        _host(
            "inference",
            "LiveKit inference",
            says=("livekit",),
            takes=frozenset({"verbosity"}),
            developer=None,
            base_url="https://agent-gateway.livekit.cloud/v1",
            tool_choice=None,
            at=(".livekit.cloud",),
            # It also passes requests on to OpenAI, under any model name.
            call_id_limit=40,
        ),
        _host(
            "anthropic",
            "Anthropic",
            prices="anthropic",
            apis=("messages", "chat"),
            tool_choice=None,
            at=("api.anthropic.com",),
            makers=frozenset({"anthropic"}),
            reasoning="maker",
        ),
        _host(
            "bedrock",
            "Amazon Bedrock",
            prices="aws",
            says=("AWS Bedrock", "Amazon", "aws"),
            telemetry="aws.bedrock",
            apis=("converse", "messages"),
            tool_choice=None,
            at=(".amazonaws.com", ".amazonaws.com.cn"),
            reasoning="maker",
            # "This model doesn't support the toolConfig.toolChoice.any field": Llama, DeepSeek,
            # Cohere and others accept only "auto".
            choices=frozenset({"auto", "required", "named"}),
            forces=frozenset({"amazon", "anthropic", "mistral"}),
        ),
        _host(
            "gemini",
            "Gemini API",
            prices="google",
            says=("Gemini", "google"),
            telemetry="gcp.gemini",
            apis=("gemini", "chat"),
            tool_choice=None,
            at=("generativelanguage.googleapis.com",),
            makers=frozenset({"google"}),
            reasoning="maker",
            differs=(
                # "Developer instruction is not enabled", "Function calling is not enabled" and "JSON
                # mode is not enabled for models/gemma-3-27b-it" (CherryHQ/cherry-studio #3242,
                # BerriAI/litellm #10313, truefoundry/models PR#608).
                _here("gemma-2", tools=False, schemas=False),
                _here("gemma-3", system="user", tools=False, schemas=False),
                # A budget is refused, and so is every other level (earendil-works/pi #2812).
                _here(
                    "gemma",
                    thinks="always",
                    words="thinking_level",
                    efforts=("minimal", "high"),
                ),
            ),
        ),
        _host(
            "vertex",
            "Vertex AI",
            prices="google",
            says=("Vertex AI",),
            telemetry="gcp.vertex_ai",
            apis=("gemini", "messages", "chat"),
            tool_choice=None,
            at=("aiplatform.googleapis.com", ".rep.googleapis.com"),
            reasoning="maker",
        ),
        # 422 for every unknown field (openai/openai-agents-python #442).
        _host(
            "mistral",
            "Mistral",
            prices="mistral",
            says=("MistralAI", "mistralai"),
            telemetry="mistral_ai",
            base_url="https://api.mistral.ai/v1",
            model="ministral-8b-latest",
            key_env="MISTRAL_API_KEY",
            apis=("mistral", "chat"),
            tool_choice=None,
            limits_by_max_tokens=True,
            at=("api.mistral.ai",),
            makers=frozenset({"mistral"}),
            refuses=frozenset({"stream_options"}),
        ),
    )
)
"""All hosts by key."""


def find_host(netloc: str) -> Host:
    """The host at a network location (``api.openai.com``, with the port if the URL has one);
    ``HOSTS["compatible"]`` for an unknown one."""
    name = netloc.lower().rpartition("@")[2].removesuffix(":443")
    for host in HOSTS.values():
        for at in host.at:
            if name == at or (at[0] == "." and name.endswith(at)) or name.endswith(f"-{at}"):
                return host
    return HOSTS["compatible"]


def known_host(provider: str) -> Host | None:
    """The host of a model's `provider`, found by location, key or name; ``None`` if unknown."""
    for host in HOSTS.values():
        if provider == host.key or provider in host.says:
            return host
    found = find_host(provider)
    return None if found is HOSTS["compatible"] else found


# Errors of servers that cannot read the state in a request: reasoning that another organisation or
# resource encrypted, a foreign signature. The text and calls of the conversation are valid without
# it.
_STATE_CODES: Final = frozenset({"invalid_encrypted_content", "thought_signature_invalid"})
_STATE_TEXTS: Final = re.compile(
    # OpenAI and Azure, by status or as response.failed (openai/codex #8145).
    r"encrypted content .{0,400}could not be (?:verified|decrypted)"
    # The same API: an item that was not stored, or that another resource has
    # (jrkropp/open-webui-developer-toolkit #715).
    r"|item with id '?[a-z]{2,6}_\S+ not found"
    # Reasoning without the item it produced, or the reverse (continuedev/continue #8933, #10018).
    r"|item '?[a-z]{2,6}_\S+ (?:of type '\w+' )?was provided without its required"
    # xAI (Wei-Shaw/sub2api #4535, chenyme/grok2api #688, Gentleman-Programming/gentle-ai #4595).
    r"|could not (?:decrypt|decode) the (?:provided )?(?:encrypted_content|compaction)"
    r"|encrypted_content was not issued to this caller"
    # Claude, at Anthropic and wherever it is hosted.
    r"|invalid `?(?:signature|data|encrypted_content|encrypted_index)`? in `?\w{1,40}`? block"
    r"|`?thinking`? (?:or `?redacted_thinking`? )?blocks in the latest assistant message cannot be"
    # Anthropic's container for its tools (its guide to code execution).
    r"|container\b.{0,80}(?:expired|not found|does not exist)"
    # A server that refuses fields of its own responses (Groq, pydantic readers of requests).
    r"|extra inputs are not permitted|property '\S+' is unsupported|unrecognized field"
    # Gemini (google-gemini/gemini-cli #13467, lbjlaq/Antigravity-Manager #3342).
    r"|(?:corrupted|invalid) thought[ _]?signature"
    r"|thought[ _]?signature.{0,80}(?:not valid|invalid|base64 decoding failed|corrupted)",
    re.IGNORECASE | re.DOTALL,
)
_SEARCHED: Final = 20_000


def refuses_state(message: str, body: object) -> bool:
    """Whether an error means that the server refuses the opaque state that was sent back, so that the
    same request without it may succeed.

    Args:
        message: message of the error.
        body: the server's unchanged error: a mapping, a text, or ``None``.
    """
    texts = [message[:_SEARCHED]]
    found = body
    for _ in range(2):
        if isinstance(found, str):
            texts.append(found[:_SEARCHED])
            break
        if not isinstance(found, Mapping):
            break
        entries = cast("Mapping[str, object]", found)
        words = (entries.get("code"), entries.get("type"))
        if any(isinstance(word, str) and word in _STATE_CODES for word in words):
            return True
        # OpenRouter has its provider's words in `metadata.raw` (massgen/MassGen #665).
        metadata = entries.get("metadata")
        raw = (
            cast("Mapping[str, object]", metadata).get("raw")
            if isinstance(metadata, Mapping)
            else ""
        )
        texts += [
            said[:_SEARCHED] for said in (entries.get("message"), raw) if isinstance(said, str)
        ]
        found = entries.get("error")
    return any(_STATE_TEXTS.search(text) is not None for text in texts)


# Errors of servers about a conversation that does not fit, and about a schema that they refuse.
_REFUSED: Final = (
    (
        "context too long",
        re.compile(
            r"context_length_exceeded|maximum context length|context window"  # OpenAI and its clones
            r"|prompt is too long|input is too long"  # Anthropic; Bedrock
            r"|input token count .{0,80}exceeds"  # Gemini
            r"|exceeds the available context size"  # llama.cpp
            r"|too many (?:input )?tokens",
            re.IGNORECASE | re.DOTALL,
        ),
    ),
    (
        "schema refused",
        re.compile(
            r"invalid schema for (?:function|response_format)"  # OpenAI
            r"|tools\.\d+\.\S*(?:input_schema|parameters)"  # Anthropic; pydantic readers
            r"|function_declarations\[\d+\]\.parameters"  # Gemini
            r"|toolconfig\.tools\.\d+",  # Bedrock
            re.IGNORECASE,
        ),
    ),
)


def kind_of_refusal(message: str, body: object) -> str | None:
    """The kind of a refused request (`rejoinder._sections`), by the server's error.

    Args:
        message: message of the error.
        body: the server's unchanged error; its code is used, too.
    """
    code = cast("Mapping[str, object]", body).get("code") if isinstance(body, Mapping) else None
    text = f"{message[:_SEARCHED]} {code}" if isinstance(code, str) else message[:_SEARCHED]
    return next((kind for kind, words in _REFUSED if words.search(text)), None)
