"""The small real model, fetched once into the usual cache; tests that need it skip, saying so, where
it cannot be had."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rejoinder.providers.local.fetch import fetch
from rejoinder.providers.local.models import ModelError, find_model


@pytest.fixture(scope="session")
def smol() -> Path:
    """The path of the small model's file."""
    pytest.importorskip("xllamacpp", reason="the extra `local` is not installed")
    model = find_model("smol")
    assert not isinstance(model, Path)
    try:
        return asyncio.run(fetch(model))
    except ModelError as error:
        pytest.skip(f"the small model cannot be fetched here: {error}")
