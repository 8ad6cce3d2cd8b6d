"""What ``make near`` finds for a change."""

from __future__ import annotations

from pathlib import Path

import pytest

from near import near


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A checkout with a few tests."""
    for path, text in {
        "tests/_core/test_retry.py": "from rejoinder._core.retry import after",
        "tests/_core/test_retry_dates.py": "",
        "tests/_core/test_retrying.py": "",
        "tests/llm/test_llm.py": "from rejoinder._core import retry, meter",
        "tests/conftest.py": "",
        "tests/llm/models.py": "",
        "tests/llm/test_fallback.py": "from llm.models import Model",
        "tests/providers/acme/test_wire.py": "",
        "tests/providers/acme/conftest.py": "",
        "tests/contract/test_rows.py": "",
        "tests/outside/acme/test_server.py": "from rejoinder._core.retry import after",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (
            "src/rejoinder/_core/retry.py",
            ["_core/test_retry.py", "_core/test_retry_dates.py", "llm/test_llm.py"],
        ),
        ("src/rejoinder/llm/_fallback.py", ["llm/test_fallback.py"]),
        ("tests/_core/test_retrying.py", ["_core/test_retrying.py"]),
        ("tests/llm/models.py", ["llm/test_fallback.py"]),
        ("tests/providers/acme/conftest.py", ["providers/acme/test_wire.py"]),
        ("tests/conftest.py", ["house"]),
        ("docs/mcp.md", ["house/test_docs.py"]),
        ("Makefile", ["house"]),
        ("bench/context.py", ["house/test_benchmarks.py"]),
        ("examples/README.md", ["examples"]),
        ("tests/gone.py", []),
    ],
)
def test_what_is_near(house: Path, path: str, found: list[str]) -> None:
    assert sorted(near([path], house).files) == [f"tests/{name}" for name in found]


def test_a_provider_has_its_rows(house: Path) -> None:
    command = near(["src/rejoinder/providers/acme/wire.py"], house).command()
    assert command == [
        *("-m", "not slow", "-k", "not contract or acme"),
        *("tests/contract", "tests/providers/acme/test_wire.py"),
    ]


def test_what_all_share_has_all_rows(house: Path) -> None:
    command = near(["src/rejoinder/wire/sse.py", "src/rejoinder/providers/acme/a.py"], house)
    assert "-k" not in command.command()
    assert "tests/contract" in command.files
