"""Runs the Python examples of one page, each alone, as a file of its own.

A loopback server plays the providers that they name; nothing else can be reached. A test that fails
prints the example and the error.

A block with a title (```python title="agent.py") is a file of that name, which later blocks of the
page may import. What is called ``test_...`` is run by pytest.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib
import os
import re
import runpy
import sys
import tempfile
import threading
import traceback
from pathlib import Path

import pytest

# An example that cannot run here is preceded by <!-- not run: reason -->.
BLOCK = re.compile(
    r"^(?P<skip><!-- not run: (?P<why>[^\n]+) -->\n+)?"
    r'```python(?: title="(?P<title>[\w.]+)")?\n(?P<code>.*?)^```$',
    re.DOTALL | re.MULTILINE,
)


def examples(page: str) -> list[tuple[int, str | None, str, str | None]]:
    """(line, name of the file, code, why it is not run)"""
    return [
        (page[: match.start("code")].count("\n"), match["title"], match["code"], match["why"])
        for match in BLOCK.finditer(page)
    ]


def run(file: Path) -> None:
    """Run a file as its reader would."""
    for name in [name for name in sys.modules if (file.parent / f"{name}.py").exists()]:
        del sys.modules[name]  # an earlier text of a file that the page writes again
    importlib.invalidate_caches()
    sys.argv = [str(file)]
    if file.name.startswith("test_"):
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # a reader has pytest alone
        options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(file.parent)]
        assert pytest.main([*options, str(file)]) == 0, f"{file.name} fails"
    else:
        runpy.run_path(str(file), run_name="__main__")


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
            "GOOGLE_GEMINI_BASE_URL": url,
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
    count = 0
    page = Path(path).read_text(encoding="utf-8")
    # An example may write files where it runs.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), forbid_network():
        sys.path.insert(0, folder)
        for line, title, code, why in examples(page):
            if why is not None:
                ast.parse(code)
                continue
            count += 1
            file = Path(folder) / (title or f"example_{count}.py")
            file.write_text(code, encoding="utf-8")
            try:
                run(file)
            except BaseException:
                print(f"{path}, line {line + 1}:\n\n{code}", file=sys.stderr)
                traceback.print_exc()
                return 1
    print(f"{count} examples ran")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
