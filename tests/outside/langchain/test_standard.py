"""LangChain's standard tests for chat models, in an environment of their own.

Their package brings half a dozen plugins for pytest, which would cost every run of ours a second.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from outside.environment import python

# A `ChatRejoinder` takes no settings from the environment, and cannot be serialized: it holds a client.
# Its model is that of its `LLM`, not an option of a call; structured output is made by tools.
DOES_NOT_APPLY = {
    "TestStandard": ["test_init_from_env", "test_serdes"],
    "TestIntegration": [
        "test_invoke_with_model_override",
        "test_ainvoke_with_model_override",
        "test_stream_with_model_override",
        "test_astream_with_model_override",
        "test_json_mode",
        "test_stream_time",
    ],
}
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]


@pytest.mark.timeout(900)
def test_the_standard_tests_pass() -> None:
    command = [str(python("langchain")), "-m", "pytest", "-c", os.devnull, "--rootdir", str(HERE)]
    options = ["--noconftest", "--benchmark-disable", "-o", "asyncio_mode=auto"]
    for group, names in DOES_NOT_APPLY.items():
        for name in names:
            options += ["--deselect", f"standard.py::{group}::{name}"]
    result = subprocess.run(
        [*command, *options, "-p", "no:cacheprovider", str(HERE / "standard.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " skipped" not in result.stdout, result.stdout
