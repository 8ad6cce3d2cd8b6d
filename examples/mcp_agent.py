"""An agent with the tools of MCP servers, which it starts as child processes.

    pip install '.[local,mcp]'
    python examples/mcp_agent.py "Write a note that the milk is empty."
    python examples/mcp_agent.py --model openai/gpt-4.1 "Note that I need milk, then read all notes."
    python examples/mcp_agent.py --server "npx -y @modelcontextprotocol/server-filesystem ." "Which files are here?"

Without a key, a small model on this machine answers. It can call one tool; do not expect more.
"""

import argparse
import asyncio
import shlex
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from rejoinder import create, run_turn
from rejoinder.llm import mcp
from rejoinder.turn import Text, ToolFinished, ToolStarted

NOTES = (
    f"{shlex.quote(sys.executable)} {shlex.quote(str(Path(__file__).with_name('mcp_notes.py')))}"
)


async def main() -> None:
    parser = argparse.ArgumentParser(description="An agent with the tools of MCP servers.")
    parser.add_argument("question", nargs="?", default="Write a note that the milk is empty.")
    parser.add_argument("--model", default="local/qwen", help="provider/model")
    parser.add_argument(
        "--server", action="append", help="command of an MCP server; may be repeated"
    )
    options = parser.parse_args()

    async with AsyncExitStack() as stack:
        llm = await stack.enter_async_context(create(options.model))
        toolsets = []
        for number, line in enumerate(options.server or [NOTES]):
            command, *arguments = shlex.split(line)
            server = mcp.MCPServerStdio(command, arguments, startup_timeout=30)
            toolset = mcp.MCPToolset(id=f"server{number}", mcp_server=server)
            # A server that does not start raises an error here, before the first question. If it
            # dies later, its tools fail, the model receives the error, and the turn continues.
            toolsets.append(await stack.enter_async_context(toolset))

        # Any number of toolsets and functions may be mixed in `tools`.
        async with run_turn(llm, options.question, tools=toolsets) as turn:
            async for event in turn:
                match event:
                    case Text(text):
                        print(text, end="", flush=True)
                    case ToolStarted(call):
                        print(f"-> {call.name}({call.arguments})", file=sys.stderr)
                    case ToolFinished(call, output):
                        print(f"<- {output.output}", file=sys.stderr)
    print()


if __name__ == "__main__":
    asyncio.run(main())
