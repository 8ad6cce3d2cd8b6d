"""A model on this machine, without key or network: llama.cpp from the ``local`` extra. Names are
imported on first access, so that importing the pure modules stays cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rejoinder._late import late_names

if TYPE_CHECKING:
    from rejoinder.providers.local.llm import LLM
    from rejoinder.providers.local.models import DEFAULT_MODEL, MODELS, ModelError, ModelFile

__all__ = ["DEFAULT_MODEL", "LLM", "MODELS", "ModelError", "ModelFile"]

__getattr__, __dir__ = late_names(
    __name__,
    {
        "DEFAULT_MODEL": "models",
        "LLM": "llm",
        "MODELS": "models",
        "ModelError": "models",
        "ModelFile": "models",
    },
)
