"""The laboratory of ``tests/mcp``, whose folder cannot be imported: it is named like the SDK."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location(
    "mcp_laboratory", Path(__file__).parents[2] / "mcp" / "conftest.py"
)
assert _spec is not None
assert _spec.loader is not None
_laboratory = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_laboratory)

lab = _laboratory.lab
