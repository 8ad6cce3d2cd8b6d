"""How a conversation is brought into the form of a provider, for those who do it by themselves.

`LLM.chat` of every provider does all of it: `repair` makes any history one that the provider
accepts, and reports what it changed; the provider's format writes it as the messages of its API.
`ChatContext.to_provider_format` is the second step alone. `register_format` adds a format of your
own under a name; packages can also announce one through the entry-point group
``rejoinder.formats``.
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
