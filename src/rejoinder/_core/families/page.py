"""Generates the tables of `docs/capabilities.md` from the tables that the code uses.

`python -m rejoinder._core.families.page docs/capabilities.md` writes them between their marks.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rejoinder._core.families import FAMILIES, RETIRED, Family
from rejoinder._core.hosts import HOSTS, Host

__all__ = ["render_families", "render_hosts", "render_retired", "with_tables"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _code(*names: str) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _size(tokens: int | None) -> str:
    if tokens is None:
        return ""
    return f"{tokens / 1_000_000:.3g} M" if tokens >= 1_000_000 else f"{round(tokens / 1_000)} k"


def _reasoning(family: Family) -> str:
    if family.thinks == "never":
        return "no"
    how = {"asked": "on request", "unless_told": "unless turned off", "always": "always"}
    text = how[family.thinks]
    if family.efforts:
        text += f": {_code(*family.efforts)}"
    elif family.budget is not None:
        text += f": {family.budget[0]} to {family.budget[1]} tokens"
    if family.default_effort:
        text += f"; here `{family.default_effort}` by default"
    return text


def _tools(family: Family) -> str:
    if not family.tools:
        return "no"
    notes = {
        "always": "",
        "unless_budget": "forced: not while thinking with a budget",
        "unless_thinking": "forced: not while thinking",
        "never": "never forced",
    }
    harmless = family.forced == "unless_budget" and family.budget is None
    found = ["" if harmless else notes[family.forced]]
    if not family.named:
        found.append("no choice by name")
    if family.idle_tools:
        found.append("Chat Completions: only without reasoning")
    if not family.schema_with_tools:
        found.append("not beside a response format")
    if not family.strict:
        found.append("not strict")
    return "; ".join(note for note in found if note) or "yes"


def _refused(family: Family) -> str:
    found = [_code(*sorted(family.refuses))] if family.refuses else []
    if family.refuses_thinking:
        found.append(f"while thinking {_code(*sorted(family.refuses_thinking))}")
    if family.one_of:
        found.append(f"more than one of {_code(*sorted(family.one_of))}")
    if not family.schemas:
        found.append("a JSON schema as response format")
    if family.thinking_temperature is not None:
        found.append(f"while thinking a `temperature` other than {family.thinking_temperature:g}")
    return "; ".join(found)


def _history(family: Family) -> str:
    found: list[str] = []
    if family.system == "user":
        found.append("no system role")
    if family.alternates:
        found.append("turns alternate")
    if family.reply_after_tools:
        found.append("the assistant speaks after a tool")
    if family.ends_with_user:
        found.append("the user speaks last")
    if family.prefill:
        found.append("continues a last reply")
    if family.ids != "any":
        ids = {"nine": "nine letters or digits", "kimi": "`functions.<name>:<n>`"}
        found.append(f"ids: {ids[family.ids]}")
    if family.reasoning_back != "never":
        found.append("needs its reasoning back")
    if family.signed_calls:
        found.append("needs its signatures back")
    return "; ".join(found)


def render_families(maker: str | None = None) -> str:
    """A row for each family; with a maker, only for its families."""
    rows = [
        [
            f"`{family.name}`",
            _reasoning(family),
            _tools(family),
            _refused(family),
            _history(family),
            "" if family.inputs is None else ", ".join(sorted(family.inputs)) or "text only",
            _size(family.context),
            _size(family.output),
        ]
        for family in sorted(FAMILIES, key=lambda family: (family.maker, family.name))
        if maker in {None, family.maker}
    ]
    head = ["family", "reasons", "tools", "refuses", "history", "takes", "context", "output"]
    return _table(head, rows)


def _where(host: Host) -> str:
    return _code(*(f"*{at}" if at.startswith(".") else at for at in host.at)) or "any other"


def _notes(host: Host) -> str:
    found: list[str] = []
    if host.developer:
        found.append("role `developer`")
    if host.call_id_limit is not None:
        found.append(f"call ids up to {host.call_id_limit}")
    if host.alternates:
        found.append("turns alternate")
    if host.limits_by_max_tokens:
        found.append("`max_tokens`")
    if not host.strict_tools:
        found.append("no strict tools")
    if not host.schemas:
        found.append("no JSON schema as response format")
    missing = {"required", "named"} - host.choices
    if missing:
        found.append("no forced tool")
    if host.forces is not None:
        found.append(f"a forced tool for models of {', '.join(sorted(host.forces))}")
    if host.refuses:
        found.append(f"no {_code(*sorted(host.refuses))}")
    found += [f"`{name}`: {_differences(dict(fields))}" for name, fields in host.differs]
    if host.reasoning_details:
        found.append("`reasoning_details` go back")
    return "; ".join(found)


def _differences(fields: Mapping[str, Any]) -> str:
    words = {
        "tools": "no tools",
        "schemas": "no JSON schema as response format",
        "system": "no system role",
        "efforts": f"reasons: {_code(*fields.get('efforts', ()))}",
    }
    return ", ".join(text for name, text in words.items() if name in fields)


def render_hosts() -> str:
    """A row for each host."""
    words = {
        "maker": "in the form of the model's maker",
        "effort": "`reasoning_effort`",
        "reasoning": "`reasoning`",
        "template": "`chat_template_kwargs`, or `reasoning_effort`",
        "none": "no",
    }
    rows = [
        [host.name, _where(host), _code(*host.apis), words[host.reasoning], _notes(host)]
        for host in HOSTS.values()
    ]
    return _table(["host", "where", "dialects", "reasoning", "notes"], rows)


def render_retired() -> str:
    """A row for each model that is gone."""
    rows = [
        [f"`{name}`", retired.ended, f"`{retired.successor}`"]
        for name, retired in sorted(RETIRED.items())
    ]
    return _table(["model", "ended", "successor"], rows)


def with_tables(page: str) -> str:
    """`page` with the tables between ``<!-- families -->`` and ``<!-- end -->``, and so on."""
    for name, render in (
        ("families", render_families),
        ("hosts", render_hosts),
        ("retired", render_retired),
    ):
        before, mark, rest = page.partition(f"<!-- {name} -->\n")
        if not mark:
            raise ValueError(f"the page has no mark <!-- {name} -->")
        _, end, after = rest.partition("<!-- end -->")
        page = f"{before}{mark}\n{render()}\n{end}{after}"
    return page


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_tables(path.read_text("utf-8")), "utf-8")
