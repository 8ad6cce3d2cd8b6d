"""``docs/testing.md``: its tables are those of the code. (tests/house runs its examples.)"""

from __future__ import annotations

import ast
import inspect
from enum import Enum
from pathlib import Path

from rejoinder.testing import REALTIME_OUTCOMES, RealtimeFault
from rejoinder.testing.faults import OUTCOMES, Fault, Outcome

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


def meanings(faults: type[Enum]) -> dict[str, str]:
    """The sentence under each member of an enumeration of faults."""
    tree = ast.parse(inspect.getsource(faults))
    [enumeration] = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    body = enumeration.body
    found: dict[str, str] = {}
    name = ""
    for node in body:
        if isinstance(node, ast.Assign):
            name = node.value.value  # type: ignore[attr-defined]
        elif isinstance(node, ast.Expr) and name:
            found[name] = " ".join(node.value.value.split())  # type: ignore[attr-defined]
    return found


def words(outcome: Outcome) -> str:
    if not outcome.errors:
        return "the whole reply"
    said = " or ".join(f"`{kind.__name__}`" for kind in outcome.errors)
    if outcome.status is not None:
        said += f" {outcome.status}"
    if outcome.retry_after is not None:
        said += f", `retry_after` {outcome.retry_after:g} s"
    if outcome.text:
        said = f"some text, then {said}"
    elif outcome.retryable is not None:
        said += ", retryable" if outcome.retryable else ", not retryable"
    return said


def table() -> str:
    """The table of faults, as it stands in the page."""
    notes = meanings(Fault)
    lines = ["| fault | what the server does | result |", "|---|---|---|"]
    for fault, outcome in OUTCOMES.items():
        status = f"Status {fault.value[7:]} with an error object."
        note = notes.get(fault.value, status).replace("``", "`")
        lines.append(f"| `{fault.value}` | {note} | {words(outcome)} |")
    return "\n".join(lines)


def test_the_table_is_up_to_date() -> None:
    assert table() in PAGE.read_text("utf-8"), f"docs/testing.md should hold:\n{table()}"


def realtime_table() -> str:
    notes = meanings(RealtimeFault)
    lines = ["| fault | what the service does | result |", "|---|---|---|"]
    for fault, outcome in REALTIME_OUTCOMES.items():
        if outcome.reply is None:
            ends = "`RealtimeError`" + (f" (`{outcome.code}`)" if outcome.code else "")
        else:
            ends = f"the reply ends: {outcome.reply}"
        ends += "; the session is over" if outcome.fatal else ""
        lines.append(f"| `{fault.value}` | {notes[fault.value].replace('``', '`')} | {ends} |")
    return "\n".join(lines)


def test_the_table_of_realtime_faults_is_up_to_date() -> None:
    table = realtime_table()
    assert table in PAGE.read_text("utf-8"), f"docs/testing.md should hold:\n{table}"
