"""The adapters inside the frameworks they are for, each in an environment of its own.

What runs there is `inside_NAME*.py`: tests of their own, collected by the pytest of that environment.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from outside.environment import python

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("environment", "prefix"),
    [
        ("livekit-1.2.17", "inside_livekit"),
        ("livekit", "inside_livekit"),
        ("pipecat", "inside_pipecat"),
        ("pydantic-ai", "inside_pydantic_ai"),
        ("openai-agents", "inside_openai_agents"),
    ],
)
def test_the_adapter_inside_its_framework(environment: str, prefix: str) -> None:
    variables = {name: value for name, value in os.environ.items() if "API_KEY" not in name}
    result = subprocess.run(
        [
            *(str(python(environment)), "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-c", str(HERE / "inside.ini"), "--rootdir", str(HERE)),
            *sorted(map(str, HERE.glob(f"{prefix}*.py"))),
        ],
        cwd=HERE,
        env={**variables, "PYTHONPATH": str(ROOT / "src"), "OPENAI_AGENTS_DISABLE_TRACING": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "skipped" not in result.stdout
