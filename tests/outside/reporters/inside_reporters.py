"""Run by the interpreter that has the error reporters: fails in many ways, and prints what they show.

    inside_reporters.py NAME FOLDER

``NAME`` is a function of `inside_failures`. Printed is a JSON object: how many errors there were, how
much each reporter has shown, and the text before each key that it has shown.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import pickle
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import inside_failures
import sentry_sdk
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from rich.console import Console
from rich.traceback import Traceback


def make_pem() -> str:
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return made.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def keys() -> list[str]:
    return [os.environ["CANARY"], *os.environ["CANARY_PEM"].split("\n")[2:4]]


def places(text: str) -> list[str]:
    """What stands before each key."""
    found: list[str] = []
    for key in keys():
        at = text.find(key)
        while at >= 0:
            found.append(text[max(0, at - 300) : at])
            at = text.find(key, at + 1)
    return found[:20]


def rich_pages(errors: Iterable[BaseException]) -> str:
    console = Console(record=True, file=open(os.devnull, "w"), width=200)  # noqa: SIM115
    for error in errors:
        trace = Traceback.from_exception(
            type(error), error, error.__traceback__, show_locals=True, locals_max_string=None
        )
        console.print(trace)
    return console.export_text()


def pickles(errors: Iterable[BaseException]) -> str:
    text = ""
    for error in errors:
        try:
            text += pickle.dumps(error).decode("latin-1")
        except (TypeError, AttributeError, pickle.PicklingError):
            text += f"no pickle of {type(error)}"
        text += repr(error) + repr(vars(error)) + repr(error.__cause__)
    return text


def main(name: str, folder: Path) -> None:
    os.environ["CANARY_PEM"] = make_pem()
    seen: dict[str, list[Any]] = {"events": [], "crumbs": [], "spans": []}
    sentry_sdk.init(
        dsn="https://public@127.0.0.1/1",
        before_send=lambda event, hint: seen["events"].append(event),
        before_send_transaction=lambda event, hint: seen["spans"].append(event),
        before_breadcrumb=lambda crumb, hint: seen["crumbs"].append(crumb) or crumb,
        traces_sample_rate=1.0,
        send_default_pii=True,
    )
    log = io.StringIO()
    logging.basicConfig(level=1, stream=log)
    stderr, sys.stderr = sys.stderr, log
    with sentry_sdk.start_transaction(name=name):
        errors = asyncio.run(getattr(inside_failures, name)(folder), debug=True)
    sys.stderr = stderr
    for error in errors:
        sentry_sdk.capture_exception(error)
    shown = {kind: json.dumps(values, default=repr) for kind, values in seen.items()}
    shown |= {"rich": rich_pages(errors), "pickles": pickles(errors), "logs": log.getvalue()}
    for file in folder.rglob("*.json"):
        if file.parent != folder:  # the files beside these hold the credentials
            kind = f"recording {file.parent.name}"
            shown[kind] = shown.get(kind, "") + file.read_text("utf-8")
    told = {kind: places(text) for kind, text in shown.items()}
    sizes = {kind: len(text) for kind, text in shown.items()}
    json.dump({"errors": len(errors), "sizes": sizes, "places": told}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
