"""Converts a conversation to the form of a provider, for code that does not use `LLM.chat`.

`LLM.chat` of every provider does both steps. `repair` mends a history so that the provider accepts it,
and reports the changes; the provider's format then writes it as messages of its API.
`ChatContext.to_provider_format` is only the second step. `register_format` adds your own format under a
name; packages can also register one through the entry-point group ``rejoinder.formats``.
"""

from __future__ import annotations

from rejoinder._core import dialects
from rejoinder._core import repair as repairing
from rejoinder._core.repair import Change
from rejoinder._options import LIST, checked

__all__ = ["Change", "register_format", "repair", "to_provider_format"]

register_format = checked()(dialects.register_format)
repair = checked(items=LIST)(repairing.repair)
to_provider_format = checked(items=LIST)(dialects.to_provider_format)
