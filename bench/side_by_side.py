"""Run the same cases in two Python environments, turn by turn, and print the ratios.

A bench file lists its cases and calls `main`. The file itself is what runs in both environments:
with ``--worker SIDE`` it answers requests line by line, otherwise it starts one worker for each
side and asks them alternately, so that a change in the machine's mood hits both alike.

Times are CPU time of the worker's process (all its threads), medians over the rounds.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from environments import LIVEKIT, ROOT, python
from figures import add_json_option, write_rows


@dataclass(frozen=True)
class Case:
    """One row of the table.

    `prepare` gets the side's ``llm`` package and returns the call that is timed; `each` divides the
    time when a call does its work several times.
    """

    name: str
    prepare: Callable[[Any], Callable[[], object]]
    limit: float
    """Largest ratio, ours to theirs, that is accepted."""
    each: int = 1
    peer: Callable[[Any], Callable[[], object]] | None = None
    """What the peer runs, where its way to the same result is another one."""
    peer_calls: int | None = None
    """For calls of seconds: how many of them make a round of the peer."""


def main(cases: list[Case]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", choices=["rejoinder", "livekit"], help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each case (7)")
    parser.add_argument("--only", default="", help="names of cases, separated by commas")
    parser.add_argument(
        "--peer-python", default="", help="a Python that already has " + LIVEKIT.name
    )
    add_json_option(parser)
    options = parser.parse_args()
    chosen = [case for case in cases if not options.only or case.name in options.only.split(",")]
    if options.worker:
        _work(options.worker, {case.name: case for case in cases})
        return
    rows = _compare(chosen, options.rounds, options.peer_python or python(LIVEKIT))
    _print_table(rows)
    sides = {row["case"]: {"ours": row["ours"], "theirs": row["theirs"]} for row in rows}
    write_rows(options.json, sides)
    sys.exit(any(row["ratio"] > row["limit"] for row in rows))


# --- the two sides ---


def _work(side: str, cases: dict[str, Case]) -> None:
    if side == "rejoinder":
        import rejoinder.llm.chat_context
        import rejoinder.llm.utils

        llm = rejoinder.llm
    else:
        from livekit.agents import llm
    calls: dict[str, Callable[[], object]] = {}
    counts: dict[str, int] = {}
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not end up between our lines
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        name = line.strip()
        case = cases[name]
        if name not in calls:
            prepare = case.peer if side == "livekit" and case.peer else case.prepare
            calls[name] = prepare(llm)
            counts[name] = (
                case.peer_calls
                if side == "livekit" and case.peer_calls
                else _calibrated(calls[name])
            )
        print(_timed(calls[name], counts[name]) / case.each, file=out, flush=True)


def _calibrated(call: Callable[[], object], least: float = 0.03) -> int:
    """How many calls make a round long enough for the clock."""
    call()
    count = 1
    while True:
        spent = _timed(call, count) * count
        if spent >= least or count >= 1_000_000:
            return count
        count = max(count * 2, int(count * least / max(spent, 1e-6)))


def _timed(call: Callable[[], object], count: int) -> float:
    # What lies in memory anyway shall not be searched again and again on the call's account; what
    # the call makes itself is.
    gc.collect()
    gc.freeze()
    start = time.process_time()
    for _ in range(count):
        call()
    return (time.process_time() - start) / count


class _Worker:
    def __init__(self, python: str, side: str) -> None:
        environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore"}
        if side == "rejoinder":
            environment["PYTHONPATH"] = str(ROOT / "src")
        self._process = subprocess.Popen(
            [python, sys.argv[0], "--worker", side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._read()

    def ask(self, name: str) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        return float(self._read())

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with {self._process.wait()}")
        return line

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _compare(cases: list[Case], rounds: int, peer: str) -> list[dict[str, Any]]:
    ours, theirs = _Worker(sys.executable, "rejoinder"), _Worker(peer, "livekit")
    rows: list[dict[str, Any]] = []
    try:
        for case in cases:
            mine: list[float] = []
            other: list[float] = []
            for _ in range(rounds):
                mine.append(ours.ask(case.name))
                other.append(theirs.ask(case.name))
            a, b = statistics.median(mine) * 1e6, statistics.median(other) * 1e6
            rows.append(
                {"case": case.name, "ours": a, "theirs": b, "ratio": a / b, "limit": case.limit}
            )
    finally:
        ours.close()
        theirs.close()
    return rows


def _print_table(rows: list[dict[str, Any]]) -> None:
    print(f"{'case':34} {'ours us':>11} {'theirs us':>12} {'ratio':>8} {'limit':>8}")
    for row in rows:
        mark = "" if row["ratio"] <= row["limit"] else "  MISSED"
        print(
            f"{row['case']:34} {row['ours']:11.2f} {row['theirs']:12.2f} "
            f"{row['ratio']:8.4f} {row['limit']:8.4f}{mark}"
        )
