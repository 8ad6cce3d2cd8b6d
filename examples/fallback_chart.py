"""Three models answer as one while two of them fail, and a chart shows what happened.

    pip install . opentelemetry-sdk
    python examples/fallback_chart.py                           # three servers that misbehave on purpose
    python examples/fallback_chart.py --models openai/gpt-4.1,anthropic/claude-sonnet-4-5,google/gemini-2.5-flash

It prints the chart and writes it to fallback.svg. The chart is drawn from the trace, which you would also
use in production: each request to each model is a span.
"""

import argparse
import asyncio
from contextlib import AsyncExitStack
from html import escape
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rejoinder import LLM, FallbackAdapter, create, run_turn
from rejoinder.llm import TurnBudget
from rejoinder.providers import anthropic, google, openai
from rejoinder.testing import Answer, Fault, FaultServer

QUESTION = "Why is the sky blue? One sentence."
ANSWER = ("Air ", "scatters ", "blue ", "light ", "more ", "than ", "red.")
GOOD = Answer(text=ANSWER)
# The faults of the first and the second model's servers. A model that failed rests for a second or more;
# then a probe tests it, and it is used again.
FIRST = (
    GOOD,
    Fault.KEEP_ALIVES_FOR_EVER,  # the connection lives, and no word comes
)
SECOND = (
    GOOD,
    Answer(text=ANSWER, fault=Fault.RESET_MID_STREAM, after=4),  # breaks off in mid-sentence
)


def team_of(models: list[LLM], patience: float) -> FallbackAdapter:
    return FallbackAdapter(
        models,
        # Silence is a failure: a model has this long for its first word. Keep-alives do not count.
        attempt_timeout=patience,
        budget=TurnBudget(done_by=20.0),
        on_cut="resume",  # the next model continues a sentence that broke off
    )


async def ask(llm: FallbackAdapter, turns: int) -> None:
    for turn in range(turns):
        done = await run_turn(llm, QUESTION).collect()
        print(f"turn {turn + 1}: {done.text}")
        await asyncio.sleep(0.5)


def record() -> InMemorySpanExporter:
    """Keep all spans in memory. In production, use an OTLP exporter instead."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


def outcome(span: ReadableSpan) -> str:
    found = span.attributes or {}
    if "error.type" in found:
        return f"failed: {found['error.type']}"
    return "given up" if found.get("rejoinder.cancelled") else "answered"


def bars(spans: list[ReadableSpan]) -> list[tuple[int, str, str, float, float]]:
    """Turn, model, outcome, begin and end in seconds since the turn began; in order of time."""
    turns = sorted((s for s in spans if s.name == "agent_turn"), key=lambda s: s.start_time)
    number = {span.context.trace_id: n for n, span in enumerate(turns, 1)}
    begin = {span.context.trace_id: span.start_time for span in turns}
    found = []
    for span in sorted(spans, key=lambda s: s.start_time):
        at = begin.get(span.context.trace_id)
        if span.name == "llm_request" and at is not None:
            seconds = [(moment - at) / 1e9 for moment in (span.start_time, span.end_time)]
            model = str(span.attributes["gen_ai.request.model"])
            found.append((number[span.context.trace_id], model, outcome(span), *seconds))
    return found


def draw(rows: list[tuple[int, str, str, float, float]], width: int = 40) -> str:
    """The chart for a terminal."""
    longest = max((row[4] for row in rows), default=1.0)
    lines, last = [], 0
    for turn, model, what, begin, end in rows:
        title = f"turn {turn}" if turn != last else ""
        space = round(begin / longest * width)
        bar = ("█" if what == "answered" else "░") * max(1, round((end - begin) / longest * width))
        lines.append(f"{title:<8}{model:<20}{' ' * space}{bar} {what}, {end - begin:.2f} s")
        last = turn
    return "\n".join(lines)


def svg(rows: list[tuple[int, str, str, float, float]]) -> str:
    """The same as a picture, readable on light and dark pages."""
    longest = max((row[4] for row in rows), default=1.0)
    parts, last, y = [], 0, 10
    for turn, model, what, begin, end in rows:
        if turn != last:
            y += 12
            parts.append(f'<text x="10" y="{y + 13}" font-weight="bold">turn {turn}</text>')
        x, wide = 240 + begin / longest * 380, max(3, (end - begin) / longest * 380)
        kind = "good" if what == "answered" else "bad"
        parts += [
            f'<text x="75" y="{y + 13}">{escape(model)}</text>',
            f'<rect class="{kind}" x="{x:.0f}" y="{y}" width="{wide:.0f}" height="17" rx="3"/>',
            f'<text x="{x + wide + 6:.0f}" y="{y + 13}">{escape(what)}, {end - begin:.2f} s</text>',
        ]
        last, y = turn, y + 22
    style = (
        "text{font:13px system-ui,sans-serif;fill:#222}.good{fill:#2a7de1}.bad{fill:#e07b39}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 {y + 10}">'
    return f"{head}<style>{style}</style>{''.join(parts)}</svg>\n"


async def main() -> None:
    parser = argparse.ArgumentParser(description="Three models answer as one.")
    parser.add_argument("--models", help="three or more of provider/model, with commas between")
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("fallback.svg"))
    options = parser.parse_args()
    exporter = record()
    async with AsyncExitStack() as stack:
        patience = 3.0 if options.models else 0.5
        if options.models:
            models = [create(name) for name in options.models.split(",")]
        else:
            servers = [await stack.enter_async_context(FaultServer(default=GOOD)) for _ in range(3)]
            servers[0].script(*FIRST)
            servers[1].script(*SECOND)
            urls = [server.url for server in servers]
            models = [
                openai.LLM(model="gpt-4.1", api_key="any", base_url=f"{urls[0]}/v1"),
                anthropic.LLM(model="claude-sonnet-4-5", api_key="any", base_url=urls[1]),
                google.LLM(model="gemini-2.5-flash", api_key="any", base_url=urls[2]),
            ]
        for model in models:  # an adapter leaves them open: others may use them as well
            await stack.enter_async_context(model)
        llm = await stack.enter_async_context(team_of(models, patience))
        await ask(llm, options.turns)
    rows = bars(list(exporter.get_finished_spans()))
    print("\n" + draw(rows))
    options.out.write_text(svg(rows), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
