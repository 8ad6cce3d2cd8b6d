"""Attachments of a question: pictures, files, a schema for the answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from rejoinder.cli.kept import path_of
from rejoinder.cli.outcome import CommandError
from rejoinder.errors import ConfigurationError

if TYPE_CHECKING:
    from rejoinder.llm.chat_context import ImageContent

__all__ = ["AnswerSchema", "attached_files", "pictures", "read_schema", "read_text"]

_LARGEST: Final = 32 << 20
"""Maximum bytes of one file."""


def _read(path: str, option: str) -> bytes:
    if not path.strip():
        raise CommandError(f"{option}: expected the name of a file, got an empty one")
    try:
        with path_of(path).open("rb") as file:
            data = file.read(_LARGEST + 1)  # devices and pipes do not have a known size
    except OSError as error:
        raise CommandError(f"{option}: {path}: {error.strerror or error}") from error
    if len(data) > _LARGEST:
        raise CommandError(f"{option}: {path} is larger than {_LARGEST >> 20} MB")
    return data


def read_text(path: str, option: str) -> str:
    """The text of a file.

    Raises:
        CommandError: it cannot be read, or is not UTF-8.
    """
    try:
        return _read(path, option).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CommandError(
            f"{option}: {path} is not UTF-8 text (byte 0x{error.object[error.start]:02x} at position "
            f"{error.start})"
        ) from error


def pictures(paths: Sequence[str]) -> list[ImageContent]:
    """The pictures of ``--image``.

    Raises:
        CommandError: one cannot be read, or is not a picture.
    """
    return [_picture(_read(path, "--image"), path, "--image") for path in paths]


def _picture(data: bytes, path: str, option: str) -> ImageContent:
    from rejoinder.llm.chat_context import ImageContent

    try:
        return ImageContent.from_bytes(data)
    except ValueError as error:
        got = f"a file that begins with {data[:12]!r}" if data else "an empty file"
        raise CommandError(
            f"{option}: {path}: expected a JPEG, PNG, GIF or WebP, got {got}; --file sends text and "
            "PDF"
        ) from error


def attached_files(paths: Sequence[str]) -> tuple[str, list[ImageContent]]:
    """The files of ``--file``: the texts, each with its name, and the PDFs.

    Raises:
        CommandError: one cannot be read, or is neither UTF-8 text nor a PDF.
    """
    texts: list[str] = []
    documents: list[ImageContent] = []
    for path in paths:
        data = _read(path, "--file")
        if data.startswith(b"%PDF"):
            documents.append(_picture(data, path, "--file"))
            continue
        text = read_text(path, "--file")
        texts.append(f"{Path(path).name}:\n```\n{text.rstrip()}\n```")
    return "\n\n".join(texts), documents


@dataclass(frozen=True, slots=True)
class AnswerSchema:
    """The JSON schema that answers have to fit.

    Attributes:
        data: the schema.
        option: the option as the user wrote it, without a schema that was written inline.
    """

    data: dict[str, Any]
    option: str


def read_schema(given: str) -> AnswerSchema:
    """The JSON schema of ``--schema``: JSON, or a file that holds it.

    Raises:
        CommandError: it is neither, or not a JSON schema.
    """
    from rejoinder._core.output import output_type

    inline = given.lstrip().startswith("{")
    option = "--schema" if inline else f"--schema {given}"
    text = given if inline else read_text(given, "--schema")
    try:
        schema: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandError(
            f"{option}: expected JSON, got a text that is not JSON: {error}"
        ) from error
    expected = f'{option}: expected a JSON schema, such as {{"type": "object", ...}}'
    if not isinstance(schema, dict):
        raise CommandError(expected)
    try:
        output_type(cast("object", schema))
    except ConfigurationError as error:
        raise CommandError(expected) from error
    return AnswerSchema(cast("dict[str, Any]", schema), option)
