"""Models and tools from the arguments of the command line."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

from rejoinder._secrets import redacted_url
from rejoinder._sections import extended
from rejoinder.cli.kept import path_of
from rejoinder.cli.keys import advice_about, lent_keys
from rejoinder.cli.outcome import CommandError, Ended, Exit
from rejoinder.errors import ConfigurationError
from rejoinder.providers.asking.checks import check_base_url

if TYPE_CHECKING:
    from rejoinder.llm.llm import LLM
    from rejoinder.providers.local.fetch import Report
    from rejoinder.transport.http import HttpTransport

__all__ = ["Model", "find_tools", "is_local", "make_llm", "make_llms", "tool_choice_of"]

_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")  # options that all providers accept


@dataclass(frozen=True, slots=True)
class Model:
    """A model for a conversation.

    Attributes:
        llm: the model.
        name: its name on the command line.
        load: fetches and loads it, if it runs on this machine.
        base_url: URL of another server than the provider's, without credentials.
        fallbacks: the names of the models that replace it if it fails.
    """

    llm: LLM[Any]
    name: str
    load: Callable[[], Awaitable[None]] | None = None
    base_url: str | None = None
    fallbacks: Sequence[str] = ()

    def __str__(self) -> str:
        where = "" if self.base_url is None else f" at {self.base_url}"
        return ", then ".join([f"{self.name}{where}", *self.fallbacks])


def make_llms(name: str | None, fallbacks: Sequence[str], *, base_url: str | None, report: Report,
              max_tokens: int | None, context: int | None, temperature: float | None,
              transport: HttpTransport | None = None) -> Model:  # fmt: skip
    """The model called `name`, or a `FallbackAdapter` that continues with `fallbacks` if it fails.

    Raises:
        CommandError: there is no such model, or it cannot be made.
    """
    first = make_llm(
        name, base_url=base_url, report=report, max_tokens=max_tokens, context=context,
        temperature=temperature, transport=transport,
    )  # fmt: skip
    if not fallbacks:
        return first
    from rejoinder.llm.fallback_adapter import FallbackAdapter

    others = [
        make_llm(
            other, base_url=None, report=report,
            max_tokens=max_tokens if is_local(other) else None,
            context=context if is_local(other) else None,
            temperature=temperature, transport=None if is_local(other) else transport,
        )
        for other in fallbacks
    ]  # fmt: skip
    team = FallbackAdapter([first.llm, *(other.llm for other in others)])
    return replace(first, llm=team, fallbacks=[other.name for other in others])


def is_local(name: str | None) -> bool:
    """Whether a model of this name runs on this machine."""
    provider, slash, _ = (name or "").partition("/")
    return not slash or provider == "local" or _is_path(name or "")


def make_llm(name: str | None, *, base_url: str | None, report: Report, max_tokens: int | None,
             context: int | None, temperature: float | None,
             transport: HttpTransport | None = None) -> Model:  # fmt: skip
    """The model called `name`: a local one, a GGUF file, or ``provider/model``.

    Raises:
        CommandError: there is no such model, or it cannot be made.
    """
    if name is not None and not name.strip():
        raise CommandError("--model: the name is empty")
    if base_url is not None:
        try:
            check_base_url(base_url, "--base-url")
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
    provider, slash, rest = (name or "").partition("/")
    if slash and not rest.strip():
        raise CommandError(f"--model: expected the name of a model after the slash, got {name!r}")
    if provider == "local" and slash:
        name, slash = rest, ""
    if base_url is None and (not slash or _is_path(name or "")):
        if transport is not None:
            raise CommandError(
                "--record: a model on this machine sends nothing that could be recorded"
            )
        return _local(name, report, max_tokens, context, temperature)
    if max_tokens is not None or context is not None:
        raise CommandError("--max-tokens and --context are for local models")
    if base_url is not None and not slash:
        name = f"openai/{name}" if name else None  # the API that most servers imitate
    if name is None:
        raise CommandError("--base-url needs --model with the name the server knows")
    from rejoinder import catalog

    try:
        catalog.check_provider(name.partition("/")[0])
    except ConfigurationError as error:
        raise CommandError(f"no such model: {error}") from error
    options: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
    if transport is not None:
        options["transport"] = transport
    try:
        with lent_keys(name.partition("/")[0]):
            llm = catalog.create(name, base_url=base_url, **options)
    except (ImportError, ValueError, TypeError) as error:
        message = str(error).rstrip(".")
        advice = advice_about(name.partition("/")[0], message)
        raise CommandError(extended(message, advice), Exit.SETUP) from error
    return Model(llm, name, base_url=None if base_url is None else redacted_url(base_url))


def _is_path(name: str) -> bool:
    return (
        name.lower().endswith(".gguf")
        or name.startswith(("/", "./", "../", "~"))
        or os.path.exists(name)
    )


def _local(name: str | None, report: Report, max_tokens: int | None, context: int | None,
           temperature: float | None) -> Model:  # fmt: skip
    from rejoinder.providers.local.models import DEFAULT_MODEL, find_model
    from rejoinder.types import NOT_GIVEN

    try:
        find_model(name or DEFAULT_MODEL)
    except ConfigurationError as error:
        raise CommandError(f"{error}; for a provider's model write provider/model") from error
    from rejoinder.providers.local.llm import LLM

    try:
        llm = LLM(
            model=name or DEFAULT_MODEL,
            report=report,
            temperature=NOT_GIVEN if temperature is None else temperature,
            max_completion_tokens=NOT_GIVEN if max_tokens is None else max_tokens,
            context=8192 if context is None else context,
        )
    except ConfigurationError as error:
        raise CommandError(str(error), Exit.SETUP) from error
    return Model(llm, name or DEFAULT_MODEL, llm.load)


def tool_choice_of(text: str | None) -> Any:
    """The `tool_choice` of `LLM.chat`, from ``auto``, ``required``, ``none`` or the name of a
    tool."""
    if text is None or text in ("auto", "required", "none"):
        return text
    return {"type": "function", "function": {"name": text}}


def find_tools(specs: Sequence[str]) -> list[Any]:
    """The tools named by ``module:function`` or ``file.py:function``; ``demo`` are the demo tools.

    Raises:
        CommandError: the module or function does not exist, or it cannot be a tool.
    """
    tools: list[Any] = []
    for spec in specs:
        if spec == "demo":
            from rejoinder.cli.demo import DEMO_TOOLS

            tools += DEMO_TOOLS
            continue
        where, colon, name = spec.rpartition(":")
        if not colon or not where or not name:
            raise CommandError(f"--tool {spec!r}: expected module:function or file.py:function")
        module = _module(where, spec)
        found: Any = module
        for step in name.split("."):
            try:
                found = getattr(found, step)
            except AttributeError:
                close = get_close_matches(step, dir(found), 1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise CommandError(f"--tool {spec!r}: {where} has no {name!r}{hint}") from None
        tools += _as_tools(found, spec)
    return tools


def _module(where: str, spec: str) -> ModuleType:
    try:
        if where.endswith(".py"):
            return _from_file(path_of(where), spec)
        with contextlib.suppress(OSError):  # the working directory was deleted
            here = os.getcwd()
            if here not in sys.path:
                sys.path.insert(0, here)
        return importlib.import_module(where)
    except CommandError:
        raise
    except (KeyboardInterrupt, Ended):
        raise
    except BaseException as error:  # importing the user's module may raise anything
        raise CommandError(
            f"--tool {spec!r}: cannot import {where}: {type(error).__name__}: {error}"
        ) from error


def _from_file(path: Path, spec: str) -> ModuleType:
    if not path.is_file():
        raise CommandError(f"--tool {spec!r}: there is no file {path}")
    found = importlib.util.spec_from_file_location(path.stem, path)
    if found is None or found.loader is None:
        raise CommandError(f"--tool {spec!r}: {path} is not a Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules.setdefault(path.stem, module)
    found.loader.exec_module(module)
    return module


def _as_tools(found: Any, spec: str) -> list[Any]:
    from rejoinder.llm.tool_context import (
        ToolContext,
        Toolset,
        function_tool,
        get_function_info,
        is_function_tool,
        is_raw_function_tool,
    )

    if isinstance(found, (list, tuple)):
        entries = cast("list[Any]", found)
        return [tool for entry in entries for tool in _as_tools(entry, spec)]
    if isinstance(found, Toolset) or is_function_tool(found) or is_raw_function_tool(found):
        return [found]
    if callable(found) and not isinstance(found, type):
        # In a thread: a plain function may wait for something, and the conversation should not.
        decorate: Callable[[Any], Any] = function_tool(threaded=True)
        try:
            tool = decorate(found)
            ToolContext([tool]).parse_function_tools("openai")  # type hints are resolved now
        except Exception as error:
            raise CommandError(f"--tool {spec!r}: it cannot be a tool: {error}") from error
        name = get_function_info(tool).name
        if not _TOOL_NAME.fullmatch(name):
            raise CommandError(
                f"--tool {spec!r}: it cannot be a tool: expected a name of at most 64 letters, "
                f"digits, _ and -, got {name!r}"
            )
        return [tool]
    raise CommandError(
        f"--tool {spec!r}: expected a function or a toolset, got {type(found).__name__}"
    )
