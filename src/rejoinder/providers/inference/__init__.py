"""LiveKit's inference gateway. Nothing is imported before it is asked for, so that the pure halves
stay light."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rejoinder.providers.inference.llm import LLM, LLMStream

__all__ = ["LLM", "LLMStream"]

_HOMES = {
    "LLM": "llm",
    "LLMStream": "llm",
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
