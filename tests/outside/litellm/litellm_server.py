"""LiteLLM's proxy in an environment of its own."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from outside.environment import python as environment

SETTINGS = """
router_settings:
  disable_cooldowns: true
  num_retries: 0
litellm_settings:
  num_retries: 0
  telemetry: false
"""


@contextmanager
def running(models: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Address and key of a proxy for `models` (YAML, the section ``model_list``)."""
    python = environment("litellm")
    (folder / "config.yaml").write_text(models + SETTINGS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    key = f"sk-{secrets.token_hex(24)}"  # it refuses to start with a weak one
    log = (folder / "log.txt").open("wb")
    process = subprocess.Popen(
        [
            *(str(python.parent / "litellm"), "--config", str(folder / "config.yaml")),
            *("--host", "127.0.0.1", "--port", str(port)),
        ],
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=folder,
        start_new_session=True,
        env={
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(folder),
            "LITELLM_MASTER_KEY": key,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_TELEMETRY": "False",
            "NO_PROXY": "127.0.0.1",
        },
    )
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 180
        while True:
            if process.poll() is not None or time.monotonic() > end:
                text = (folder / "log.txt").read_text("utf-8", "replace")
                pytest.fail(f"the proxy did not start:\n{text[-2000:]}")
            try:
                urllib.request.urlopen(f"{url}/health/liveliness", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        yield url, key
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()
