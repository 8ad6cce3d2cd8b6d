"""How much a model reasons: one portable option, and its form in each API.

Pure: families and hosts in, members of a body out. If a model does not support a value, the nearest one
is used, and reported as a `Change`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec

from rejoinder._core.changes import Change
from rejoinder._core.families import UNKNOWN, Family
from rejoinder._core.hosts import API, Host
from rejoinder.errors import ConfigurationError

__all__ = [
    "LEVELS",
    "WORDS",
    "Reasoning",
    "Said",
    "check_reasoning",
    "nearest_effort",
    "only_switches",
    "read_reasoning",
    "reasoning_fields",
    "resolve_reasoning",
]

Option: TypeAlias = Literal["off", "minimal", "low", "medium", "high", "xhigh", "max"] | int

LEVELS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""All known levels of effort, from least to most."""

_OPTIONS: Final = ("off", *LEVELS[1:])

# Tokens for a level, for models that take a number; and the maximum that a level stands for.
_BUDGETS: Final = {"minimal": 1_024, "low": 2_048, "medium": 8_192, "high": 16_384}
_MOST: Final = 32_768

WORDS: Final = frozenset(
    {
        "chat_template_kwargs",
        "enable_thinking",
        "output_config",
        "reasoning",
        "reasoning_config",
        "reasoning_effort",
        "reasoningConfig",
        "thinking",
        "thinking_budget",
        "thinkingConfig",
    }
)
"""Members of a body that may hold reasoning options, in any API."""


class Reasoning(msgspec.Struct, frozen=True):
    """The reasoning of a request, independent of any API."""

    on: bool | None
    """``None`` requests nothing."""
    effort: str = ""
    budget: int | None = None


class Said(msgspec.Struct, frozen=True):
    """The reasoning options of a body."""

    on: bool | None = None
    """``None``: not set; the model's default applies."""
    effort: str = ""
    budget: int | None = None
    adaptive: bool = False
    """Whether it is Claude's adaptive thinking."""


def check_reasoning(option: object) -> None:
    """Check the value of ``reasoning=``.

    Raises:
        ConfigurationError: it is neither a level nor a number of tokens.
    """
    if isinstance(option, str) and option in _OPTIONS:
        return
    if isinstance(option, int) and not isinstance(option, bool) and option >= 0:
        return
    raise ConfigurationError(
        f"reasoning: expected {', '.join(map(repr, _OPTIONS))} or a number of tokens, got {option!r}"
    )


def nearest_effort(effort: str, efforts: tuple[str, ...]) -> str:
    """The level of `efforts` that is nearest to `effort`: itself, else the next higher one, else the
    highest. Unknown levels stay unchanged."""
    if not efforts or effort in efforts or effort not in LEVELS:
        return effort
    wanted = LEVELS.index(effort)
    higher = [level for level in efforts if level in LEVELS and LEVELS.index(level) > wanted]
    return higher[0] if higher else efforts[-1]


def _told(detail: str) -> Change:
    return Change("reasoning", "", detail)


def resolve_reasoning(option: Option, family: Family) -> tuple[Reasoning, list[Change]]:
    """The meaning of ``reasoning=option`` for a family.

    Args:
        option: a level, or a number of tokens; 0 is ``"off"``.
        family: the model's family.
    """
    if option == 0:
        option = "off"
    if family is UNKNOWN:
        # Unknown model: use the caller's value.
        level = "none" if option == "off" else _level(option)
        budget = option if isinstance(option, int) else None
        return Reasoning(option != "off", level, budget), []
    if family.thinks == "never":
        if option == "off":
            return Reasoning(None), []
        return Reasoning(None), [_told(f"reasoning={option!r}: {family.name} does not reason")]
    if option == "off":
        return _off(family)
    efforts = tuple(level for level in family.efforts if level != "none")
    if isinstance(option, int):
        if family.budget is not None and family.words != "adaptive":
            tokens = min(max(option, family.budget[0], 1), family.budget[1])
            changes = [] if tokens == option else [_told(f"{option} tokens to think: now {tokens}")]
            return Reasoning(True, "", tokens), changes
        level = nearest_effort(_level(option), efforts) if efforts else ""
        return Reasoning(True, level), [
            _told(
                f"{option} tokens to think: {family.name} accepts "
                + (f"a level; now {level!r}" if level else "no amount; reasoning is on")
            )
        ]
    if efforts:
        level = nearest_effort(option, efforts)
        changes = [] if level == option else [_told(f"reasoning={option!r}: now {level!r}")]
        budget = _tokens(option, family) if family.words == "budget" else None
        return Reasoning(True, level, budget), changes
    return Reasoning(True, "", _tokens(option, family)), []


def _off(family: Family) -> tuple[Reasoning, list[Change]]:
    if family.thinks == "asked" and "none" not in family.efforts:
        # Sending nothing is enough, but using a switch, if there is one, is safe.
        return Reasoning(False), []
    if family.thinks != "always":
        return Reasoning(False, "none" if "none" in family.efforts else ""), []
    if family.efforts:
        least = family.efforts[0]
        return Reasoning(True, least), [
            _told(f"{family.name} cannot stop reasoning: now {least!r}, the least that it takes")
        ]
    if family.budget is not None:
        least_tokens = family.budget[0]
        return Reasoning(True, "", least_tokens), [
            _told(f"{family.name} cannot stop reasoning: now {least_tokens} tokens, the least")
        ]
    return Reasoning(None), [_told(f"{family.name} cannot stop reasoning")]


def _level(option: Option) -> str:
    if isinstance(option, str):
        return option
    for level in ("low", "medium"):
        if option <= _BUDGETS[level]:
            return level
    return "high"


def _tokens(level: str, family: Family) -> int | None:
    if family.budget is None:
        return None
    low, high = family.budget
    return min(max(_BUDGETS.get(level, _MOST), low, 1), high)


# ---------------------------------------------------------------------------------------------
# Words


def reasoning_fields(
    wanted: Reasoning, family: Family, host: Host, api: API
) -> tuple[dict[str, Any], list[Change]]:
    """`wanted` in the form of an API, as members of the right object: the body itself,
    ``additionalModelRequestFields`` (Converse), ``generationConfig`` (Gemini).

    Args:
        wanted: from `resolve_reasoning`.
        family: the model's family.
        host: the host that serves it.
        api: the dialect of the request.
    """
    if wanted.on is None:
        return {}, []
    if api == "messages":
        return _of_claude(wanted, family), []
    if api == "gemini":
        return _of_gemini(wanted, family), []
    if api == "converse":
        return _of_converse(wanted, family)
    if api in ("responses", "mistral"):
        return _effort(wanted, family)
    match host.reasoning:
        case "none":
            return {}, [_told(f"{host.name} has no option for reasoning")]
        case "reasoning":
            return {"reasoning": _of_openrouter(wanted)}, []
        case "effort":
            return _effort(wanted, family, host)
        case "maker" | "template":
            return _of_maker(wanted, family, host)


def _effort(
    wanted: Reasoning, family: Family, host: Host | None = None
) -> tuple[dict[str, Any], list[Change]]:
    if wanted.on is False:
        if family.thinks == "asked" and "none" not in family.efforts and family.words == "effort":
            return {}, []
        return {"reasoning_effort": "none"}, []
    if "reasoning_effort" in family.refuses or (family.thinks == "always" and not family.words):
        return {}, [_told(f"{family.name} accepts no amount of reasoning")]
    if host is not None and only_switches(family, host):
        measured = bool(wanted.effort) or wanted.budget is not None
        changes = [_told(f"{host.name} accepts no amount for {family.name}; reasoning is on")]
        return {"reasoning_effort": host.effort_on}, changes if measured else []
    level = wanted.effort or (
        _level(wanted.budget) if wanted.budget is not None else host.effort_on if host else "high"
    )
    return {"reasoning_effort": level}, []


def only_switches(family: Family, host: Host) -> bool:
    """Whether the host can only turn the reasoning of this model on and off: Groq,
    "`reasoning_effort` must be one of `none` or `default`" (mnfst/modelparams.dev PR#114)."""
    return host.effort_on not in LEVELS and not family.efforts and family.words != ""


def _of_openrouter(wanted: Reasoning) -> dict[str, Any]:
    if wanted.on is False:
        return {"enabled": False}
    if wanted.effort:
        return {"effort": wanted.effort}
    if wanted.budget is not None:
        return {"max_tokens": wanted.budget}
    return {"enabled": True}


def _of_claude(wanted: Reasoning, family: Family) -> dict[str, Any]:
    if wanted.on is False:
        # If thinking must be requested, sending nothing is enough, and every model accepts it.
        return {} if family.thinks == "asked" else {"thinking": {"type": "disabled"}}
    if family.words == "adaptive":
        fields: dict[str, Any] = (
            {} if family.thinks == "always" else {"thinking": {"type": "adaptive"}}
        )
        return {**fields, **({"output_config": {"effort": wanted.effort}} if wanted.effort else {})}
    budget = wanted.budget or _BUDGETS.get(wanted.effort or "medium", _MOST)
    thinking = {"thinking": {"type": "enabled", "budget_tokens": budget}}
    if wanted.effort and family.words == "budget":
        return {**thinking, "output_config": {"effort": wanted.effort}}
    return thinking


def _of_gemini(wanted: Reasoning, family: Family) -> dict[str, Any]:
    if family.words == "thinking_level":
        return {"thinkingConfig": {"thinkingLevel": wanted.effort}} if wanted.effort else {}
    if wanted.on is False:
        return {"thinkingConfig": {"thinkingBudget": 0}}
    budget = -1 if wanted.budget is None else wanted.budget
    return {"thinkingConfig": {"thinkingBudget": budget}}


def _of_converse(wanted: Reasoning, family: Family) -> tuple[dict[str, Any], list[Change]]:
    if family.words in ("budget", "adaptive"):
        return _of_claude(wanted, family), []
    if family.words == "nova":
        if wanted.on is False:
            return {"reasoningConfig": {"type": "disabled"}}, []
        return {
            "reasoningConfig": {"type": "enabled", "maxReasoningEffort": wanted.effort or "medium"}
        }, []
    if family.words == "effort":
        return {"reasoning_effort": wanted.effort or "medium"}, []
    return {}, [_told(f"Converse has no option for the reasoning of {family.name}")]


def _of_maker(wanted: Reasoning, family: Family, host: Host) -> tuple[dict[str, Any], list[Change]]:
    template = host.reasoning == "template"
    match family.words:
        case "thinking":
            fields: dict[str, Any] = {"thinking": {"type": "enabled" if wanted.on else "disabled"}}
            if wanted.on and wanted.effort:
                fields["reasoning_effort"] = wanted.effort
            if template:
                # A gateway passes one of them on; an engine that serves the weights reads the other.
                fields["chat_template_kwargs"] = {
                    "thinking": wanted.on,
                    "enable_thinking": wanted.on,
                }
            return fields, []
        case "enable_thinking":
            if template:
                fields = {"chat_template_kwargs": {"enable_thinking": wanted.on}}
                if not wanted.on or wanted.budget is None:
                    return fields, []
                change = f"the template of {family.name} takes no number of tokens; reasoning is on"
                return fields, [_told(change)]
            fields = {"enable_thinking": wanted.on}
            if wanted.on and wanted.budget is not None:
                fields["thinking_budget"] = wanted.budget
            return fields, []
        case "budget" | "adaptive" if not template:
            return _of_claude(wanted, family), []
        case _:
            return _effort(wanted, family, host)


def read_reasoning(fields: Mapping[str, Any]) -> Said:
    """Read the reasoning options of a body, in the form of any API.

    Args:
        fields: the members of the right object, see `reasoning_fields`.
    """
    effort = _text(fields.get("reasoning_effort"))
    on: bool | None = None
    budget: int | None = None
    adaptive = False
    for name in ("thinking", "reasoning", "reasoning_config", "reasoningConfig"):
        value = fields.get(name)
        if not isinstance(value, Mapping):
            continue
        said = cast("Mapping[str, Any]", value)
        kind = said.get("type")
        if kind in ("disabled", "none") or said.get("enabled") is False:
            on = False
        elif kind in ("enabled", "adaptive", "auto") or said.get("enabled") is True:
            on = True
        adaptive = adaptive or kind == "adaptive"
        effort = effort or _text(said.get("effort") or said.get("maxReasoningEffort"))
        for key in ("budget_tokens", "max_tokens"):
            if isinstance(tokens := said.get(key), int):
                budget, on = tokens, True
    if isinstance(switch := fields.get("enable_thinking"), bool):
        on = switch
    template = fields.get("chat_template_kwargs")
    if isinstance(template, Mapping):
        for key in ("enable_thinking", "thinking"):
            if isinstance(switch := cast("Mapping[str, Any]", template).get(key), bool):
                on = switch
    config = fields.get("thinkingConfig")
    if isinstance(config, Mapping):
        said = cast("Mapping[str, Any]", config)
        if isinstance(tokens := said.get("thinkingBudget"), int):
            budget, on = tokens, tokens != 0
        if level := _text(said.get("thinkingLevel")):
            effort, on = level.lower(), True
    if effort == "none":
        on = False
    elif effort and on is None:
        on = True
    config = fields.get("output_config")
    if not effort and isinstance(config, Mapping):
        # It alone does not turn thinking on.
        effort = _text(cast("Mapping[str, Any]", config).get("effort"))
    return Said(on, effort, budget, adaptive)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
