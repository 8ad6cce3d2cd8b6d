"""The options of a request to generateContent, and their names. Pure.

Google's API accepts names in camel case and in snake case. Here everything is sent in camel case, so
that equal requests have equal bytes, which the prompt cache requires.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from rejoinder._foreign import dump, dumps, read
from rejoinder.errors import ConfigurationError

__all__ = [
    "GENERATION_FIELDS",
    "Options",
    "built_in_tools",
    "camel",
    "member_of",
    "plain",
]

GENERATION_FIELDS: Final = frozenset(
    {
        "audioTimestamp",
        "candidateCount",
        "enableEnhancedCivicAnswers",
        "frequencyPenalty",
        "imageConfig",
        "logprobs",
        "maxOutputTokens",
        "mediaResolution",
        "presencePenalty",
        "responseJsonSchema",
        "responseLogprobs",
        "responseMimeType",
        "responseModalities",
        "responseSchema",
        "routingConfig",
        "seed",
        "speechConfig",
        "stopSequences",
        "temperature",
        "thinkingConfig",
        "topK",
        "topP",
    }
)
"""Members of ``generationConfig``; all other options are beside it."""


@dataclass(frozen=True, slots=True)
class Options:
    """One request, apart from the conversation and the function tools."""

    generation: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Members of ``generationConfig``, in camel case."""
    extra_config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Members of the body, in camel case."""
    built_in: Sequence[Mapping[str, Any]] = ()
    """Tools that run at Google, e.g. ``{"googleSearch": {}}``."""
    combines_tools: bool = False
    """Whether built-in tools and function tools may be sent together."""
    response_schema: Mapping[str, Any] | None = None
    """The schema of the reply in Gemini's dialect."""
    response_json_schema: Mapping[str, Any] | None = None
    """The schema of the reply as plain JSON schema, if the dialect cannot express it."""
    call_ids: bool = True
    """Whether calls and their results carry ids. Vertex AI matches them by their order, and has
    refused the field (pydantic/pydantic-ai #5081)."""
    retrieval_config: Mapping[str, Any] | None = None


def camel(name: str) -> str:
    """``snake_case`` as ``snakeCase``."""
    if "_" not in name.strip("_"):
        return name
    head, *tail = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in tail)


def member_of(name: str) -> str:
    """The member of the body for an option. The limit of a reply has several names in other APIs."""
    member = camel(name)
    return "maxOutputTokens" if member in ("maxTokens", "maxCompletionTokens") else member


def plain(value: object) -> Any:
    """`value` without classes of google-genai: models become mappings, enums become their values."""
    if dumps(value):
        return dump(value, mode="json", exclude_none=True, by_alias=True)
    if isinstance(value, Mapping):
        return {
            camel(str(key)): plain(entry)
            for key, entry in cast("Mapping[object, object]", value).items()
        }
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in cast("Sequence[object]", value)]
    inner = read(value, "value", str)
    return value if inner is None else inner


_SHORT: Final = {
    "codeExecution": "codeExecution",
    "toolCodeExecution": "codeExecution",
    "googleSearch": "googleSearch",
    "googleSearchRetrieval": "googleSearchRetrieval",
    "urlContext": "urlContext",
    "googleMaps": "googleMaps",
    "enterpriseWebSearch": "enterpriseWebSearch",
    "fileSearch": "fileSearch",
    "computerUse": "computerUse",
    "retrieval": "retrieval",
}


def built_in_tools(tools: Sequence[object]) -> list[dict[str, Any]]:
    """Google's own tools in the form of the API.

    Args:
        tools: names (``"google_search"``), mappings (``{"google_search": {}}``), or objects of
            google-genai (``types.GoogleSearch()``, ``types.Tool(google_search=...)``).

    Raises:
        ConfigurationError: one of them is not a built-in tool.
    """
    found: list[dict[str, Any]] = []
    for tool in tools:
        if isinstance(tool, str):
            found.append({_name(camel(tool), tool): {}})
            continue
        if isinstance(tool, Mapping):
            found.append(_checked(plain(cast("object", tool)), cast("object", tool)))
            continue
        if not dumps(tool):
            raise _no_tool(tool)
        kind = type(tool).__name__
        if kind == "Tool":
            found.append(_checked(plain(tool), tool))
        else:
            found.append({_name(kind[:1].lower() + kind[1:], tool): plain(tool)})
    return found


def _checked(tool: dict[str, Any], given: object) -> dict[str, Any]:
    for name in tool:
        _name(name, given)
    if not tool:
        raise _no_tool(given)
    return tool


def _name(name: str, given: object) -> str:
    found = _SHORT.get(name)
    if found is None:
        raise _no_tool(given)
    return found


def _no_tool(given: object) -> ConfigurationError:
    return ConfigurationError(
        f"gemini_tools: {given!r} is not a built-in tool of Gemini; expected one of "
        f"{', '.join(sorted(set(_SHORT.values())))}, as a name, a mapping or an object of "
        "google.genai.types"
    )
