"""Runs the benchmarks, beside the peers in their own environments, and compares with docs/benchmarks.md.

    make bench                                    # all of them; takes an hour, on a machine without other work
    python bench/all.py --only providers,context
    python bench/all.py --quick                   # whether they run, with our side alone
    python bench/all.py --page                    # only draw the charts of the page from its tables

Writes to bench/results/: one JSON file with the figures, the command of each benchmark, the machine,
the date and all versions, and a chart for each table. Ends with status 1 if a benchmark fails or
misses a limit of its own, or if a figure is worse than the page says. Times depend on the machine, so where a
table has a bare loop or a peer, the ratio to it is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from figures import PAGE, Rows, bars, chosen, page_tables

HERE = Path(__file__).resolve().parent
PICTURES = PAGE.parent / "pictures"
WORSE = 1.25
"""How much of a ratio is noise. A figure beyond it is told as worse."""
OURS = "rejoinder"
BASES = ("bare", "LiveKit Agents 1.2.17", "livekit-plugins-openai 1.2.17")
"""With what ours is compared, by the first that a row has."""
COLUMNS = {
    "livekit": "LiveKit Agents 1.2.17",
    "livekit-agents==1.2.17": "LiveKit Agents 1.2.17",
    "langchain": "LangChain",
    "pydantic-ai": "Pydantic AI",
    "litellm": "LiteLLM",
}
"""Names of subjects on the page, where they differ from those of the benchmarks."""


@dataclass(frozen=True)
class Bench:
    """A benchmark, and its table on the page.

    Attributes:
        heading: of the section of the page that holds its table; the first table there counts.
        rows: names of rows on the page, by those of the benchmark.
        columns: the same for subjects, beside `COLUMNS`.
        arguments: for figures that are worth recording.
        quick: for a run that only shows that it works; ``None``: it needs more than our own package.
        limits: status 1 means that a limit was missed, not that it broke.
    """

    name: str
    heading: str = ""
    rows: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    quick: tuple[str, ...] | None = None
    limits: bool = False


BENCHES = (
    Bench(
        "stream_overhead",
        "A stream by itself",
        quick=("--only", OURS, "--rounds", "1", "--chunks", "320"),
    ),
    Bench("speech", "Text for speech engines", quick=("--rounds", "1")),
    Bench(
        "providers",
        "A reply over the network",
        rows={
            "fast chunk": "a chunk, CPU µs",
            "fast request": "a request, CPU µs",
            "ttft p50": "first token, ms, p50",
            **{f"delays {n} p99": f"delay of {n} streams, ms, p99" for n in (100, 300, 500)},
        },
        # One round: with the slowest peers it takes ten minutes.
        arguments=("--rounds", "1", "--seconds", "4"),
        limits=True,
    ),
    Bench("imports", "Import and memory", quick=("--only", OURS, "--rounds", "1")),
    Bench(
        "instructions",
        "Instructions",
        rows={"lone": "a lone chunk", "burst": "a burst chunk", "request": "a request"},
        arguments=("--kinds", "lone", "burst", "request", "--subjects", "bare", OURS),
    ),
    Bench("telemetry", "Traces and metrics", quick=("--rounds", "1", "--chunks", "160")),
    Bench(
        "context",
        "A conversation",
        rows={
            "format openai": "to OpenAI's form",
            "format mistralai": "to Mistral's",
            "format anthropic": "to Anthropic's",
            "format google": "to Gemini's",
            "format aws": "to Bedrock's",
            "diff one new": "difference to the same with one new item",
            "diff one new and all loaded": "the same, all items loaded anew",
            "5000 ordered appends": "5000 messages added with a time, in order",
            "5000 ordered inserts": "5000 messages inserted, in order",
            "strict schemas of 30 tools": "strict schemas of 30 tools, at each request",
            "arguments": "arguments of a call",
        },
        columns={"ours": OURS, "theirs": "LiveKit Agents 1.2.17"},
        limits=True,
    ),
    Bench("blocking", limits=True),
    Bench(
        "fallback",
        "Fallback",
        rows={
            "bare, bursts of 16": "a chunk in bursts of 16, bare model",
            "adapter, bursts of 16": "a chunk in bursts of 16, through the adapter",
            "bare, bursts of 1": "a chunk one at a time, bare model",
            "adapter, bursts of 1": "a chunk one at a time, through the adapter",
            "bare, a request": "a request, bare model",
            "adapter, a request": "a request through the adapter",
            "says nothing": "opens the stream and says nothing",
        },
    ),
    Bench(
        "realtime",
        "Realtime sessions",
        rows={"cpu": "CPU of a session, ms a second", "memory": "memory of the process, MB"},
        columns={
            "livekit-1.2.17": "livekit-plugins-openai 1.2.17",
            "livekit": "livekit-plugins-openai 1.8.9",
        },
        arguments=("--sessions", "40", "--seconds", "10", "--rounds", "3"),
    ),
    # One round: a peer that is too slow for so many streams takes minutes for each number of them.
    Bench("live", "Many conversations at once", arguments=("--rounds", "1")),
    Bench("integrations", arguments=("--rounds", "2"), limits=True),
    Bench(
        "web",
        "The page",
        rows={
            "ready, ms": "ready for a question, ms",
            "requests until loaded": "requests until all of it is there",
            "script until loaded, ms of CPU": "CPU of scripts until then, ms",
            "token on the screen, ms": "from the model's token to the frame that shows it, ms",
            "first hundred of many, ms": "the same in the long reply, first hundred tokens, ms",
            "last hundred, ms": "last hundred tokens, ms",
        },
        columns={"page": OURS},
    ),
)


# -- charts ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chart:
    """A picture of the page: rows of the first table under a heading that has them."""

    name: str
    heading: str
    title: str
    rows: tuple[str, ...]
    logarithmic: bool = False


CHARTS = (
    Chart("chunk", "A reply over the network", "CPU of a chunk, µs", ("a chunk, CPU µs",)),
    Chart("first-token", "A reply over the network", "First token, ms", ("first token, ms, p50",)),
    Chart(
        "streams",
        "A reply over the network",
        "How late a token is in many streams, ms, p99 (logarithmic)",
        tuple(f"delay of {n} streams, ms, p99" for n in (100, 300, 500)),
        logarithmic=True,
    ),
    Chart(
        "live",
        "Many conversations at once",
        "Many conversations at once: how late a chunk is, ms, p99 (logarithmic)",
        tuple(f"{n} streams, p99" for n in (100, 300, 500, 1000, 2000)),
        logarithmic=True,
    ),
    Chart(
        "silence",
        "Fallback",
        "The first model misbehaves: until the first word, ms",
        (
            "opens the stream and says nothing",
            "role only, for ever",
            "usage only, for ever",
        ),
    ),
    Chart(
        "context",
        "A conversation",
        "A conversation of 2000 items, CPU µs (logarithmic)",
        (
            "to OpenAI's form",
            "to Anthropic's",
            "copy",
            "to_dict",
            "difference to the same with one new item",
        ),
        logarithmic=True,
    ),
    Chart(
        "realtime-cpu",
        "Realtime sessions",
        "CPU of a session, ms a second",
        ("CPU of a session, ms a second",),
    ),
    Chart(
        "realtime-memory",
        "Realtime sessions",
        "Memory of 40 sessions, MB",
        ("memory of the process, MB",),
    ),
    Chart(
        "import-memory", "Import and memory", "Memory of an import, MB", ("import, memory in MB",)
    ),
    Chart("import-cpu", "Import and memory", "CPU of an import, ms", ("import, CPU ms",)),
)


def draw(tables: Mapping[str, list[Rows]], folder: Path, prefix: str = "") -> list[str]:
    """The charts for which there are figures. Returns their names."""
    drawn: list[str] = []
    for chart in CHARTS:
        for table in tables.get(chart.heading, ()):
            rows = chosen(table, chart.rows)
            rows = {
                label: {k: v for k, v in row.items() if k != "ratio"} for label, row in rows.items()
            }
            if rows:
                text = bars(chart.title, rows, logarithmic=chart.logarithmic)
                (folder / f"{prefix}{chart.name}.svg").write_text(text, encoding="utf-8")
                drawn.append(chart.name)
                break
    return drawn


# -- comparing -------------------------------------------------------------------------------------


def as_on_page(bench: Bench, rows: Rows) -> Rows:
    """The figures of a run under the names that the page has for them."""
    named: Rows = {}
    for label, row in rows.items():
        columns = {bench.columns.get(name, COLUMNS.get(name, name)): v for name, v in row.items()}
        named[bench.rows.get(label, label)] = columns
    return named


def worse(run: Rows, page: Rows) -> list[str]:
    """What a run found worse than the page says, in sentences."""
    found: list[str] = []
    for label in run.keys() & page.keys():
        ours, said = run[label].get(OURS), page[label].get(OURS)
        if isinstance(said, str) or said is None or ours is None:
            continue
        if isinstance(ours, str):
            found.append(f"{label}: {ours}, the page says {said:g}")
            continue
        base = next((name for name in BASES if _both(run[label], page[label], name)), None)
        if base is not None:
            now, then = ours / float(run[label][base]), said / float(page[label][base])
        else:
            now, then = ours, said
        if now > then * WORSE:
            what = "" if base is None else f" of {base}"
            found.append(f"{label}: {now:.3g}{what}, the page says {then:.3g}")
    return sorted(found)


def _both(run: Mapping[str, Any], page: Mapping[str, Any], name: str) -> bool:
    return all(isinstance(row.get(name), int | float) and row[name] > 0 for row in (run, page))


# -- running ---------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What figures depend on."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False
    ).stdout.strip()
    cpu = platform.processor()
    if (info := Path("/proc/cpuinfo")).exists():
        cpu = next(iter(re.findall(r"model name\s*: (.+)", info.read_text())), cpu)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "python": platform.python_version(),
        "compiler": platform.python_compiler(),
        "system": platform.platform(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "versions": {
            lock.stem: re.findall(r"^([\w.-]+==[^\s;\\]+)", lock.read_text(), re.MULTILINE)
            for lock in sorted((HERE.parent / "requirements" / "bench").glob("*.lock"))
        },
    }


def measure(bench: Bench, arguments: tuple[str, ...]) -> dict[str, Any]:
    """Run one benchmark: its command, what it printed, its figures, and how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "figures.json"
        line = [sys.executable, str(HERE / f"{bench.name}.py"), *arguments]
        takes = (
            "--json" in subprocess.run([*line[:2], "--help"], capture_output=True, text=True).stdout
        )
        begin = time.monotonic()
        done = subprocess.run(
            [*line, *(("--json", str(place)) if takes else ())], stdout=subprocess.PIPE, text=True
        )
        told = json.loads(place.read_text()) if place.exists() else {}
    return {
        "command": " ".join(["python", f"bench/{bench.name}.py", *arguments]),
        "seconds": round(time.monotonic() - begin, 1),
        "status": done.returncode,
        "output": done.stdout,
        **told,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    known = [bench.name for bench in BENCHES if (HERE / f"{bench.name}.py").exists()]
    parser.add_argument("--only", help=f"some of {', '.join(known)}, separated by commas")
    parser.add_argument("--quick", action="store_true", help="our side alone, with the least work")
    parser.add_argument("--page", action="store_true", help="draw the page's charts, run nothing")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="a folder")
    options = parser.parse_args()
    page = page_tables(PAGE.read_text(encoding="utf-8"))
    if options.page:
        print("\n".join(draw(page, PICTURES, "figures-")))
        return 0
    names = options.only.split(",") if options.only else known
    if unknown := set(names) - set(known):
        parser.error(f"--only: expected some of {', '.join(known)}, got {', '.join(unknown)}")
    options.out.mkdir(parents=True, exist_ok=True)
    place = options.out / f"{datetime.now(UTC):%Y-%m-%d-%H%M%S}.json"
    report: dict[str, Any] = {"machine": machine(), "benches": {}}
    tables: dict[str, list[Rows]] = {}
    wrong: list[str] = []
    for bench in BENCHES:
        if bench.name not in names or (options.quick and bench.quick is None):
            continue
        print(f"== {bench.name}", flush=True)
        found = measure(bench, (bench.quick or ()) if options.quick else bench.arguments)
        print(found["output"], flush=True)
        report["benches"][bench.name] = found
        place.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
        if found["status"]:
            missed = bench.limits and found["status"] == 1
            wrong.append(f"{bench.name}: {'missed a limit' if missed else 'failed'}")
        rows = as_on_page(bench, found.get("rows", {}))
        if rows and bench.heading:
            tables.setdefault(bench.heading, []).append(rows)
            if not options.quick:
                for table in page.get(bench.heading, ()):
                    wrong += [f"{bench.heading}: {sentence}" for sentence in worse(rows, table)]
    draw(tables, options.out)
    print(f"figures and charts: {place}")
    for sentence in wrong:
        print(f"WORSE {sentence}")
    if not wrong:
        print(
            "nothing failed" if options.quick else "no figure is worse than docs/benchmarks.md says"
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
