"""Adapts a request so that the model accepts it at its host, or refuses it before it is sent.

Pure: takes a body and the facts about family and host, and changes the body in place. If a problem can
be mended without changing the meaning of the request, it is mended and reported as a `Change`;
otherwise a `ConfigurationError` names the remedy. `rejoinder._core.repair` handles histories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, cast

from rejoinder._core.changes import Change
from rejoinder._core.families import UNKNOWN, Family
from rejoinder._core.hosts import API, Host
from rejoinder._core.reasoning import (
    WORDS,
    Reasoning,
    Said,
    nearest_effort,
    only_switches,
    read_reasoning,
    reasoning_fields,
)
from rejoinder._sections import explained
from rejoinder.errors import ConfigurationError

__all__ = ["Concerns", "concerns", "fit_request", "with_reasoning"]

_Path: TypeAlias = tuple[str, ...]
Choice: TypeAlias = Literal["", "auto", "none", "required", "named"]

# The values of a tool choice in all APIs.
_CHOICES: Final[dict[str, Choice]] = {
    "ANY": "required",
    "AUTO": "auto",
    "NONE": "none",
    "any": "required",
    "auto": "auto",
    "function": "named",
    "none": "none",
    "required": "required",
    "tool": "named",
}

# The place of each top-level parameter of chat completions in other APIs. A parameter that is not
# listed has the same name at the top, or does not exist.
_PLACES: Final[dict[API, dict[str, _Path]]] = {
    "chat": {},
    "mistral": {},
    "responses": {
        "max_completion_tokens": ("max_output_tokens",),
        "max_tokens": ("max_output_tokens",),
        "reasoning_effort": ("reasoning", "effort"),
    },
    "messages": {
        "max_completion_tokens": ("max_tokens",),
        "stop": ("stop_sequences",),
    },
    "converse": {
        "max_completion_tokens": ("inferenceConfig", "maxTokens"),
        "max_tokens": ("inferenceConfig", "maxTokens"),
        "stop": ("inferenceConfig", "stopSequences"),
        "temperature": ("inferenceConfig", "temperature"),
        "top_p": ("inferenceConfig", "topP"),
        "top_k": ("additionalModelRequestFields", "top_k"),
        "reasoning_effort": ("additionalModelRequestFields", "reasoning_effort"),
    },
    "gemini": {
        "max_completion_tokens": ("generationConfig", "maxOutputTokens"),
        "max_tokens": ("generationConfig", "maxOutputTokens"),
        "stop": ("generationConfig", "stopSequences"),
        "temperature": ("generationConfig", "temperature"),
        "top_p": ("generationConfig", "topP"),
        "top_k": ("generationConfig", "topK"),
        "presence_penalty": ("generationConfig", "presencePenalty"),
        "frequency_penalty": ("generationConfig", "frequencyPenalty"),
    },
}
# Parameters of chat completions that an API has under another name, for callers who set them for
# several models at once, and parameters that it refuses.
_NAMES: Final[dict[API, dict[str, _Path]]] = {
    "chat": {},
    "mistral": {"seed": ("random_seed",)},
    "responses": {},
    "messages": {"stop": ("stop_sequences",)},
    "converse": {"top_k": ("additionalModelRequestFields", "top_k")},
    "gemini": {"stop": ("generationConfig", "stopSequences")},
}
_PENALTIES: Final = frozenset({"frequency_penalty", "presence_penalty"})
_OPENAIS: Final = frozenset({"truncation", "verbosity"})
_LACKS: Final[dict[API, frozenset[str]]] = {
    "chat": _OPENAIS,
    "mistral": _OPENAIS | {"logit_bias", "top_k"},
    "responses": _PENALTIES | {"logit_bias", "seed", "stop", "top_k"},
    "messages": _OPENAIS | _PENALTIES | {"logit_bias", "seed"},
    "converse": _OPENAIS | _PENALTIES | {"logit_bias", "seed"},
    "gemini": _OPENAIS | {"logit_bias"},
}
# Members that hold more than reasoning options, and their keys for reasoning.
_KEYS_IN_SHARED: Final = {
    ("chat", "chat_template_kwargs"): frozenset({"enable_thinking", "thinking"}),
    ("messages", "output_config"): frozenset({"effort"}),
    ("converse", "output_config"): frozenset({"effort"}),
    ("responses", "reasoning"): frozenset({"effort"}),
}

# The place of the reasoning options in each API.
_REASONING: Final[dict[API, _Path]] = {
    "chat": (),
    "mistral": (),
    "responses": (),
    "messages": (),
    "converse": ("additionalModelRequestFields",),
    "gemini": ("generationConfig",),
}
# The places of tools, tool choices and schemas.
_TOOLS: Final[dict[API, _Path]] = {
    "chat": ("tools",),
    "mistral": ("tools",),
    "responses": ("tools",),
    "messages": ("tools",),
    "converse": ("toolConfig", "tools"),
    "gemini": ("tools",),
}
_CHOICES_AND_SCHEMAS: Final[dict[API, frozenset[_Path]]] = {
    "chat": frozenset({("tool_choice",), ("response_format",)}),
    "mistral": frozenset({("tool_choice",), ("response_format",)}),
    "responses": frozenset({("tool_choice",), ("text",)}),
    "messages": frozenset({("tool_choice",), ("output_config",)}),
    "converse": frozenset({("toolConfig", "toolChoice"), ("outputConfig",)}),
    "gemini": frozenset(
        {
            ("toolConfig", "functionCallingConfig"),
            ("generationConfig", "responseJsonSchema"),
            ("generationConfig", "responseSchema"),
        }
    ),
}


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _get(body: Mapping[str, Any], path: _Path) -> Any:
    value: Any = body
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = cast("Mapping[str, Any]", value).get(key)
    return value


def _inner(body: dict[str, Any], path: _Path) -> dict[str, Any]:
    """The mapping at `path`, created if it is missing. Mappings on the path are copied, because they
    may belong to the caller."""
    for key in path:
        value = body.get(key)
        inner = dict(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else {}
        body[key] = inner
        body = inner
    return body


def _pop(body: dict[str, Any], path: _Path) -> None:
    if _get(body, path) is None and not _holds(body, path):
        return
    inner = _inner(body, path[:-1])
    inner.pop(path[-1], None)
    if (
        not inner
        and len(path) > 1
        and path[0] != "inferenceConfig"
        and path[0] != "generationConfig"
    ):
        body.pop(path[0])


def _holds(body: Mapping[str, Any], path: _Path) -> bool:
    outer = _get(body, path[:-1])
    return isinstance(outer, Mapping) and path[-1] in outer


class _Fitting:
    def __init__(self, api: API, body: dict[str, Any], family: Family, host: Host) -> None:
        self.api: API = api
        self.body = body
        self.family = family
        self.host = host
        self.changes: list[Change] = []
        self.said = Said()
        self.thinks = False
        self.look()

    def look(self) -> None:
        """Read the reasoning options of the body, and decide whether the model will think."""
        where = _get(self.body, _REASONING[self.api])
        self.said = (
            read_reasoning(cast("Mapping[str, Any]", where))
            if isinstance(where, Mapping)
            else Said()
        )
        on = self.said.on
        self.thinks = self.family.thinks in ("unless_told", "always") if on is None else on
        if self.family.thinks in ("never", "always"):
            self.thinks = self.family.thinks == "always"

    def tell(self, kind: Literal["choice", "limit", "option", "reasoning"], detail: str) -> None:
        self.changes.append(Change(kind, "", detail))

    def refuse(self, detail: str) -> ConfigurationError:
        name = self.body.get("model") or self.family.name
        return ConfigurationError(explained(f"{name}: {detail}", "option refused"))

    def place(self, name: str) -> _Path:
        return _PLACES[self.api].get(name, (name,))

    def drop(self, name: str, why: str) -> None:
        path = self.place(name)
        if _holds(self.body, path):
            _pop(self.body, path)
            self.tell("option", f"{name} was left out: {why}")

    # -- names

    def names(self) -> None:
        """Rename parameters to the API's own names."""
        for name, path in _NAMES[self.api].items():
            if name not in self.body:
                continue
            value = self.body.pop(name)
            if not _holds(self.body, path):
                inner = _inner(self.body, path[:-1])
                listed = name == "stop" and isinstance(value, str)
                inner[path[-1]] = [value] if listed else value
        if self.host.key in ("openai", "azure") and self.api == "chat":
            # "Unsupported parameter: 'max_tokens' is not supported with this model."
            limit = self.body.get("max_tokens")
            if limit is not None and self.family.thinks != "never":
                del self.body["max_tokens"]
                self.body.setdefault("max_completion_tokens", limit)
        if self.host.key == "compatible":
            return  # it may know more than the API
        for name in sorted(_LACKS[self.api] - self.host.takes):
            if name in self.body:
                del self.body[name]
                self.tell("option", f"{name} was left out: the API has no such parameter")

    # -- reasoning

    def say(self, wanted: Reasoning) -> None:
        """Replace the reasoning options of the body."""
        spoke = _get(self.body, _REASONING[self.api]) is not None
        where = _inner(self.body, _REASONING[self.api])
        for word in WORDS & where.keys():
            if word == "output_config" and wanted.on is not True:
                continue  # effort without thinking is legal, and requested
            ours = _KEYS_IN_SHARED.get((self.api, word))
            kept = (
                {key: entry for key, entry in _mapping(where[word]).items() if key not in ours}
                if ours is not None
                else None
            )
            if kept:
                where[word] = kept
            else:
                del where[word]
        fields, changes = reasoning_fields(wanted, self.family, self.host, self.api)
        self.changes += changes
        if self.api == "responses" and "reasoning_effort" in fields:
            fields = {"reasoning": {"effort": fields.pop("reasoning_effort")}}
        for name, value in fields.items():
            old = where.get(name)
            where[name] = (
                {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
            )
        if not where and not spoke and self.api == "converse":
            self.body.pop("additionalModelRequestFields", None)
        self.look()

    def stop_thinking(self, why: str) -> None:
        self.say(Reasoning(False, "none" if "none" in self.family.efforts else ""))
        self.thinks = False
        self.tell("reasoning", f"reasoning is off for this request: {why}")

    def reasoning(self) -> None:
        family, said = self.family, self.said
        if family is UNKNOWN:
            return
        if "reasoning_effort" in family.refuses:
            self.drop("reasoning_effort", f"{family.name} refuses it")
            self.look()
            said = self.said
        claude = family.maker == "anthropic" and self.api in ("messages", "converse")
        if claude and said.on is not None:
            self.claude(said)
        elif self.api == "gemini" and said.on is not None:
            self.gemini(said)
        elif (
            said.effort
            and family.efforts
            and family.words in ("effort", "thinking")
            and self.api in ("chat", "responses", "mistral")
            and said.effort not in family.efforts
        ):
            self.effort(said)
        elif (
            said.effort not in ("", "none", self.host.effort_on)
            and self.api == "chat"
            and only_switches(family, self.host)
        ):
            self.say(Reasoning(True, said.effort))
        elif (
            said.on is None
            and family.default_effort
            and self.api in ("chat", "responses")
            and not (family.idle_tools and self.api == "chat" and self.tool_count())
        ):
            self.say(Reasoning(family.default_effort != "none", family.default_effort))

    def effort(self, said: Said) -> None:
        family = self.family
        if said.effort == "none":
            if family.thinks != "always" and family.words == "thinking":
                return  # the switch of the same API has been read, or the host reads the word
            level = family.efforts[0]
        else:
            level = nearest_effort(said.effort, tuple(e for e in family.efforts if e != "none"))
        if level != said.effort:
            self.say(Reasoning(True, level))
            self.tell("reasoning", f"{family.name} has no effort {said.effort!r}: now {level!r}")

    def claude(self, said: Said) -> None:
        family = self.family
        if family.thinks == "never":
            if said.on:
                self.say(Reasoning(None))
                self.tell("reasoning", f"{family.name} does not think: thinking was left out")
        elif said.on is False:
            if family.thinks == "always":
                self.say(Reasoning(None))
                self.tell("reasoning", f"{family.name} always thinks: 'disabled' was left out")
        elif said.budget is not None and family.budget is None:
            level = said.effort or nearest_effort(_level_of(said.budget), family.efforts)
            self.say(Reasoning(True, level))
            self.tell(
                "reasoning", f"{family.name} takes no budget: now adaptive thinking, {level!r}"
            )
        elif said.adaptive and family.words == "budget":
            budget = {"low": 2_048, "high": 16_384}.get(said.effort, 8_192)
            self.say(Reasoning(True, said.effort if family.efforts else "", budget))
            self.tell("reasoning", f"{family.name} takes no adaptive thinking: now {budget} tokens")
        elif (
            said.budget is not None and family.budget is not None and said.budget < family.budget[0]
        ):
            least = family.budget[0]
            where = _inner(self.body, _REASONING[self.api])
            for name in ("thinking", "reasoning_config"):
                if isinstance(value := where.get(name), Mapping):
                    where[name] = {**cast("Mapping[str, Any]", value), "budget_tokens": least}
            self.tell("reasoning", f"the least budget is {least} tokens, got {said.budget}")
        self.look()

    def gemini(self, said: Said) -> None:
        family = self.family
        config = _get(self.body, ("generationConfig", "thinkingConfig"))
        more = {
            key: value
            for key, value in cast("Mapping[str, Any]", config).items()
            if key not in ("thinkingBudget", "thinkingLevel")
        }
        if family.thinks == "never":
            wanted = Reasoning(None)
            why = f"{family.name} does not think: thinkingConfig was left out"
            more = {}
        elif family.words == "thinking_level":
            if said.budget is None and said.effort in family.efforts:
                return
            level = said.effort or ("minimal" if not said.budget else _level_of(said.budget))
            if said.budget == -1 and not said.effort:
                level = "high"
            wanted = Reasoning(True, nearest_effort(level, family.efforts))
            why = f"{family.name} takes a level: now {wanted.effort!r}"
        else:
            low, high = family.budget or (0, 0)
            if said.budget is not None and (said.budget == -1 or low <= said.budget <= high):
                if not said.effort:
                    return
                wanted = Reasoning(True, "", said.budget)
            elif said.budget is not None:
                wanted = Reasoning(True, "", min(max(said.budget, low), high))
            else:
                tokens = {"minimal": 1_024, "low": 2_048, "medium": 8_192}.get(said.effort, 16_384)
                wanted = Reasoning(True, "", min(max(tokens, low), high))
            why = f"{family.name} takes a number of tokens: now {wanted.budget}"
        self.say(wanted)
        if more:
            config = _inner(self.body, ("generationConfig", "thinkingConfig"))
            config.update(more)
        self.tell("reasoning", why)

    # -- tools

    def tools(self) -> None:
        family, api = self.family, self.api
        count = self.tool_count()
        if family.responses_only and api == "chat" and self.host.key in ("azure", "openai"):
            raise self.refuse(
                "OpenAI serves this model only through the Responses API; pass api='responses'"
            )
        if not count:
            return
        if not family.tools:
            raise self.refuse("this model takes no tools; omit `tools`, or use another model")
        if family.idle_tools and api == "chat":
            self.idle()
        self.forced(self.choice())
        if self.has_schema() and not family.schema_with_tools and api in ("chat", "gemini"):
            raise self.refuse(
                "this model takes no response format together with function tools; omit one of "
                "them, or use Gemini 3 or later"
            )

    def idle(self) -> None:
        """Turn reasoning off for a request with tools, in which an effort is refused."""
        family, asked = self.family, self.said.effort
        if "none" not in family.efforts:
            raise self.refuse(
                "Chat Completions takes no tools for a model that reasons; pass api='responses'"
            )
        # A model that reasons by default gets a switch to turn it off; others refuse the switch.
        wanted = None if family.thinks == "asked" else False
        if asked and asked != "none":
            self.tell(
                "reasoning",
                f"reasoning_effort {asked!r} is refused beside tools, and was left out; the "
                "Responses API (api='responses') takes both",
            )
        if asked or wanted is False:
            self.say(Reasoning(wanted, "none"))

    def forced(self, choice: Choice) -> None:
        family, host = self.family, self.host
        if choice in ("", "auto", "none"):
            if choice and choice not in host.choices and self.api == "chat":
                self.drop("tool_choice", f"{host.name} accepts only 'auto'")
                if choice == "none":
                    self.body.pop("tools", None)
                    self.tell("choice", "the tools were left out: that is what 'none' means")
            return
        if choice not in host.choices or (
            host.forces is not None and family.maker and family.maker not in host.forces
        ):
            raise self.refuse(
                f"{host.name} cannot force a tool on this model; omit tool_choice and request "
                "the call in the instructions, or use another model"
            )
        if choice == "named" and not family.named:
            self.only_named()
        if family.forced == "never":
            raise self.refuse(
                "this model refuses a forced tool; omit tool_choice, or use another model"
            )
        if not self.thinks or family.forced == "always":
            return
        if (
            family.forced == "unless_budget"
            and family.words == "adaptive"
            and self.said.budget is None
        ):
            return
        if family.thinks == "always":
            raise self.refuse(
                "this model always reasons and refuses a forced tool while it does; omit "
                "tool_choice, or use another model"
            )
        if self.api == "chat" and host.reasoning == "none":
            raise self.refuse(
                f"this model refuses a forced tool while it reasons, and {host.name} cannot turn "
                "reasoning off; omit tool_choice, or use another model"
            )
        self.stop_thinking("a tool is forced, which the model refuses while it thinks")

    def only_named(self) -> None:
        chosen = self.body["tool_choice"]
        name = _get(chosen, ("function", "name")) or chosen.get("name")
        self.body["tools"] = [
            tool
            for tool in self.body["tools"]
            if name in (_get(tool, ("function", "name")), tool.get("name"))
        ]
        self.body["tool_choice"] = "required"
        self.tell("choice", f"only the tool {name!r} is offered, and a call is required")

    def tool_count(self) -> int:
        tools = _get(self.body, _TOOLS[self.api])
        if not isinstance(tools, Sequence):
            return 0
        if self.api == "gemini":
            return sum("functionDeclarations" in tool for tool in cast("Sequence[Any]", tools))
        return len(cast("Sequence[Any]", tools))

    def choice(self) -> Choice:
        """The tool choice of the body."""
        body = self.body
        if self.api == "converse":
            chosen = _mapping(_get(body, ("toolConfig", "toolChoice")))
            return _CHOICES.get(next(iter(chosen), ""), "")
        if self.api == "gemini":
            word = _get(body, ("toolConfig", "functionCallingConfig", "mode"))
        else:
            word = body.get("tool_choice")
        if isinstance(word, Mapping):
            word = cast("Mapping[str, Any]", word).get("type")
        return _CHOICES.get(word, "") if isinstance(word, str) else ""

    # -- the rest

    def has_schema(self) -> bool:
        match self.api:
            case "gemini":
                config = _mapping(self.body.get("generationConfig"))
                return "responseSchema" in config or "responseJsonSchema" in config
            case "chat" | "mistral":
                return _get(self.body, ("response_format", "type")) == "json_schema"
            case "responses":
                return _get(self.body, ("text", "format", "type")) == "json_schema"
            case "messages":
                return _get(self.body, ("output_config", "format")) is not None
            case "converse":
                return _get(self.body, ("outputConfig", "textFormat")) is not None

    def options(self) -> None:
        family = self.family
        for name in sorted(family.refuses - {"reasoning_effort"}):
            self.drop(name, f"{family.name} refuses it")
        if self.thinks:
            for name in sorted(family.refuses_thinking):
                self.drop(name, f"{family.name} refuses it while it thinks")
            warm = family.thinking_temperature
            if warm is not None and _get(self.body, self.place("temperature")) not in (None, warm):
                self.drop("temperature", f"while it thinks, {family.name} takes only {warm}")
        if family.efforts and self.said.effort == family.efforts[-1] and self.thinks:
            for name in sorted(family.refuses_at_most):
                self.drop(name, f"{family.name} refuses it with the effort {self.said.effort!r}")
        given = [name for name in sorted(family.one_of) if _holds(self.body, self.place(name))]
        for name in given[1:]:
            self.drop(name, f"{family.name} takes only one of {', '.join(given)}")
        for name in sorted(self.host.refuses):
            if self.api == "chat" and name in self.body:
                del self.body[name]  # ours, not the caller's
        if not self.host.schemas and self.has_schema():
            raise self.refuse(
                f"{self.host.name} takes no JSON schema as response format; pass "
                "{'type': 'json_object'} and describe the answer in the instructions"
            )
        # For models without response formats, gateways emulate them by a tool.
        gateway = self.api == "chat" and family.maker != "openai"
        if not family.schemas and not gateway and self.has_schema():
            raise self.refuse(
                "this model takes no JSON schema as response format; omit response_format and "
                "describe the answer in the instructions, or use a later model"
            )

    def limit(self) -> None:
        """Claude's limit includes its thinking, so it must be greater than the budget."""
        budget = self.said.budget
        if not self.thinks or budget is None or self.api not in ("messages", "converse"):
            return
        path = self.place("max_tokens")
        limit = _get(self.body, path)
        if isinstance(limit, int) and limit <= budget:
            _inner(self.body, path[:-1])[path[-1]] = budget + limit
            self.tell(
                "limit", f"max_tokens counts the {budget} tokens to think: now {budget + limit}"
            )


def _level_of(tokens: int) -> str:
    return "low" if tokens <= 2_048 else "medium" if tokens <= 8_192 else "high"


Concerns: TypeAlias = Mapping[str, frozenset[str] | None]
"""Members of a body, each with the parameters inside it that count; ``None`` if it counts itself."""


def concerns(api: API, family: Family, host: Host) -> Concerns | None:
    """What `fit_request` checks for this model; a body without it needs no change. ``None``: every
    body must be checked."""
    ours = host.key in ("azure", "openai") and api == "chat"
    if (family.responses_only and ours) or (family.default_effort and api in ("chat", "responses")):
        return None
    names = family.refuses | family.refuses_thinking | family.refuses_at_most | family.one_of
    if family.thinking_temperature is not None:
        names |= {"temperature"}
    if ours:
        names |= {"max_tokens"}
    places: set[_Path] = {_PLACES[api].get(name, (name,)) for name in names}
    places |= {(name,) for name in _NAMES[api].keys() | _LACKS[api] | host.refuses}
    places |= {(*_REASONING[api], word) for word in WORDS}
    places |= _CHOICES_AND_SCHEMAS[api]
    if not family.tools or family.idle_tools:
        places.add(_TOOLS[api])
    whole = {path[0] for path in places if len(path) == 1}
    found: dict[str, frozenset[str] | None] = dict.fromkeys(whole)
    for holder in {path[0] for path in places} - whole:
        found[holder] = frozenset(path[1] for path in places if path[0] == holder)
    return found


def fit_request(api: API, body: dict[str, Any], family: Family, host: Host) -> list[Change]:
    """Make `body` acceptable to a model at its host.

    Args:
        api: the dialect of the body.
        body: body of a request; changed in place, inner mappings are replaced.
        family: the model's family.
        host: the host that serves it.

    Returns:
        The changes.

    Raises:
        ConfigurationError: the request cannot work; the text names the remedy.
    """
    work = _Fitting(api, body, family, host)
    work.names()
    work.reasoning()
    work.tools()
    work.options()
    work.limit()
    return work.changes


def with_reasoning(
    api: API, body: dict[str, Any], wanted: Reasoning, family: Family, host: Host
) -> list[Change]:
    """Add reasoning options to a body without any; the caller's own options win."""
    where = _get(body, _REASONING[api])
    if isinstance(where, Mapping):
        said = read_reasoning(cast("Mapping[str, Any]", where))
        if said.on is not None or said.effort:
            return []
    work = _Fitting(api, body, family, host)
    work.say(wanted)
    return work.changes
