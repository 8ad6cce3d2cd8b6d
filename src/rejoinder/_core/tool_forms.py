"""A function tool as values: what a dialect makes its description of a tool from.

Pure. A `ToolForm` compiles the schema of the tool, ours or foreign, for the dialect that asks, and
collects what was changed for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rejoinder._core.json_schema import Change, Schema
from rejoinder._core.schema import Plan
from rejoinder._core.schema_compiler import Compiled, compile_schema
from rejoinder._core.schema_rules import SCHEMA_RULES
from rejoinder._core.schema_shape import too_large_for_strict

__all__ = ["ToolForm"]

_DESCRIBED: Final = ("name", "description", "parameters", "meta", "strict")


@dataclass(slots=True)
class ToolForm:
    """One function tool.

    Attributes:
        name: as the provider takes it.
        description: what the model reads about it; may be empty.
        plan: of a function whose schema comes from its signature.
        raw: the description that was written by hand, of any other tool.
        changes: where the last compiled schema differs from the tool's own.
    """

    name: str
    description: str
    plan: Plan | None
    raw: Mapping[str, Any]
    changes: tuple[Change, ...] = field(default=())

    @property
    def source(self) -> Any:
        """The JSON schema of the arguments as it was given; shared, not to be changed."""
        return self.raw.get("parameters") if self.plan is None else self.plan.schema

    @property
    def more(self) -> dict[str, Any]:
        """What a description that was written by hand holds besides."""
        return {key: value for key, value in self.raw.items() if key not in _DESCRIBED}

    def plain(self, dialect: str) -> Schema:
        """The schema in `dialect`, which may be loosened."""
        return self._keep(compile_schema(self.source or {}, dialect, own=self.plan is not None))

    def strict(self, dialect: str, *, exact: bool = False) -> Schema | None:
        """The schema to which the model can be held; ``None`` where that would change what the tool
        takes.

        Args:
            dialect: a dialect without a strict form has none for any tool.
            exact: also where limits of numbers and texts would get lost.
        """
        rules = SCHEMA_RULES.get(f"{dialect}.strict")
        if rules is None:
            return None
        if self.plan is None:
            # Its author declares the schema strict.
            if self.raw.get("strict") is not True:
                return None
            compiled = compile_schema(self.source, rules)
        elif self.plan.why_not_strict is None:
            compiled = compile_schema(self.plan.strict.copy(), rules, own=True)
        else:
            return None
        if (exact and compiled.count) or too_large_for_strict(compiled.schema):
            return None
        return self._keep(compiled)

    def _keep(self, compiled: Compiled) -> Schema:
        self.changes = compiled.changes
        return compiled.schema
