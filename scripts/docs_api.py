"""Write a Markdown page for each public module, from its docstrings.

    python scripts/docs_api.py FOLDER MODULE ...

Reads the source and imports nothing. Runs in the environment of the site (griffe).
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

SOURCE = Path(__file__).resolve().parent.parent / "src"
# A star, a slash and the first parameter of a method are written by hand.
POSITIONAL = griffe.ParameterKind.positional_only
NAMED = griffe.ParameterKind.keyword_only
STARS = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}
LIMIT = 88
SECTIONS = {"Args:", "Raises:", "Returns:", "Yields:"}


def parameters(function: griffe.Function, bound: bool) -> Iterator[str]:
    starred = False
    before = None
    for index, parameter in enumerate(function.parameters):
        if (bound and index == 0) or (parameter.name.startswith("_") and parameter.default):
            continue  # `self`; what is not for callers
        if before is POSITIONAL and parameter.kind is not POSITIONAL:
            yield "/"
        if parameter.kind in STARS:
            starred = True
        elif parameter.kind is NAMED and not starred:
            starred = True
            yield "*"
        text = STARS.get(parameter.kind, "") + parameter.name
        if parameter.annotation is not None:
            text += f": {parameter.annotation}"
        if parameter.default is not None and parameter.kind not in STARS:
            text += f" = {parameter.default}"
        yield text
        before = parameter.kind
    if before is POSITIONAL:
        yield "/"


def signature(name: str, function: griffe.Function, bound: bool, returns: bool = True) -> str:
    given = list(parameters(function, bound))
    tail = f" -> {function.returns}" if returns and function.returns is not None else ""
    line = f"{name}({', '.join(given)}){tail}"
    if len(line) > LIMIT:
        line = f"{name}(\n" + "".join(f"    {text},\n" for text in given) + f"){tail}"
    if "async" in function.labels:
        line = f"async {line}"
    return line


def linked(text: str) -> str:
    """A docstring as Markdown: its code in single backticks, its pages as links."""
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    text = re.sub(r"(?m)^::\n", "", text)
    text = re.sub(r"(?m)::$", ":", text)  # a block of code follows
    text = re.sub(r"`docs/([\w/-]+\.md)`", r"[\1](../\1)", text)
    return re.sub(r"(?<![\w`/])docs/([\w/-]+\.md)", r"[\1](../\1)", text)


def docstring(thing: Any) -> griffe.Docstring:
    """The docstring of a thing, where its first line may be the title of a section."""
    text: str = thing.docstring.value
    title, _, body = text.partition("\n")
    if title in SECTIONS:
        text = f"\n{title}\n{textwrap.indent(body, '    ')}"
    return griffe.Docstring(text, parent=thing)


def documentation(thing: Any) -> Iterator[str]:
    """The docstring of a thing, section by section."""
    if thing.docstring is None:
        return
    for section in docstring(thing).parse("google", warnings=False):
        kind = section.kind.value
        if kind == "attributes":
            continue  # they stand beside the fields
        if kind == "text":
            yield linked(section.value)
        elif kind == "examples":
            for what, text in section.value:
                yield text if what.value == "text" else f"```pycon\n{text}\n```"
        elif kind == "admonition":
            yield f"**{section.title}** {linked(section.value.contents)}"
        elif isinstance(section.value, list):
            title = {"parameters": "Arguments", "other parameters": "Other arguments"}.get(
                kind, kind
            )
            lines = [f"**{title.capitalize()}**", ""]
            for entry in section.value:
                name = getattr(entry, "name", "") or ""
                if not name and entry.annotation is not None:
                    name = str(entry.annotation)
                text = linked(" ".join(entry.description.split()))
                lines.append(f"- `{name}`: {text}" if name else f"- {text}")
            yield "\n".join(lines)


def code(text: str) -> str:
    return f"```python {{ .api }}\n{text}\n```"


def shown(name: str, member: Any) -> bool:
    if name.startswith("_") or member.is_alias:
        return False
    if member.is_attribute and member.docstring is None:
        return member.annotation is not None and name != "model_config"
    return True


def attribute(name: str, thing: griffe.Attribute, prefix: str = "") -> str:
    text = prefix + name
    if thing.annotation is not None:
        text += f": {thing.annotation}"
    value = None if thing.value is None else str(thing.value)
    if value is not None and len(value) < LIMIT and not value.startswith("Field("):
        text += f" = {value}"
    return text


def described(cls: griffe.Class) -> dict[str, str]:
    """What the docstring of a class tells about its fields."""
    sections = cls.docstring.parse("google", warnings=False) if cls.docstring else []
    return {
        field.name: linked(field.description)
        for section in sections
        if section.kind.value == "attributes"
        for field in section.value
    }


def members(cls: griffe.Class, depth: str) -> Iterator[str]:
    told = described(cls)
    fields = [(n, m) for n, m in cls.members.items() if m.is_attribute and shown(n, m)]
    if fields:
        lines: list[str] = []
        for name, field in fields:
            about = " ".join((told.get(name) or " ".join(documentation(field))).split())
            prefix = "property " if "property" in field.labels else ""
            lines.append(f"- `{attribute(name, field, prefix)}`" + (f": {about}" if about else ""))
        yield "\n".join(lines)
    for name, method in cls.members.items():
        if method.is_function and shown(name, method):
            yield f"{depth} `{name}`"
            bound = "staticmethod" not in method.labels
            yield code(signature(f"{cls.name}.{name}", method, bound))
            yield from documentation(method)


def entry(name: str, thing: Any) -> Iterator[str]:
    yield f"## `{name}`"
    if thing.is_class:
        init = thing.members.get("__init__")
        bases = [str(base) for base in thing.bases]
        if init is not None and init.is_function:
            yield code("class " + signature(name, init, bound=True, returns=False))
        else:
            yield code(f"class {name}" + (f"({', '.join(bases)})" if bases else ""))
        yield from documentation(thing)
        if init is not None and not init.is_alias:
            yield from documentation(init)
        yield from members(thing, "###")
    elif thing.is_function:
        overloads = thing.overloads or [thing]
        yield code("\n".join(signature(name, one, bound=False) for one in overloads))
        yield from documentation(thing)
    else:
        yield code(attribute(name, thing))
        yield from documentation(thing)


def page(module: Any) -> str:
    parts = [f"# `{module.path}`", *documentation(module)]
    for name in sorted(module.exports or (), key=str.lower):
        thing = module[str(name)]
        thing = thing.final_target if thing.is_alias else thing
        if not thing.is_module:
            parts += entry(str(name), thing)
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def main(folder: Path, modules: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    loader = griffe.GriffeLoader(search_paths=[SOURCE], docstring_parser=griffe.Parser.google)
    loader.load("rejoinder", submodules=True)
    loader.resolve_aliases(external=False)
    for name in modules:
        module = loader.modules_collection[name]
        if not module.exports:
            sys.exit(f"{name} has no __all__")
        (folder / f"{name}.md").write_text(page(module), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
