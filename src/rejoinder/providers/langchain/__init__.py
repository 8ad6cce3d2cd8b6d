"""LangChain, both ways: a graph or runnable as an `LLM`, and any `LLM` as a LangChain chat model.

Names are imported on first access, because `langchain_core` alone takes a fifth of a second.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rejoinder._late import late_names
from rejoinder._sections import explained

if TYPE_CHECKING:
    from rejoinder.providers.langchain.chat_model import ChatRejoinder, as_langchain
    from rejoinder.providers.langchain.llm import LangGraphStream, LLMAdapter

__all__ = ["ChatRejoinder", "LLMAdapter", "LangGraphStream", "as_langchain"]

_HOMES = {
    "ChatRejoinder": "chat_model",
    "LLMAdapter": "llm",
    "LangGraphStream": "llm",
    "as_langchain": "chat_model",
}


_find, __dir__ = late_names(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        try:
            # A user with a graph has imported it. If it is missing, raise the error now, not in a reply.
            import_module("langchain_core.messages")
        except ModuleNotFoundError as error:
            raise ImportError(
                explained(
                    f"{__name__}.{name} needs langchain-core, which is not installed: "
                    "pip install 'rejoinder[langchain]'",
                    "missing package",
                )
            ) from error
    return _find(name)
