"""Models as data, and how they are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from rejoinder.errors import ConfigurationError
from rejoinder.providers.local.models import DEFAULT_MODEL, MODELS, ModelFile, Packages, find_model


def test_the_data_is_sound() -> None:
    names = [name for model in MODELS for name in (model.name, *model.aliases)]
    assert len(names) == len(set(names))
    for model in MODELS:
        assert len(model.sha256) == 64
        assert int(model.sha256, 16)
        assert model.licence
        assert model.sources
        for source in model.sources:
            if isinstance(source, Packages):
                assert sum(part.size for part in source.parts) == model.size


@pytest.mark.parametrize("name", ["qwen", "QWEN", DEFAULT_MODEL, f" {DEFAULT_MODEL} ", "default"])
def test_a_name(name: str) -> None:
    found = find_model(name)
    assert isinstance(found, ModelFile)
    assert found.name == DEFAULT_MODEL


def test_a_path(tmp_path: Path) -> None:
    file = tmp_path / "my.gguf"
    file.write_bytes(b"GGUF")
    assert find_model(file) == file


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nosuch", "no such local model"),
        ("qwenn", "did you mean 'qwen'"),
        ("/no/such/file.gguf", "does not exist"),
        ("other.gguf", "does not exist"),
        ("/", "folder"),
        ("", "no such local model"),
    ],
)
def test_neither(name: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        find_model(name)
