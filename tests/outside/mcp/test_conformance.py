"""The conformance suite of the Model Context Protocol, run against our client in both eras.

Left out are its OAuth scenarios, since our servers take tokens and do not fetch them, and its
extensions, which no revision of the protocol requires.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from outside.environment import node

pytestmark = pytest.mark.timeout(600)

CLIENT = Path(__file__).with_name("conformance_client.py")
OLD, NEW = "2025-11-25", "2026-07-28"
SCENARIOS = {
    "initialize": [OLD],
    "tools_call": [OLD, NEW],
    "elicitation-sep1034-client-defaults": [OLD],
    "sse-retry": [OLD],
    "request-metadata": [NEW],
    "sep-2322-client-request-state": [NEW],
    "http-standard-headers": [NEW],
    "http-custom-headers": [NEW],
    "http-invalid-tool-headers": [NEW],
    "json-schema-ref-no-deref": [NEW],
    "json-schema-2020-12-preservation": [OLD, NEW],
}


@pytest.fixture(scope="session")
def suite() -> list[str]:
    return node("mcp-conformance", "@modelcontextprotocol/conformance/dist/index.js")


def test_no_scenario_is_missing(suite: list[str]) -> None:
    listed = subprocess.run([*suite, "list"], capture_output=True, text=True, check=True).stdout
    listed = listed.partition("Client scenarios")[2].partition("Authorization server")[0]
    found = dict(re.findall(r"^ +- (\S+) \[(.*)\]$", listed, re.MULTILINE))
    ours = {
        name: [version for version in versions.split(",") if version in {OLD, NEW}]
        for name, versions in found.items()
        if not name.startswith("auth/") and versions != "extension"
    }
    assert ours == SCENARIOS


@pytest.mark.parametrize(
    ("scenario", "version"),
    [(scenario, version) for scenario, versions in SCENARIOS.items() for version in versions],
)
def test_conformance(scenario: str, version: str, suite: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *suite,
            "client",
            *("--command", shlex.join([sys.executable, str(CLIENT)])),
            *("--scenario", scenario),
            *("--spec-version", version),
            *("--output-dir", str(tmp_path)),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert re.search(r"Passed: ([1-9]\d*)/\1, 0 failed, 0 warnings", told), told
