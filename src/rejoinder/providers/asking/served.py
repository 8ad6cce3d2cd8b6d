"""A model at a host: its family, its host and the dialect, in one value.

Pure. The facts are in `rejoinder._core.families` and `rejoinder._core.hosts`; this module applies them
to one request.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, cast

from msgspec.structs import replace

from rejoinder._core.changes import Change
from rejoinder._core.dialects import Dialect
from rejoinder._core.families import Family, choose_family, find_family
from rejoinder._core.history_rules import fitted_dialect
from rejoinder._core.hosts import API, Host
from rejoinder._core.reasoning import Option, check_reasoning, resolve_reasoning
from rejoinder._core.request_rules import Concerns, concerns, fit_request, with_reasoning
from rejoinder.types import NotGiven, NotGivenOr

__all__ = ["Option", "Served", "served"]

logger = logging.getLogger("rejoinder")

_MAKERS = frozenset({"google", "xai"})


@dataclass(frozen=True, slots=True)
class Served:
    """One model at one host."""

    model: str
    api: API
    family: Family
    host: Host
    base: Dialect = field(repr=False)
    """The dialect of the API."""
    reasoning: Option | None = None
    """The caller's options, in portable form."""
    dialect: Dialect = field(init=False, compare=False, repr=False)
    """`base` with the rules for histories that hold for this model at this host."""
    _told: set[str] = field(default_factory=set[str], compare=False, repr=False)
    _concerns: Concerns | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        fitted = fitted_dialect(self.base, self.family, self.host, self.api)
        object.__setattr__(self, "dialect", fitted)
        object.__setattr__(self, "_concerns", concerns(self.api, self.family, self.host))

    def named(self, model: str) -> Served:
        """The facts for another model, which a call may name."""
        if model == self.model:
            return self
        family = _at(find_family(model), self.host)
        return Served(model, self.api, family, self.host, self.base, self.reasoning)

    def takes(self, kind: str) -> bool | None:
        """Whether the model accepts ``"image"`` or ``"audio"``; ``None`` if unknown."""
        inputs = self.family.inputs
        return None if inputs is None else kind in inputs

    def takes_back(self, keys: tuple[str, ...]) -> tuple[str, ...]:
        """Those of `keys` under which `extra` may hold state of this model: the names of its makers,
        and of gateways, unless the host is known not to be one."""
        makers = frozenset({self.family.maker}) if self.family.maker else self.host.makers
        return tuple(
            key
            for key in keys
            if (makers is None or key in makers if key in _MAKERS else self.host.makers is None)
        )

    def reason(self, body: dict[str, Any], option: Option | None = None) -> list[Change]:
        """Add the reasoning that the caller wants to a body without reasoning options.

        Args:
            body: the body, or at least its options; changed in place.
            option: the option of this call; by default that of the LLM.

        Returns:
            The differences from what the caller wants.
        """
        asked = self.reasoning if option is None else option
        if asked is None:
            return []
        wanted, changes = resolve_reasoning(asked, self.family)
        changes += with_reasoning(self.api, body, wanted, self.family, self.host)
        self.tell(changes)
        return changes

    def fit(self, body: dict[str, Any]) -> list[Change]:
        """Make a whole body acceptable to the model.

        Args:
            body: changed in place; inner mappings are replaced.

        Returns:
            The changes.

        Raises:
            ConfigurationError: the request cannot work.
        """
        if self._concerns is not None:
            for name in self._concerns.keys() & body:
                inner, held = self._concerns[name], body[name]
                if inner is None or not isinstance(held, dict):
                    break
                if not inner.isdisjoint(cast("dict[str, Any]", held)):
                    break
            else:
                return []
        changes = fit_request(self.api, body, self.family, self.host)
        self.tell(changes)
        return changes

    def tell(self, changes: list[Change]) -> None:
        """Log each kind of change once."""
        for change in changes:
            if change.detail not in self._told:
                self._told.add(change.detail)
                logger.warning("%s: %s", self.model, change.detail)


def served(
    model: str,
    api: API,
    host: Host,
    dialect: Dialect,
    *,
    reasoning: NotGivenOr[Option] | None,
    family: NotGivenOr[str] | None,
    hints: tuple[str, ...] = (),
) -> Served:
    """The facts about a model, from the options of an LLM.

    Args:
        model: its name.
        api: the dialect in which it is asked.
        host: that serves it.
        dialect: of the API, as the provider writes it.
        reasoning: the option of this name.
        family: the option of this name.
        hints: further names that may show the kind of model.

    Raises:
        ConfigurationError: the value of `reasoning` or `family` is unknown.
    """
    given = None if isinstance(reasoning, NotGiven) else reasoning
    if given is not None:
        check_reasoning(given)
    named = None if isinstance(family, NotGiven) else family
    chosen = _at(choose_family(named, model, *hints), host)
    return Served(model, api, chosen, host, dialect, given)


def _at(family: Family, host: Host) -> Family:
    """`family` with the differences of `host`."""
    for name, fields in host.differs:
        if name == family.name:
            return replace(family, **dict(fields))
    return family
