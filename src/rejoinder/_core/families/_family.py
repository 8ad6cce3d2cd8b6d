"""The facts about one family of models, as a value. Pure."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

__all__ = [
    "SAMPLING",
    "Family",
    "Forced",
    "Ids",
    "Input",
    "ReasoningBack",
    "Retired",
    "Thinks",
    "Words",
]

Thinks: TypeAlias = Literal["never", "asked", "unless_told", "always"]
"""When the model reasons before it answers. ``asked``: only if the request asks for it.
``unless_told``: by default; the request can turn it off."""

Words: TypeAlias = Literal[
    "",
    "effort",
    "thinking",
    "enable_thinking",
    "budget",
    "adaptive",
    "thinking_budget",
    "thinking_level",
    "nova",
]
"""How the maker's own API controls reasoning.

``effort``: ``reasoning_effort``. ``thinking``: ``{"thinking": {"type": "disabled"}}``.
``enable_thinking``: a switch of that name (a template argument on vLLM). ``budget``: Claude's
``thinking`` with ``budget_tokens``. ``adaptive``: Claude's adaptive thinking with
``output_config.effort``. ``thinking_budget``, ``thinking_level``: Gemini's ``thinkingConfig``.
``nova``: Amazon's ``reasoningConfig``.
"""

Forced: TypeAlias = Literal["always", "unless_budget", "unless_thinking", "never"]
"""When the model accepts a tool choice that demands a call. ``unless_budget``: not while Claude
thinks with a budget; adaptive thinking is fine."""

ReasoningBack: TypeAlias = Literal["never", "calls", "after_calls"]
"""Which assistant messages must carry their ``reasoning_content``: those with calls, or all of a
conversation in which tools were called."""

Ids: TypeAlias = Literal["any", "nine", "kimi"]
"""Ids of tool calls: ``nine``: nine letters or digits; ``kimi``: ``functions.<name>:<n>``."""

Input: TypeAlias = Literal["audio", "document", "image", "video"]

SAMPLING: Final = frozenset(
    {
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "n",
    }
)
"""Parameters of sampling, by their names in chat completions."""


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """The facts about all models of one family, wherever they are served.

    Parameters have their names in chat completions; each dialect translates them.
    """

    name: str
    """Unique; `family=` takes it."""
    maker: str = ""
    match: tuple[str, ...] = ()
    """How a model of the family is recognised; see `find_family`."""

    # -- parameters
    refuses: frozenset[str] = frozenset()
    """Parameters that the API refuses with status 400."""
    refuses_thinking: frozenset[str] = frozenset()
    """Parameters that are refused while the model thinks."""
    refuses_at_most: frozenset[str] = frozenset()
    """Parameters that are refused together with the highest effort."""
    one_of: frozenset[str] = frozenset()
    """Parameters of which a request may have only one."""
    thinking_temperature: float | None = None
    """The only temperature that is accepted while the model thinks."""

    # -- reasoning
    thinks: Thinks = "never"
    words: Words = ""
    efforts: tuple[str, ...] = ()
    """The levels that are accepted, from least to most; ``"none"`` turns reasoning off."""
    default_effort: str = ""
    """The level that is sent if the caller sets none, because voice needs short thinking. Empty: send
    no level."""
    budget: tuple[int, int] | None = None
    """The smallest and the largest number of tokens to think with; 0 turns thinking off."""
    encrypted: bool = False
    """The Responses API returns encrypted reasoning if requested."""

    # -- tools
    tools: bool = True
    idle_tools: bool = False
    """Chat Completions accepts function tools only with the effort ``"none"``."""
    forced: Forced = "always"
    named: bool = True
    """A tool choice may name a function; otherwise it may only demand some call."""
    schema_with_tools: bool = True
    """A request may have both a response format and function tools."""
    built_in_with_tools: bool = False
    """Gemini: a request may have both built-in tools and function tools."""
    responses_only: bool = False
    """OpenAI serves the model only through the Responses API."""

    # -- history
    system: Literal["any", "user"] = "any"
    """``user``: the model knows neither ``system`` nor ``developer``."""
    alternates: bool = False
    """User and assistant messages must alternate, beginning with the user."""
    reply_after_tools: bool = False
    """An assistant message must follow the result of a tool."""
    prefill: bool = False
    """The model continues a last message of the assistant."""
    ends_with_user: bool = False
    """A history that ends with the assistant is refused."""
    ids: Ids = "any"
    reasoning_back: ReasoningBack = "never"
    signed_calls: bool = False
    """A call of the current turn without its thought signature is refused."""

    # -- schemas
    schema: Literal["openai", "anthropic", "gemini", "kimi", "mistral", "plain"] = "plain"
    """The dialect of JSON schema that the model's maker accepts for tools."""
    strict: bool = True
    """Tools may be strict; other models refuse a request with this field."""
    schemas: bool = True
    """The model accepts a JSON schema as response format."""

    # -- sizes in tokens, and inputs; ``None``: not known
    context: int | None = None
    output: int | None = None
    inputs: frozenset[Input] | None = None
    """Kinds of input other than text; ``None`` if unknown."""

    # -- text
    think_tags: tuple[tuple[str, str], ...] = ()
    """Marks that enclose thinking in the model's text."""
    opens_inside: bool = False
    """The template opens the thinking, so the text begins inside it and holds only the closing mark."""
    heads: tuple[str, ...] = ()
    """Template marks before the answer that servers leave at the beginning of a text."""
    marks: tuple[str, ...] = ()
    """Other template marks, seen at the end of texts and names, to which they do not belong."""


class Retired(msgspec.Struct, frozen=True):
    """A model that its maker no longer serves."""

    ended: str
    """The day, as ``YYYY-MM-DD`` or ``YYYY-MM``."""
    successor: str
    """The model to use instead, by its name at the same host."""
