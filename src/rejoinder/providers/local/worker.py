"""The process in which an embedded model runs: llama.cpp, loaded by `rejoinder.providers.local.engine`.

It imports only the standard library and the engine, nothing of this package, so that it starts quickly.
It reads its settings from the first line of standard input, and writes one line of JSON when the model
is loaded or has failed to load. It runs until standard input ends, which also happens when the parent
dies.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import struct
import sys
import urllib.request
from typing import Any


def load(settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The running engine, and facts about it.

    Raises:
        ImportError: the engine is not installed.
        RuntimeError: the file is not a model, or the settings do not suit it.
    """
    engine: Any = importlib.import_module("xllamacpp")
    params = engine.CommonParams()
    params.model.path = settings["path"]
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["context"] * settings["slots"]  # the slots share it equally
    params.n_batch = params.n_ubatch = settings["batch"]
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["prompt_threads"]
    params.cpuparams.poll = params.cpuparams_batch.poll = 0  # do not spin while there is no work
    params.n_gpu_layers = settings["gpu_layers"]
    params.cache_ram_mib = settings["cache_mb"]
    params.api_keys = [settings["key"]]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.verbosity = settings["verbosity"]
    params.fit_params = False
    params.prefill_assistant = False
    params.ui = False
    params.endpoint_slots = False
    params.cors_origins = ""
    server: Any = engine.Server(params)
    address: str = server.listening_address
    request = urllib.request.Request(  # noqa: S310  our own engine, on the loopback
        f"{address}/props", headers={"authorization": f"Bearer {settings['key']}"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        props: dict[str, Any] = json.load(answer)
    capabilities: dict[str, Any] = props.get("chat_template_caps") or {}
    return server, {
        "address": address,
        "context": props["default_generation_settings"]["n_ctx"],
        "tools": bool(capabilities.get("supports_tools")),
        "system": bool(capabilities.get("supports_system_role", True)),
        "template": props.get("chat_template") or "",
        "control_tokens": control_tokens(settings["path"]),
    }


_NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_TEXT, _LIST = 8, 9
_UNKNOWN_TOKEN, _CONTROL_TOKEN = 2, 3


def control_tokens(path: str) -> list[str]:
    """The texts of the engine's control tokens, from the head of a GGUF file (format:
    https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). None if the head cannot be read."""
    found: dict[str, Any] = {}
    try:
        with open(path, "rb") as file:

            def number(kind: str) -> Any:
                return struct.unpack("<" + kind, file.read(struct.calcsize("<" + kind)))[0]

            def value(kind: int) -> Any:
                if kind == _TEXT:
                    return file.read(number("Q"))
                if kind != _LIST:
                    return number(_NUMBERS[kind])
                kind, count = number("I"), number("Q")
                if kind in (_TEXT, _LIST):
                    return [value(kind) for _ in range(count)]
                size = struct.calcsize("<" + _NUMBERS[kind])
                return struct.unpack(f"<{count}{_NUMBERS[kind]}", file.read(size * count))

            _, _, _, entries = struct.unpack("<IIQQ", file.read(24))
            for _ in range(entries):
                name = value(_TEXT)
                found[name.decode()] = value(number("I"))
    except (OSError, struct.error, KeyError, ValueError, MemoryError, OverflowError):
        return []
    tokens: list[bytes] = found.get("tokenizer.ggml.tokens") or []
    kinds: list[int] = found.get("tokenizer.ggml.token_type") or []
    return [
        token.decode("utf-8", "replace")
        for token, kind in zip(tokens, kinds, strict=False)
        if kind in (_UNKNOWN_TOKEN, _CONTROL_TOKEN)
    ]


def main() -> None:
    # Output of the engine must not mix with the lines of JSON.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.buffer.readline())
    try:
        server, about = load(settings)
    except ImportError as error:
        about = {"error": "import", "message": str(error)}
        server = None
    except Exception as error:
        about = {"error": "load", "message": str(error)}
        server = None
    answers.write(json.dumps(about) + "\n")
    answers.flush()
    if server is None:
        return  # a normal exit lets the engine log the reason
    parent = os.getppid()
    while os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], 2.0)
        if readable and not os.read(0, 4096):
            break
    os._exit(0)  # no clean-up is needed: the memory is freed with the process


if __name__ == "__main__":
    main()
