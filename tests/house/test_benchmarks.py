"""The figures of the documentation: their charts, and the comparison with a new run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def benches() -> ModuleType:
    """``bench/all.py``, under a name that is no builtin."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("all_benches", ROOT / "bench" / "all.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_charts_show_the_tables_of_the_page(benches: ModuleType, tmp_path: Path) -> None:
    page = benches.page_tables(benches.PAGE.read_text())
    drawn = benches.draw(page, tmp_path, "figures-")
    shown = {path.name: path.read_text() for path in benches.PICTURES.glob("figures-*.svg")}
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == shown, (
        "run `python bench/all.py --page`"
    )
    assert {f"figures-{name}.svg" for name in drawn} == set(shown)


def test_every_row_that_is_compared_is_on_the_page(benches: ModuleType) -> None:
    page = benches.page_tables(benches.PAGE.read_text())
    for bench in benches.BENCHES:
        if bench.heading in page:
            rows = {label for table in page[bench.heading] for label in table}
            assert set(bench.rows.values()) <= rows, bench.name


def test_what_is_worse_than_the_page_is_told(benches: ModuleType) -> None:
    page = {"a": {"rejoinder": 4.0, "bare": 2.0}, "b": {"rejoinder": 10.0}, "c": {"rejoinder": 5.0}}
    slow_machine = {"a": {"rejoinder": 40.0, "bare": 20.0}}
    assert benches.worse(slow_machine, page) == [], "the ratio counts where there is one"
    assert benches.worse({"a": {"rejoinder": 4.0, "bare": 1.0}}, page) == [
        "a: 4 of bare, the page says 2"
    ]
    assert benches.worse({"b": {"rejoinder": 13.0}}, page) == ["b: 13, the page says 10"]
    assert benches.worse({"c": {"rejoinder": "for ever"}}, page) == ["c: for ever, the page says 5"]
    assert benches.worse({"b": {"rejoinder": 10.0}, "new": {"rejoinder": 1.0}}, page) == []


def test_tables_are_read_as_they_are_written(benches: ModuleType) -> None:
    text = "## One\n\n| | rejoinder | `x` |\n| --- | --- | --- |\n| row | 1,080 | 1/4 |\n| no | for ever | 507 ms |\n"
    assert benches.page_tables(text) == {
        "One": [
            {
                "row": {"rejoinder": 1080.0, "x": 0.25},
                "no": {"rejoinder": "for ever", "x": 507.0},
            }
        ]
    }


@pytest.mark.slow
def test_the_benchmarks_that_need_no_peer_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "all.py"), "--quick", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=115,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (place,) = tmp_path.glob("*.json")
    report = json.loads(place.read_text())
    assert {"date", "cpu", "versions", "commit"} <= report["machine"].keys()
    assert set(report["benches"]) == {"stream_overhead", "speech", "imports", "telemetry"}
    for found in report["benches"].values():
        values = [row["rejoinder"] for row in found["rows"].values()]
        assert values
        assert all(value > 0 for value in values)
