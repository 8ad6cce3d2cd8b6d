"""A function tool as plain values, from which each dialect makes its description of the tool.

Pure. A `ToolForm` compiles the tool's schema, whether derived from a signature or written by hand,
for one dialect, and collects the changes.
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
        plan: the plan of a function whose schema comes from its signature.
        raw: the handwritten description of any other tool.
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
        """Other fields of a handwritten description."""
        return {key: value for key, value in self.raw.items() if key not in _DESCRIBED}

    def plain(self, dialect: str) -> Schema:
        """The schema in `dialect`, which may be loosened."""
        return self._keep(compile_schema(self.source or {}, dialect, own=self.plan is not None))

    def strict(self, dialect: str, *, exact: bool = False) -> Schema | None:
        """The schema that the provider can enforce; ``None`` if enforcing it would change which
        arguments the tool accepts.

        Args:
            dialect: a dialect without a strict form has none for any tool.
            exact: return ``None`` even if only limits of numbers and texts would be lost.
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
