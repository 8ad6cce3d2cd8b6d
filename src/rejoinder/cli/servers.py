"""Connects the MCP servers of the command line."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rejoinder._secrets import redacted_url
from rejoinder.cli.outcome import CommandError, Exit
from rejoinder.cli.render import one_line
from rejoinder.errors import APIConnectionError, APIError

if TYPE_CHECKING:
    from rejoinder.cli.screen import Screen
    from rejoinder.llm.mcp import MCPToolset

__all__ = ["connect_servers"]

_SERVER_START: Final = 60.0
"""Seconds: npx and uvx may have to fetch the server first."""
_NUMBER: Final = re.compile(r"\[Errno -?\d+\] ")
_MAKERS: Final[Mapping[str, str]] = {
    "bunx": "Bun (https://bun.sh)",
    "docker": "Docker (https://docs.docker.com/get-docker)",
    "node": "Node.js (https://nodejs.org)",
    "npx": "Node.js (https://nodejs.org)",
    "uv": "uv (https://docs.astral.sh/uv)",
    "uvx": "uv (https://docs.astral.sh/uv)",
}
"""How to install the programs that start most servers."""


async def connect_servers(
    servers: Sequence[str],
    tools: Sequence[Any],
    *,
    tool_timeout: float,
    screen: Screen,
    opened: list[Any],
) -> list[Any]:
    """`tools`, followed by those of each server.

    Args:
        servers: URLs of servers, or commands that start them.
        tools: the tools that the model may already call.
        tool_timeout: seconds a tool may run.
        screen: shows the progress.
        opened: gets each connection, to be closed by the caller.

    Raises:
        CommandError: a server does not start, or the extra is missing.
    """
    found = list(tools)
    for number, server in enumerate(servers):
        found.append(await _connect(server, number, found, tool_timeout, screen, opened))
    return found


async def _connect(
    server: str,
    number: int,
    tools: Sequence[Any],
    tool_timeout: float,
    screen: Screen,
    opened: list[Any],
) -> Any:
    try:
        from rejoinder.llm import mcp
    except ImportError as error:
        raise CommandError(str(error), Exit.SETUP) from error
    shown = one_line(_shown(server), 80)
    label = ""
    screen.passing(f"connecting to {shown}")
    try:
        connection = mcp.server_from_spec(
            server,
            client_session_timeout_seconds=tool_timeout,
            startup_timeout=_SERVER_START,
        )
        label = repr(connection)
        toolset = mcp.MCPToolset(id=f"mcp{number}", mcp_server=connection)
        opened.append(connection)
        await toolset.setup()
        await _prefix(toolset, number, tools, screen)
    except Exception as error:
        reason = error.message if isinstance(error, APIError) else str(error)
        reason = _NUMBER.sub("", reason.removeprefix(f"{label}: "))
        if "://" in shown:
            why = f"cannot be reached: {_why_unreachable(error, reason)}"
        else:
            why = f"does not start: {_why_not_started(error, reason)}"
        raise CommandError(f"the MCP server {shown!r} {why}", Exit.SETUP) from error
    screen.clear()
    return toolset


async def _prefix(toolset: MCPToolset, number: int, tools: Sequence[Any], screen: Screen) -> None:
    """Give this server's tools a prefix if one has the name of an existing tool."""
    from rejoinder.llm.mcp import name_collisions
    from rejoinder.llm.tool_context import ToolContext

    names = name_collisions([*ToolContext(list(tools)).function_tools.values()], toolset)
    if not names:
        return
    server = toolset.mcp_server
    given_name = server.server_info.name if server.server_info else ""
    word = re.sub(r"[^A-Za-z0-9]+", "_", given_name).strip("_")[-20:] or "mcp"
    server.tool_prefix = f"{word}{number + 1}_"
    await toolset.setup(reload=True)
    screen.note(
        f"{', '.join(names)}: there already; the tools of this server are named "
        f"{server.tool_prefix}..."
    )


def _why_unreachable(error: Exception, reason: str) -> str:
    """`reason`, and the remedy."""
    if isinstance(error, APIConnectionError):
        return f"{reason[:1].lower()}{reason[1:]}; check the address, and that the server runs"
    return reason


def _why_not_started(error: Exception, reason: str) -> str:
    """Why a program does not start, and the remedy."""
    cause = error.__cause__
    if not isinstance(cause, OSError):
        hint = "; run the command in a shell to see more"
        return f"{reason}{hint}" if isinstance(error, APIConnectionError) else reason
    program = str(cause.filename)
    if cause.errno == errno.ENOEXEC:
        return (
            "this file is not a program; a script needs a first line such as #!/usr/bin/env python3"
        )
    if cause.errno == errno.EACCES:
        return (
            "you may not run this file; name a file that is executable (chmod +x), "
            "or the interpreter before it"
        )
    if cause.errno != errno.ENOENT:
        return cause.strerror or reason
    if shutil.which(program) is not None:
        return "the interpreter in the first line of this script was not found; correct the line"
    maker = _MAKERS.get(Path(program).name)
    remedy = f"install {maker}" if maker else "install it"
    return f"the program was not found; {remedy}, or write its full path"


def _shown(server: str) -> str:
    """The given server, without parts that may hold a key: arguments, user, password, query."""
    return redacted_url(server) if "://" in server else server.partition(" ")[0]
