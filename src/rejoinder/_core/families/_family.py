"""What is known of one family of models, as a value. Pure."""

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
"""When the model reasons before it answers: ``asked``: only where the request asks for it;
``unless_told``: by default, and the request can turn it off."""

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
    """What is true of all models of one family, wherever they are served.

    Parameters have their names in chat completions; each dialect translates them.
    """

    name: str
    """Unique; `family=` takes it."""
    maker: str = ""
    match: tuple[str, ...] = ()
    """How a model of the family is recognised; see `find_family`."""

    # -- parameters
    refuses: frozenset[str] = frozenset()
    """Parameters that are answered with status 400."""
    refuses_thinking: frozenset[str] = frozenset()
    """Parameters that are refused while the model thinks."""
    refuses_at_most: frozenset[str] = frozenset()
    """Parameters that are refused beside the highest effort."""
    one_of: frozenset[str] = frozenset()
    """Parameters of which a request may hold one."""
    thinking_temperature: float | None = None
    """The one temperature that is accepted while the model thinks."""

    # -- reasoning
    thinks: Thinks = "never"
    words: Words = ""
    efforts: tuple[str, ...] = ()
    """The levels that are accepted, from least to most; ``"none"`` turns reasoning off."""
    default_effort: str = ""
    """The level that is sent where the caller asks for none: models that are spoken with should
    not think for long. Empty: nothing is sent."""
    budget: tuple[int, int] | None = None
    """The smallest and the largest number of tokens to think with; 0 turns thinking off."""
    encrypted: bool = False
    """The Responses API returns its reasoning encrypted when asked to."""

    # -- tools
    tools: bool = True
    idle_tools: bool = False
    """Chat Completions accepts function tools only with the effort ``"none"``."""
    forced: Forced = "always"
    named: bool = True
    """A tool choice may name a function; else it may only demand any call."""
    schema_with_tools: bool = True
    """A response format and function tools may stand in one request."""
    built_in_with_tools: bool = False
    """Gemini: built-in tools and function tools may stand in one request."""
    responses_only: bool = False
    """OpenAI serves the model by the Responses API alone."""

    # -- history
    system: Literal["any", "user"] = "any"
    """``user``: the model knows neither ``system`` nor ``developer``."""
    alternates: bool = False
    """User and assistant must take turns, the user first."""
    reply_after_tools: bool = False
    """After the result of a tool comes the assistant, not the user."""
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
    """The dialect of JSON schema in which the model's maker takes tools."""
    strict: bool = True
    """Tools may be strict; elsewhere the field ends a request."""
    schemas: bool = True
    """It takes a JSON schema as response format."""

    # -- sizes in tokens, and inputs; ``None``: not known
    context: int | None = None
    output: int | None = None
    inputs: frozenset[Input] | None = None
    """What it takes beside text; ``None``: not known."""

    # -- text
    think_tags: tuple[tuple[str, str], ...] = ()
    """Marks between which the model thinks aloud in its text."""
    opens_inside: bool = False
    """The template opens the thought: the text begins inside and holds only the closing mark."""
    heads: tuple[str, ...] = ()
    """Marks of the template before the answer, which servers leave at the beginning of a text."""
    marks: tuple[str, ...] = ()
    """Other marks of the template: they were seen in texts and names, and are no part of a text that
    they end."""


class Retired(msgspec.Struct, frozen=True):
    """A model that its maker no longer serves."""

    ended: str
    """The day, as ``YYYY-MM-DD`` or ``YYYY-MM``."""
    successor: str
    """The model to use instead, by its name at the same host."""
