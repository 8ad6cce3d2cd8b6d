"""From a name to a model: ``create("anthropic/claude-sonnet-4-5")``.

A name is a provider, a slash, and the model as that provider calls it. The provider is imported
when it is named, so that nobody pays for those he does not use. Third parties add theirs by
`register` or by an entry point in the group ``rejoinder.providers``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import reduce
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from rejoinder.errors import ConfigurationError
from rejoinder.llm.llm import LLM

__all__ = ["ENTRY_POINT_GROUP", "Maker", "create", "provider_names", "register"]

ENTRY_POINT_GROUP: Final = "rejoinder.providers"

Maker: TypeAlias = Callable[..., LLM[Any]]
"""Takes ``model=`` and the options of the provider."""


@dataclass(frozen=True, slots=True)
class _Entry:
    target: str | Maker
    """``"module:name"``, with dots in the name for what belongs to a class."""
    model_option: str = "model"
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


_OPENAI: Final = "rejoinder.providers.openai:LLM"

_PROVIDERS: Final[dict[str, _Entry]] = {
    "anthropic": _Entry("rejoinder.providers.anthropic:LLM"),
    "anthropic.azure": _Entry("rejoinder.providers.anthropic:LLM.with_azure"),
    "anthropic.bedrock": _Entry("rejoinder.providers.anthropic:LLM.with_bedrock"),
    "anthropic.vertex": _Entry("rejoinder.providers.anthropic:LLM.with_vertex"),
    "aws": _Entry("rejoinder.providers.aws:LLM"),
    "azure": _Entry(f"{_OPENAI}.with_azure"),
    "cerebras": _Entry(f"{_OPENAI}.with_cerebras"),
    "cometapi": _Entry(f"{_OPENAI}.with_cometapi"),
    "deepseek": _Entry(f"{_OPENAI}.with_deepseek"),
    "fireworks": _Entry(f"{_OPENAI}.with_fireworks"),
    "google": _Entry("rejoinder.providers.google:LLM"),
    "inference": _Entry("rejoinder.providers.inference:LLM"),
    "letta": _Entry(f"{_OPENAI}.with_letta", "agent_id"),
    "local": _Entry("rejoinder.providers.local:LLM"),
    "mistralai": _Entry("rejoinder.providers.mistralai:LLM"),
    "nebius": _Entry(f"{_OPENAI}.with_nebius"),
    "ollama": _Entry(f"{_OPENAI}.with_ollama"),
    "openai": _Entry(_OPENAI),
    "openai.responses": _Entry(_OPENAI, options=MappingProxyType({"api": "responses"})),
    "openrouter": _Entry(f"{_OPENAI}.with_openrouter"),
    "ovhcloud": _Entry(f"{_OPENAI}.with_ovhcloud"),
    "perplexity": _Entry(f"{_OPENAI}.with_perplexity"),
    "sambanova": _Entry(f"{_OPENAI}.with_sambanova"),
    "telnyx": _Entry(f"{_OPENAI}.with_telnyx"),
    "together": _Entry(f"{_OPENAI}.with_together"),
    "vertex": _Entry(
        "rejoinder.providers.google:LLM", options=MappingProxyType({"vertexai": True})
    ),
    "x_ai": _Entry(f"{_OPENAI}.with_x_ai"),
}
# What people call them elsewhere.
_ALIASES: Final = {
    "bedrock": "aws",
    "gemini": "google",
    "livekit": "inference",
    "mistral": "mistralai",
    "xai": "x_ai",
}
_registered: dict[str, _Entry] = {}


def create(name: str, *, base_url: str | None = None, **options: Any) -> LLM[Any]:
    """The model called `name`.

    Args:
        name: provider and model, e.g. ``"openai/gpt-4.1"`` or ``"openrouter/qwen/qwen3-32b"``.
        base_url: address of another server that speaks the provider's API.
        options: arguments of the provider's `LLM`.

    Raises:
        ConfigurationError: the name has no slash, the provider is not known, or it misses
            something (a key, an address).
        ImportError: the provider needs an extra that is not installed.
        TypeError: the provider does not know an option.
    """
    provider, slash, model = name.partition("/")
    if not slash or not provider or not model:
        raise ConfigurationError(
            f"expected a provider and a model with a slash between, such as "
            f"'openai/gpt-4.1', got {name!r}; providers: {', '.join(provider_names())}"
        )
    entry = _find(provider)
    if base_url is not None:
        options["base_url"] = base_url
    return _maker(entry)(**{**entry.options, entry.model_option: model, **options})


def register(provider: str, target: str | Maker, *, model_option: str = "model") -> None:
    """Make ``create("<provider>/...")`` call `target`. A later registration replaces an earlier.

    Args:
        provider: what stands before the slash.
        target: ``"module:name"``, imported when first used, or a function; called with the model
            and the options by keyword.
        model_option: the keyword that takes the model.

    Raises:
        ConfigurationError: `provider` is empty or holds a slash, or a text target has no colon.
    """
    if not provider or "/" in provider:
        raise ConfigurationError(f"provider: expected a name without a slash, got {provider!r}")
    if isinstance(target, str) and not all(target.partition(":")):
        raise ConfigurationError(f"target: expected 'module:name' or a function, got {target!r}")
    _registered[provider] = _Entry(target, model_option)


def provider_names() -> list[str]:
    """What may stand before the slash, sorted."""
    return sorted({*_PROVIDERS, *_registered, *_entry_points()})


def _find(provider: str) -> _Entry:
    entry = _registered.get(provider) or _PROVIDERS.get(_ALIASES.get(provider, provider))
    if entry is not None:
        return entry
    found = _entry_points().get(provider)
    if found is not None:
        return _Entry(found)
    names = provider_names()
    close = get_close_matches(provider, [*names, *_ALIASES], 1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(names)}"
    raise ConfigurationError(f"no provider is called {provider!r}; {hint}")


def _maker(entry: _Entry) -> Maker:
    if not isinstance(entry.target, str):
        return entry.target
    module, _, path = entry.target.partition(":")
    return reduce(getattr, path.split("."), import_module(module))  # type: ignore[return-value]


def _entry_points() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
