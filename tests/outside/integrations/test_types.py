"""The adapters fit the types of the frameworks they are for: pyright, strict, beside each of them."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from outside.environment import python

ROOT = Path(__file__).parents[3]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("environment", "adapter"),
    [
        ("livekit-1.2.17", "livekit"),
        ("livekit", "livekit"),
        ("pipecat", "pipecat.py"),
        ("pydantic-ai", "pydantic_ai.py"),
        ("openai-agents", "openai_agents.py"),
    ],
)
def test_the_adapter_fits_the_types_of_its_framework(
    environment: str, adapter: str, tmp_path: Path
) -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        settings: dict[str, Any] = tomllib.load(file)["tool"]["pyright"]
    for name in ("include", "ignore", "venvPath", "venv"):
        settings.pop(name)
    (tmp_path / "src").symlink_to(ROOT / "src")  # pyright includes nothing outside its project
    settings["include"] = [f"src/rejoinder/integrations/{adapter}"]
    settings["extraPaths"] = ["src"]
    project = tmp_path / "pyrightconfig.json"
    project.write_text(json.dumps(settings), "utf-8")
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pyright", "--outputjson", "--project", str(project)),
            *("--pythonpath", str(python(environment))),
        ],
        capture_output=True,
        text=True,
        timeout=500,
    )
    report = json.loads(result.stdout)
    found = [
        f"{entry['file']}:{entry['range']['start']['line'] + 1}: {entry['message']}"
        for entry in report["generalDiagnostics"]
    ]
    assert not found, "\n".join(found)
    assert report["summary"]["filesAnalyzed"] > 0
