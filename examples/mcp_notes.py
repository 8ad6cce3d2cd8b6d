"""An MCP server with two tools, for mcp_agent.py. It keeps notes as long as it runs."""

from mcp.server import MCPServer

server = MCPServer("notes")
notes: list[str] = []


@server.tool()
def add_note(text: str) -> str:
    """Write down a note."""
    notes.append(text)
    return f"Noted: {text}"


@server.tool()
def list_notes() -> str:
    """Read all notes."""
    return "\n".join(notes) or "There are no notes."


if __name__ == "__main__":
    server.run("stdio")
