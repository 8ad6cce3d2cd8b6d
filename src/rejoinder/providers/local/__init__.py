"""A model on this machine, without key or network: llama.cpp from the ``local`` extra. Nothing is
imported before it is asked for, so that the pure halves stay light."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rejoinder.providers.local.llm import LLM
    from rejoinder.providers.local.models import DEFAULT_MODEL, MODELS, ModelError, ModelFile

__all__ = ["DEFAULT_MODEL", "LLM", "MODELS", "ModelError", "ModelFile"]

_HOMES = {
    "DEFAULT_MODEL": "models",
    "LLM": "llm",
    "MODELS": "models",
    "ModelError": "models",
    "ModelFile": "models",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
