"""The table of realtime models in docs/realtime.md, made of the data that the code uses.

PYTHONPATH=src:tests python -m house.realtime_page    # writes it
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from rejoinder.llm.realtime import RealtimeModel
from rejoinder.providers.aws import realtime as aws
from rejoinder.providers.aws.realtime_models import MODELS as SONIC
from rejoinder.providers.google import realtime as google
from rejoinder.providers.google.realtime_rules import MODELS as GOOGLE
from rejoinder.providers.google.realtime_rules import LiveRules
from rejoinder.providers.openai import live
from rejoinder.providers.openai import realtime as openai
from rejoinder.providers.openai.live_format import LIVE_MODELS as LIVE
from rejoinder.providers.openai.realtime_dialects import MODELS as OPENAI

PAGE = Path(__file__).parents[2] / "docs" / "realtime.md"
HEAD = (
    "model",
    "output",
    "thinking",
    "waits for results",
    "history in mid-session",
    "truncation",
    "tools for one reply",
    "reports speech",
    "one session lasts",
    "notes",
)
MARKS = ("<!-- models: made by tests/house/realtime_page.py -->", "<!-- end of models -->")

THINKING = {"budget": "budget", "level": "level", "level_required": "level, required", "none": "no"}
WAITS = {
    "blocking": "always",
    "optional": "unless `NON_BLOCKING`",
    "non_blocking": "with `BLOCKING`",
    "always": "never",
}


def yes(value: bool) -> str:
    return "yes" if value else "no"


def common(model: RealtimeModel) -> tuple[str, str]:
    can = model.capabilities
    return yes(can.message_truncation), yes(can.per_response_tool_choice)


def openai_rows() -> Iterator[tuple[str, ...]]:
    for name, facts in OPENAI.items():
        if not facts.realtime:
            continue
        truncation, one_reply = common(openai.RealtimeModel(model=name, api_key="x"))
        reasons = {True: "effort", False: "no", None: "not known"}[facts.reasons]
        note = f"off on {facts.shut_down}: use `{facts.successor}`" if facts.shut_down else ""
        yield (f"openai `{name}`", "sound or text", reasons, "never", "any change", truncation,
               one_reply, "yes", "60 min", note)  # fmt: skip


def live_rows() -> Iterator[tuple[str, ...]]:
    for name in LIVE:
        truncation, one_reply = common(live.GPTLiveModel(model=name, api_key="x"))
        yield (f"openai `{name}`", "sound", "in the backend", "never", "appended", truncation,
               one_reply, "no", "as announced", "full duplex")  # fmt: skip


def google_rows() -> Iterator[tuple[str, ...]]:
    for name, rules in GOOGLE.items():
        if not rules.live:
            continue
        options = (
            {"thinking_config": {"thinking_level": "low"}} if "required" in rules.thinking else {}
        )
        truncation, one_reply = common(google.RealtimeModel(model=name, api_key="x", **options))
        output = "sound or text" if rules.text_output else "sound"
        history = "appended" if rules.context == "any" else "with a request"
        limit = rules.session_limit
        lasts = "no limit known" if limit is None else f"{limit / 60:g} min"
        yield (f"google `{name}`", output, THINKING[rules.thinking], WAITS[rules.tools], history,
               truncation, one_reply, yes(rules.tells_speech), lasts, _notes(rules))  # fmt: skip


def sonic_rows() -> Iterator[tuple[str, ...]]:
    for name, facts in SONIC.items():
        truncation, one_reply = common(aws.RealtimeModel(model=name, api_key="x", api_secret="x"))
        history = "with a request" if facts.text_input else "on the next stream"
        notes = [] if facts.text_input else ["answers only speech"]
        if facts.shut_down is not None:
            notes.append(f"off on {facts.shut_down}: use `{facts.successor}`")
        yield (f"aws `{name}`", "sound", "no", "never" if facts.async_tools else "always", history,
               truncation, one_reply, "no", "8 min", ", ".join(notes))  # fmt: skip


def _notes(rules: LiveRules) -> str:
    notes: list[str] = []
    if rules.proactive == "always":
        notes.append("may stay silent")
    if rules.cut_off:
        notes.append("text cuts off a reply")
    if rules.scheduling == "refused":
        notes.append("no scheduling of results")
    if rules.long_turns:
        notes.append("turns with pauses")
    return ", ".join(notes)


def table() -> str:
    rows = [
        HEAD,
        tuple("---" for _ in HEAD),
        *openai_rows(),
        *live_rows(),
        *google_rows(),
        *sonic_rows(),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def page(text: str) -> str:
    """`text` with the table as the data has it now."""
    start, end = MARKS
    pattern = re.escape(start) + ".*?" + re.escape(end)
    assert re.search(pattern, text, re.DOTALL), "the marks of the table are gone"
    return re.sub(pattern, lambda _: f"{start}\n\n{table()}\n\n{end}", text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
