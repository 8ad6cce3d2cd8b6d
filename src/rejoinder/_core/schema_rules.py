"""The JSON schemas that each maker of models accepts, as data.

A model family names its dialect (`rejoinder._core.families`), because many hosts serve one model.
``NAME`` is the dialect for ordinary tools, ``NAME.strict`` that for enforced schemas. Only
`rejoinder._core.schema_compiler` applies the rules. Pure.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec
from msgspec.structs import replace

from rejoinder._core.names import KEY

__all__ = ["SCHEMA_RULES", "SchemaRules"]

_ANNOTATIONS: Final = frozenset({"description", "title", "default"})
_BASE: Final = frozenset(
    {"type", "description", "properties", "required", "items", "enum", "anyOf", "additionalProperties"}
)  # fmt: skip
_TEXT_LIMITS: Final = frozenset({"minLength", "maxLength", "pattern", "format"})
_NUMBER_LIMITS: Final = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
)


class SchemaRules(msgspec.Struct, frozen=True):
    """The accepted subset of JSON schema.

    An unsupported keyword that limits a string, a number or a list is expressed in the description;
    all others are dropped.
    """

    keywords: frozenset[str] | None = None
    """The accepted keywords; ``None`` accepts all."""
    formats: frozenset[str] | None = None
    """The accepted values of ``format``; ``None`` accepts all."""
    keys: re.Pattern[str] | None = None
    """The accepted property names. Others are replaced, and mapped back in arguments."""
    beside_ref: frozenset[str] | None = None
    """The keywords accepted beside a ``$ref``; with any other, the definition is inlined. ``None``
    accepts all."""
    refs: bool = True
    """``$ref`` and ``$defs`` are accepted, including recursion."""
    required_known: bool = False
    """Every name in ``required`` must be among the properties."""
    recursion: bool = True
    """A definition may refer to itself. Otherwise it is inlined, a few levels deep."""
    required_cycles: bool = True
    """A property that refers back to its own object may be required."""
    all_of: bool = True
    one_of: bool = True
    const: bool = True
    type_lists: bool = True
    """``type`` may be a list."""
    type_beside_any_of: bool = True
    typed: bool = False
    """Each schema needs a type, ``anyOf`` or ``$ref``."""
    items_needed: bool = True
    """A list must declare its elements: "array schema missing items" refuses the whole request."""
    mixed_enums: bool = True
    """An enum may hold values of several types, null, booleans and objects."""
    empty_texts: bool = True
    """An enum may hold the empty string."""
    plain_patterns: bool = False
    """A pattern may not look around or back."""
    closed: bool = False
    """Each object is closed: ``additionalProperties`` is false."""
    all_required: bool = False
    """Each property is required; an optional one may be null instead."""


_STRICT_FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)

# A tool with another root makes the API refuse the whole request: "schema must have type 'object' and
# not have 'oneOf'/'anyOf'/'allOf'/'enum'/'not' at the top level". That rule applies to all dialects,
# so it is in the compiler.
_OPENAI: Final = SchemaRules()

# Structured outputs guide. Azure's version of it lists unsupported keywords: minLength, maxLength,
# patternProperties, unevaluated*, propertyNames, min/maxProperties, contains, uniqueItems.
_OPENAI_STRICT: Final = SchemaRules(
    keywords=_BASE | _NUMBER_LIMITS | {"const", "pattern", "format", "minItems", "maxItems"},
    formats=_STRICT_FORMATS,
    beside_ref=frozenset(),
    required_known=True,
    all_of=False,
    one_of=False,
    plain_patterns=True,
    closed=True,
    all_required=True,
)

# "Property keys should match pattern '^[a-zA-Z0-9_.-]{1,64}$'", and the schema has to be valid
# 2020-12.
_ANTHROPIC: Final = SchemaRules(keys=KEY)

# "JSON Schema limitations" of the structured outputs guide: no recursion, no limits of numbers and
# strings, and of lists only a minimum of 0 or 1.
_ANTHROPIC_STRICT: Final = replace(
    _ANTHROPIC,
    keywords=_BASE | {"const", "default", "examples", "format", "pattern", "title"},
    formats=_STRICT_FORMATS | {"uri"},
    beside_ref=frozenset({"description"}),
    recursion=False,
    required_known=True,
    all_of=False,
    one_of=False,
    plain_patterns=True,
    closed=True,
)

# The fields `parametersJsonSchema` and `responseJsonSchema` of the Gemini API.
_GEMINI: Final = SchemaRules(
    keywords=_BASE
    | _NUMBER_LIMITS
    | _TEXT_LIMITS
    | {"title", "default", "prefixItems", "minItems", "maxItems"},
    beside_ref=frozenset({"description", "default"}),
    required_known=True,
    required_cycles=False,
    all_of=False,
    one_of=False,
    const=False,
    mixed_enums=False,
    empty_texts=False,
)

# The `Schema` object of the Gemini API, older than the fields above, and used by its Live API.
_GEMINI_SCHEMA: Final = replace(
    _GEMINI,
    keywords=_BASE | _TEXT_LIMITS | {"minimum", "maximum", "minItems", "maxItems"},
    refs=False,
    typed=True,
    type_lists=False,
    type_beside_any_of=False,
)

# "Moonshot Flavored JSON Schema": an open checker (MoonshotAI/walle) and its specification.
_KIMI: Final = SchemaRules(
    keywords=_BASE | {"default"},
    beside_ref=frozenset(),
    all_of=False,
    one_of=False,
    const=False,
    type_lists=False,
    type_beside_any_of=False,
    typed=True,
    items_needed=False,
    mixed_enums=False,
)

SCHEMA_RULES: Final[dict[str, SchemaRules]] = {
    "plain": _OPENAI,
    "plain.strict": _OPENAI_STRICT,
    "openai": _OPENAI,
    "openai.strict": _OPENAI_STRICT,
    "mistral": _OPENAI,
    "mistral.strict": _OPENAI_STRICT,
    "anthropic": _ANTHROPIC,
    "anthropic.strict": _ANTHROPIC_STRICT,
    # Claude is the most demanding of the models on Bedrock.
    "bedrock": _ANTHROPIC,
    "bedrock.strict": _ANTHROPIC_STRICT,
    "gemini": _GEMINI,
    "gemini.schema": _GEMINI_SCHEMA,
    "kimi": _KIMI,
}
