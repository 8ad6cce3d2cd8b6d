"""Connects the MCP servers of the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from rejoinder._secrets import redacted_url
from rejoinder.cli.outcome import CommandError, Exit
from rejoinder.cli.render import one_line

if TYPE_CHECKING:
    from rejoinder.cli.screen import Screen
    from rejoinder.llm.mcp import MCPToolset

__all__ = ["connect_servers"]

_SERVER_START: Final = 60.0
"""Seconds: npx and uvx may have to fetch the server first."""


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
        tools: what the model may call already.
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
    screen.passing(f"connecting to {shown}")
    try:
        connection = mcp.server_from_spec(
            server,
            client_session_timeout_seconds=tool_timeout,
            startup_timeout=_SERVER_START,
        )
        toolset = mcp.MCPToolset(id=f"mcp{number}", mcp_server=connection)
        opened.append(connection)
        await toolset.setup()
        await _prefix(toolset, number, tools, screen)
    except Exception as error:
        raise CommandError(
            f"the MCP server {shown!r} does not start: {error}", Exit.SETUP
        ) from error
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
    told = server.server_info.name if server.server_info else ""
    word = re.sub(r"[^A-Za-z0-9]+", "_", told).strip("_")[-20:] or "mcp"
    server.tool_prefix = f"{word}{number + 1}_"
    await toolset.setup(reload=True)
    screen.note(
        f"{', '.join(names)}: there already; the tools of this server are named "
        f"{server.tool_prefix}..."
    )


def _shown(server: str) -> str:
    """A server as it was given, without what may be a key: arguments, user, password, query."""
    return redacted_url(server) if "://" in server else server.partition(" ")[0]
