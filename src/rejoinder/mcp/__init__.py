"""The supervisor over the official `mcp` SDK: connections that cannot hang a call or leak a child.

This room is the only importer of `mcp` and of what comes with it (anyio, the SDK's HTTP client).
Importing the room imports none of them: the SDK takes about a second to import, so it is loaded
in a thread when the first server is connected. Users look in `rejoinder.llm.mcp`.
"""
