"""`rejoinder migrate`: imports as real programs write them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from rejoinder.cli.migrate import migrate

WHOLE = [
    ("from livekit.agents.llm import LLMStream\n", "from rejoinder.llm import LLMStream\n"),
    (
        "from livekit.agents.llm import ChatChunk, ChoiceDelta, ToolChoice\n",
        "from rejoinder.llm import ChatChunk, ChoiceDelta, ToolChoice\n",
    ),
    (
        "from livekit.agents.llm.chat_context import ChatContext\n",
        "from rejoinder.llm.chat_context import ChatContext\n",
    ),
    (
        "from livekit.agents.llm.tool_context import StopResponse as Stop\n",
        "from rejoinder.llm.tool_context import StopResponse as Stop\n",
    ),
    (
        "from livekit.agents._exceptions import APIStatusError\n",
        "from rejoinder.errors import APIStatusError\n",
    ),
    (
        (
            "from livekit.agents.types import (\n"
            "    DEFAULT_API_CONNECT_OPTIONS,\n"
            "    NOT_GIVEN,  # the sentinel\n"
            "    # both are types\n"
            "    APIConnectOptions,\n"
            "    NotGivenOr,\n"
            ")  # noqa: I001\n"
        ),
        (
            "from rejoinder.types import (\n"
            "    DEFAULT_API_CONNECT_OPTIONS,\n"
            "    NOT_GIVEN,  # the sentinel\n"
            "    # both are types\n"
            "    APIConnectOptions,\n"
            "    NotGivenOr,\n"
            ")  # noqa: I001\n"
        ),
    ),
    (
        "from livekit.agents import RunContext, function_tool, llm, mcp, metrics, inference\n",
        (
            "from rejoinder import RunContext, function_tool, llm, metrics\n"
            "from rejoinder.llm import mcp\n"
            "from rejoinder.providers import inference\n"
        ),
    ),
    (
        "from livekit.plugins import openai as lk_openai, anthropic\nx = lk_openai.LLM(model='x')\n",
        (
            "from rejoinder.providers import openai as lk_openai, anthropic\n"
            "x = lk_openai.LLM(model='x')\n"
        ),
    ),
    ("from livekit.plugins.openai import LLM\n", "from rejoinder.providers.openai import LLM\n"),
    (
        "import livekit.agents.llm as lk\nlk.ChatContext\n",
        "import rejoinder.llm as lk\nlk.ChatContext\n",
    ),
    (
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
            "    from livekit.agents import ChatContext, mcp  # for types\n"
        ),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
            "    from rejoinder import ChatContext\n    from rejoinder.llm import mcp  # for types\n"
        ),
    ),
    (
        "if True: from livekit.agents import llm, mcp\n",
        "if True: from rejoinder import llm; from rejoinder.llm import mcp\n",
    ),
    (
        'é = "ü"; from livekit.agents import llm\r\nx = 1\r\n',
        'é = "ü"; from rejoinder import llm\r\nx = 1\r\n',
    ),
    (
        "from livekit import rtc\nimport livekit.api\n",
        "from livekit import rtc\nimport livekit.api\n",
    ),
]


@pytest.mark.parametrize(("before", "after"), WHOLE)
def test_imports_become_ours(before: str, after: str) -> None:
    result = migrate(before)
    assert (result.text, result.stays) == (after, [])
    ast.parse(result.text)
    assert migrate(result.text).text == after


@pytest.mark.parametrize(("before", "_after"), WHOLE)
def test_the_new_names_are_there(before: str, _after: str) -> None:
    tree = ast.parse(migrate(before).text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rejoinder"):
            exec(ast.unparse(node), {})


@pytest.mark.parametrize(
    ("before", "after", "stays"),
    [
        (
            "from livekit.agents import Agent, AgentSession, ChatContext, cli\n",
            "from livekit.agents import Agent, AgentSession, cli\nfrom rejoinder import ChatContext\n",
            [(1, f"livekit.agents.{name}") for name in ("Agent", "AgentSession", "cli")],
        ),
        (
            "from livekit.plugins import openai, silero\nopenai.LLM()\nopenai.STT()\n",
            "from livekit.plugins import openai, silero\nopenai.LLM()\nopenai.STT()\n",
            [(1, "livekit.plugins.silero"), (3, "livekit.plugins.openai.STT")],
        ),
        (
            "from livekit.agents import llm\n\n\nclass Old(llm.FunctionContext): ...\n",
            "from livekit.agents import llm\n\n\nclass Old(llm.FunctionContext): ...\n",
            [(1, "livekit.agents.llm"), (4, "livekit.agents.llm.FunctionContext")],
        ),
        (
            "from livekit.agents.voice.generation import update_instructions\n",
            "from livekit.agents.voice.generation import update_instructions\n",
            [(1, "livekit.agents.voice.generation.update_instructions")],
        ),
        ("import livekit.agents\n", "import livekit.agents\n", [(1, "livekit.agents")]),
        (
            "from livekit.agents.cli import run_app\n",
            "from livekit.agents.cli import run_app\n",
            [(1, "livekit.agents.cli.run_app")],
        ),
        (
            "from livekit import agents, rtc\n",
            "from livekit import agents, rtc\n",
            [(1, "livekit.agents")],
        ),
    ],
)
def test_what_has_no_counterpart_stays(
    before: str, after: str, stays: list[tuple[int, str]]
) -> None:
    result = migrate(before)
    assert result.text == after
    assert set(stays) <= set(result.stays)


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rejoinder", "migrate", *words], capture_output=True, text=True
    )


def test_the_command_shows_a_diff_and_writes_only_when_told(tmp_path: Path) -> None:
    file = tmp_path / "tools.py"
    file.write_bytes(
        "# -*- coding: latin-1 -*-\r\nfrom livekit.agents import llm  # ü\r\n".encode("latin-1")
    )
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "other.py").write_text("from livekit.agents import AgentSession\n")
    before = file.read_bytes()

    done = command(str(tmp_path))
    assert done.returncode == 0
    assert "-from livekit.agents import llm" in done.stdout
    assert "+from rejoinder import llm" in done.stdout
    assert file.read_bytes() == before

    assert command(str(tmp_path), "--write").returncode == 0
    assert file.read_bytes() == before.replace(b"livekit.agents", b"rejoinder")
    assert command(str(tmp_path)).stdout == ""


def test_a_program_with_agent_sessions_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("from livekit.agents import AgentSession\n")
    tools = tmp_path / "tools.py"
    tools.write_text("from livekit.agents import function_tool\n")

    done = command(str(tmp_path), "--write")
    assert (done.returncode, done.stdout) == (0, "")
    assert "main.py:1: livekit.agents.AgentSession" in done.stderr
    assert "rejoinder.integrations.livekit" in done.stderr
    assert tools.read_text() == "from livekit.agents import function_tool\n"

    command(str(tmp_path), "--write", "--anyway")
    assert tools.read_text() == "from rejoinder import function_tool\n"


def test_files_that_are_no_python_and_paths_that_do_not_exist(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("from livekit.agents import (\n")
    (tmp_path / "binary.py").write_bytes(b"x = 1\0\n")
    (tmp_path / "coded.py").write_bytes(b"# coding: no-such-code\nx = 1\n")
    (tmp_path / "bytes.py").write_bytes(b"x = '\xff'\n")
    (tmp_path / "deep.py").write_text("-" * 200_000 + "1")
    (tmp_path / "long.py").write_text("x = " + "+".join(["1"] * 100_000))
    (tmp_path / "star.py").write_text("from livekit.agents.llm import *\n")
    done = command(str(tmp_path), "--anyway")
    assert (done.returncode, done.stdout) == (0, "")
    for name in ("broken", "binary", "coded", "bytes", "deep", "long"):
        assert f"{name}.py was skipped" in done.stderr
    assert "star.py:1: livekit.agents.llm.*" in done.stderr
    done = command(str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "does not exist" in done.stderr
