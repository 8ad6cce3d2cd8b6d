"""Our models inside other frameworks: what a silent provider costs the user, and what a chunk costs.

    python bench/integrations.py                     everything; makes the environments it needs
    python bench/integrations.py --only pipecat --what cost --rounds 5
    python bench/integrations.py --json figures.json

Each framework runs in an environment and a process of its own (`integrations_frameworks.py`), side
after side, round after round.

- silence: provider A opens a stream and sends no word, either nothing at all or keep-alives.
  Seconds until the user hears provider B, with a deadline of one second: through our adapter and a
  `FallbackAdapter`, and with what the framework has of its own
- cost: CPU microseconds of one chunk of text, medians of the rounds. *Floor* is the framework with
  chunks that are ready; *adapter, ready chunks* our adapter with such chunks; then the framework's
  plugin for OpenAI and our adapter with our own client, both with a server on the loopback interface
- ttft: milliseconds from the question to the first text, plugin and adapter: the median, the tenth
  percentile, which a busy machine disturbs least, and the CPU of a whole request

Ends with status 1 when a limit is missed (see `verdicts`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from environments import ROOT, Environment, python
from figures import Rows, add_json_option, write_rows
from providers import Server

HERE = Path(__file__).parent
NAMES = ("livekit-1.2.17", "livekit", "pipecat", "pydantic-ai", "openai-agents")
SILENT = ("stall_before_output", "keep_alives_for_ever")
DEADLINE = 1.0
SIDES = {"adapter": "rejoinder", "plugin": "its own"}


def ask(name: str, what: str, side: str, url: str, core: int | None) -> Any:
    command = [
        *(python(Environment(name, f"outside/{name}")), str(HERE / "integrations_frameworks.py")),
        *(name, what, side, url),
    ]
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    variables = {key: value for key, value in os.environ.items() if "API_KEY" not in key}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        env=variables
        | {
            "PYTHONPATH": str(ROOT / "src"),
            "PYTHONWARNINGS": "ignore",
            "NO_PROXY": "127.0.0.1",
            "OPENAI_AGENTS_DISABLE_TRACING": "1",
        },
    )
    if done.returncode:
        raise SystemExit(f"{name} {what} {side}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(names: list[str], what: list[str], rounds: int) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    core, other = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
    samples: dict[str, dict[str, list[Any]]] = {name: defaultdict(list) for name in names}
    server = Server(other)
    try:
        for name in names:
            if "silence" in what:
                for fault in SILENT:
                    for side in ("adapter", "plugin"):
                        print(f"{name}: {fault}, {side}", file=sys.stderr)
                        samples[name][f"{fault} {side}"] = ask(name, fault, side, "-", core)
        for number in range(rounds):
            for name in names:
                print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr)
                if "cost" in what:
                    for side in ("floor", "canned", "plugin", "adapter"):
                        found = ask(name, "cost", side, server.url, core)
                        samples[name][f"cost {side}"].append(found)
                if "ttft" in what:
                    for side in ("plugin", "adapter"):
                        found = ask(name, "ttft", side, server.url, core)
                        samples[name][f"ttft {side}"].append(found)
    finally:
        server.close()
    return samples


def heard(values: list[Any]) -> str:
    """How long the user waited: the first turn of the process, and the slowest of the others."""
    if len(values) == 1:
        (value,) = values
        if isinstance(value, str):
            return f"error: {value}"
        return "never" if math.isinf(value) else f"{value:.2f} s"
    return f"{values[0]:.3f} s, then {max(values[1:]):.3f}"


def verdicts(found: dict[str, list[Any]]) -> list[str]:
    """The limits that one framework's figures miss."""
    missed: list[str] = []
    for fault in SILENT:
        for value in found.get(f"{fault} adapter", [])[1:]:
            if not isinstance(value, float) or value > DEADLINE + 0.05:
                missed.append(f"{fault}: heard after {value} s, limit {DEADLINE + 0.05}")
    if "cost canned" in found:
        added = statistics.median(found["cost canned"]) - statistics.median(found["cost floor"])
        if added > 30:
            missed.append(f"the adapter adds {added:.1f} us a chunk, limit 30")
    if "ttft adapter" in found:
        ours, theirs = (
            statistics.median(sample["p10"] for sample in found[f"ttft {side}"])
            for side in ("adapter", "plugin")
        )
        if ours > theirs:
            missed.append(f"first text after {ours:.2f} ms, the plugin's after {theirs:.2f}")
    return missed


def rows_of(samples: dict[str, dict[str, list[Any]]]) -> Rows:
    """The figures by what was measured in which framework, ours beside its own."""
    rows: Rows = {}
    for name, found in samples.items():
        for fault in SILENT:
            for side, whose in SIDES.items():
                if values := found.get(f"{fault} {side}"):
                    slowest = max(
                        values[1:] or values, key=lambda v: v if isinstance(v, float) else math.inf
                    )
                    known = isinstance(slowest, float) and math.isfinite(slowest)
                    row = rows.setdefault(f"{name}, {fault}, s", {})
                    row[whose] = slowest if known else "never"
        for side, whose in {**SIDES, "floor": "floor", "canned": "ready chunks"}.items():
            if values := found.get(f"cost {side}"):
                rows.setdefault(f"{name}, a chunk, CPU us", {})[whose] = statistics.median(values)
        for key in ("p10", "p50", "cpu"):
            for side, whose in SIDES.items():
                if values := [sample[key] for sample in found.get(f"ttft {side}", ())]:
                    row = rows.setdefault(f"{name}, first text, {key}, ms", {})
                    row[whose] = statistics.median(values)
    return rows


def table(head: list[str], rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    print()


def middle(values: list[float]) -> str:
    return f"{statistics.median(values):.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default=",".join(NAMES), help="frameworks, separated by commas")
    parser.add_argument("--what", default="silence,cost,ttft")
    parser.add_argument("--rounds", type=int, default=3)
    add_json_option(parser)
    options = parser.parse_args()
    what = options.what.split(",")
    samples = measure(options.only.split(","), what, options.rounds)
    write_rows(options.json, rows_of(samples), samples=samples)
    if "silence" in what:
        print(f"Heard when provider A is silent; deadline {DEADLINE} s (first turn, then slowest)")
        columns = [f"{fault} {side}" for fault in SILENT for side in ("adapter", "plugin")]
        table(
            ["", "nothing: adapter", "alone", "keep-alives: adapter", "alone"],
            [[name, *(heard(found[key]) for key in columns)] for name, found in samples.items()],
        )
    if "cost" in what:
        print("CPU us of a chunk")
        sides = ("floor", "canned", "plugin", "adapter")
        rows = []
        for name, found in samples.items():
            added = [a - b for a, b in zip(found["cost canned"], found["cost floor"], strict=True)]
            rows.append([name, *(middle(found[f"cost {side}"]) for side in sides), middle(added)])
        table(["", "floor", "adapter, ready chunks", "plugin", "adapter", "added"], rows)
    if "ttft" in what:
        print("First text, ms")
        columns = [(side, key) for key in ("p50", "p10", "cpu") for side in ("plugin", "adapter")]
        table(
            ["", *(f"{key}: {side}" for side, key in columns)],
            [
                [
                    name,
                    *(
                        middle([sample[key] for sample in found[f"ttft {side}"]])
                        for side, key in columns
                    ),
                ]
                for name, found in samples.items()
            ],
        )
    status = 0
    for name, found in samples.items():
        for miss in verdicts(found):
            print(f"MISSED {name}: {miss}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
