"""Runs the Python examples of one page, as a reader would who copies them one after the other.

The providers they name are played by a loopback server; nothing else can be reached. A test that
fails prints the example and the error.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

# An example that cannot run here is preceded by <!-- not run: reason -->.
BLOCK = re.compile(
    r"^(?P<skip><!-- not run: (?P<why>[^\n]+) -->\n+)?```python\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


def examples(page: str) -> list[tuple[int, str, str | None]]:
    """(line, code, why it is not run)"""
    return [
        (page[: match.start("code")].count("\n"), match["code"], match["why"])
        for match in BLOCK.finditer(page)
    ]


def serve() -> None:
    """Play the providers in a thread, and point their clients to it."""
    from rejoinder.testing import FaultServer

    ready = threading.Event()
    urls: list[str] = []

    async def forever() -> None:
        async with FaultServer() as server:
            urls.append(server.url)
            ready.set()
            await asyncio.Event().wait()

    threading.Thread(target=asyncio.run, args=(forever(),), daemon=True).start()
    ready.wait(10)
    (url,) = urls
    os.environ.update(
        {
            "OPENAI_API_KEY": "example",
            "OPENAI_BASE_URL": f"{url}/v1",
            "ANTHROPIC_API_KEY": "example",
            "ANTHROPIC_BASE_URL": url,
            "GOOGLE_API_KEY": "example",
            "MISTRAL_API_KEY": "example",
            "AWS_ACCESS_KEY_ID": "example",
            "AWS_SECRET_ACCESS_KEY": "example",
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": url,
            "LIVEKIT_API_KEY": "example",
            "LIVEKIT_API_SECRET": "example" * 5,
            "LIVEKIT_INFERENCE_URL": f"{url}/v1",
            "EXAMPLE_URL": url,
        }
    )


def main(path: str) -> int:
    from rejoinder.testing import forbid_network

    serve()
    names: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    with forbid_network():
        for line, code, why in examples(Path(path).read_text(encoding="utf-8")):
            if why is not None:
                ast.parse(code)
                continue
            count += 1
            try:
                flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
                compiled = compile("\n" * line + code, path, "exec", flags=flags)
                if compiled.co_flags & inspect.CO_COROUTINE:
                    asyncio.run(eval(compiled, names))
                else:
                    exec(compiled, names)
            except BaseException:
                print(f"{path}, line {line + 1}:\n\n{code}", file=sys.stderr)
                traceback.print_exc()
                return 1
    print(f"{count} examples ran")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
