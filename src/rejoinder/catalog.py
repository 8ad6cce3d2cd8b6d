"""Makes models by name: ``create("anthropic/claude-sonnet-4-5")``, and for speech
``create_realtime("google/gemini-3.8-live")``.

A name is a provider, a slash, and the provider's name of the model. Only the named provider is
imported. Third parties add providers by `register`, or by an entry point in the group
``rejoinder.dialects`` or ``rejoinder.providers`` (see `rejoinder._core.dialects`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from rejoinder._core import dialects
from rejoinder._core.dialects import Dialect
from rejoinder._core.hosts import HOSTS
from rejoinder._options import checked
from rejoinder._sections import explained
from rejoinder.errors import ConfigurationError
from rejoinder.llm.llm import LLM
from rejoinder.llm.realtime import RealtimeModel

__all__ = [
    "Maker",
    "check_provider",
    "create",
    "create_realtime",
    "provider_names",
    "realtime_provider_names",
    "register",
]

Maker: TypeAlias = Callable[..., LLM[Any]]
"""Takes ``model=`` and the options of the provider."""


@dataclass(frozen=True, slots=True)
class _Variant:
    """Another way to make the LLM of a dialect: a host, or an API."""

    target: str
    """``"module:name"``; the name may have dots, for attributes of a class."""
    model_option: str = "model"
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


_OPENAI: Final = "rejoinder.providers.openai:LLM"

_NO_PRESETS: Final = frozenset({"inference", "mistral", "octo", "openai"})
"""Hosts of the table that have their own provider, or whose service has ended."""

_VARIANTS: Final[dict[str, _Variant]] = {
    **{
        key: _Variant(f"{_OPENAI}.with_host", options=MappingProxyType({"host": key}))
        for key, host in HOSTS.items()
        if host.base_url and host.model and key not in _NO_PRESETS
    },
    "anthropic.azure": _Variant("rejoinder.providers.anthropic:LLM.with_azure"),
    "anthropic.bedrock": _Variant("rejoinder.providers.anthropic:LLM.with_bedrock"),
    "anthropic.vertex": _Variant("rejoinder.providers.anthropic:LLM.with_vertex"),
    "azure": _Variant(f"{_OPENAI}.with_azure"),
    "letta": _Variant(f"{_OPENAI}.with_letta", "agent_id"),
    "openai.responses": _Variant(_OPENAI, options=MappingProxyType({"api": "responses"})),
    "openrouter": _Variant(f"{_OPENAI}.with_openrouter"),
    "vertex": _Variant(
        "rejoinder.providers.google:LLM", options=MappingProxyType({"vertexai": True})
    ),
}
_OPENAI_REALTIME: Final = "rejoinder.providers.openai.realtime:RealtimeModel"
_REALTIME_VARIANTS: Final[dict[str, _Variant]] = {
    "azure": _Variant(_OPENAI_REALTIME, "azure_deployment"),
    "openai.live": _Variant("rejoinder.providers.openai.live:GPTLiveModel"),
    "vertex": _Variant(
        "rejoinder.providers.google.realtime:RealtimeModel",
        options=MappingProxyType({"vertexai": True}),
    ),
    "x_ai": _Variant(
        _OPENAI_REALTIME, options=MappingProxyType({"base_url": HOSTS["x_ai"].base_url})
    ),
}
# Names from other libraries.
_ALIASES: Final = {
    "bedrock": "aws",
    "gemini": "google",
    "livekit": "inference",
    "mistral": "mistralai",
    "xai": "x_ai",
}
_NO_PROVIDERS: Final = frozenset({"mistralai.conversations"})
"""Dialects that only convert formats."""


@checked()
def create(name: str, *, base_url: str | None = None, **options: Any) -> LLM[Any]:
    """The model called `name`.

    Args:
        name: provider and model, e.g. ``"openai/gpt-4.1"`` or ``"openrouter/qwen/qwen3-32b"``.
        base_url: address of another server that speaks the provider's API.
        options: arguments of the provider's `LLM`.

    Raises:
        ConfigurationError: the name has no slash, the provider is unknown, or a key or an address
            is missing.
        ImportError: the provider needs an extra that is not installed.
        TypeError: the provider does not know an option.
    """
    provider, model = _split(name, "openai/gpt-4.1", provider_names)
    make, model_option, fixed = _find(provider)
    if base_url is not None:
        options["base_url"] = base_url
    return make(**{**fixed, model_option: model, **options})


@checked()
def create_realtime(name: str, *, base_url: str | None = None, **options: Any) -> RealtimeModel:
    """The speech-to-speech model called `name`.

    Args:
        name: provider and model, e.g. ``"openai/gpt-realtime-2.1"``; see
            `realtime_provider_names`.
        base_url: address of another server that speaks the provider's API.
        options: arguments of the provider's `RealtimeModel`.

    Raises:
        ConfigurationError: the name has no slash, the provider is unknown or has no speech-to-speech
            models, or a key or a region is missing.
        ImportError: the provider needs an extra that is not installed.
        TypeError: the provider does not know an option.
    """
    provider, model = _split(name, "openai/gpt-realtime-2.1", realtime_provider_names)
    make, model_option, fixed = _find_realtime(provider)
    if base_url is not None:
        options["base_url"] = base_url
    return make(**{**fixed, model_option: model, **options})


def _split(name: str, example: str, known: Callable[[], Sequence[str]]) -> tuple[str, str]:
    provider, slash, model = name.partition("/")
    if not slash or not provider or not model:
        raise ConfigurationError(
            explained(
                f"expected a provider and a model with a slash between, such as "
                f"{example!r}, got {name!r}; providers: {', '.join(known())}",
                "model name",
            )
        )
    return provider, model


@checked()
def register(provider: str, target: str | Maker, *, model_option: str = "model") -> None:
    """Make ``create("<provider>/...")`` call `target`. A later registration replaces an earlier one.

    Args:
        provider: the name before the slash.
        target: ``"module:name"``, imported when first used, or a function; called with the model
            and the options by keyword.
        model_option: the keyword that takes the model.

    Raises:
        ConfigurationError: `provider` is empty or holds a slash, or a string `target` has no colon.
    """
    if not provider or "/" in provider:
        raise ConfigurationError(f"provider: expected a name without a slash, got {provider!r}")
    if isinstance(target, str) and not all(target.partition(":")):
        raise ConfigurationError(f"target: expected 'module:name' or a function, got {target!r}")
    dialects.register(provider, Dialect(provider, llm=target, model_option=model_option))


def provider_names() -> list[str]:
    """The names of providers for `create`, sorted."""
    return sorted({*_VARIANTS, *dialects.maker_names()} - _NO_PROVIDERS)


def realtime_provider_names() -> list[str]:
    """The names of providers for `create_realtime`, sorted. Imports the provider tables."""
    with_speech = {name for name in dialects.names() if dialects.find(name).realtime is not None}
    return sorted({*_REALTIME_VARIANTS, *with_speech})


@checked()
def check_provider(provider: str) -> None:
    """Check the name of a provider.

    Raises:
        ConfigurationError: no provider has this name; the message suggests the closest one.
    """
    _find(provider)


def _find(provider: str) -> tuple[Maker, str, Mapping[str, Any]]:
    """The function that makes the LLM, the keyword for the model, and further options."""
    name = provider
    if not dialects.has_own_maker(provider):
        name = _ALIASES.get(provider, provider)
        if (variant := _VARIANTS.get(name)) is not None:
            make = dialects.load(variant.target, f"provider {provider!r}")
            return make, variant.model_option, variant.options
    try:
        dialect = dialects.find(name)
    except ValueError:
        dialect = None
    if dialect is None or dialect.llm is None:
        known = provider_names()
        close = get_close_matches(provider, [*known, *_ALIASES], 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
        raise ConfigurationError(
            explained(f"no provider is called {provider!r}; {hint}", "unknown provider")
        )
    make = dialect.llm
    if isinstance(make, str):
        make = dialects.load(make, f"provider {provider!r}")
    return make, dialect.model_option, {}


def _find_realtime(provider: str) -> tuple[Callable[..., Any], str, Mapping[str, Any]]:
    """Like `_find`, for speech-to-speech models."""
    name = _ALIASES.get(provider, provider)
    if (variant := _REALTIME_VARIANTS.get(name)) is not None:
        make = dialects.load(variant.target, f"provider {provider!r}")
        return make, variant.model_option, variant.options
    make = dialects.find(name).realtime if name in dialects.names() else None
    if make is None:
        known = realtime_provider_names()
        close = get_close_matches(provider, [*known, *_ALIASES], 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
        raise ConfigurationError(
            explained(
                f"no provider of realtime models is called {provider!r}; {hint}", "unknown provider"
            )
        )
    if isinstance(make, str):
        make = dialects.load(make, f"provider {provider!r}")
    return make, "model", {}
