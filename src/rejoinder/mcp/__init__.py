"""The supervisor over the official `mcp` SDK: connections that cannot hang a call or leak a child.

Only this package imports `mcp` and its dependencies (anyio, the SDK's HTTP client), and not at once: the
SDK takes about a second to import, so it is loaded in a thread when the first server connects. The public
names are in `rejoinder.llm.mcp`.
"""
