"""The search for a canary: a credential that is planted, and must be found nowhere.

An error is searched as error reporters search it: its texts, its members, its pickle, and the local
variables of every frame of every error behind it, walked into.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

TESTS = str(Path(__file__).parent)


def inside(value: Any, depth: int = 5) -> Iterator[str]:
    """What an error reporter prints of a value: its `repr`, and the members of containers."""
    try:
        yield repr(value)
    except Exception as error:  # of an object that is half made
        yield repr(error)
    if depth == 0:
        return
    if isinstance(value, Mapping):
        for key, member in list(value.items()):
            yield from inside(key, depth - 1)
            yield from inside(member, depth - 1)
    elif isinstance(value, bytes | bytearray):
        yield value.decode("latin-1")
    elif isinstance(value, Sequence | AbstractSet) and not isinstance(value, str):
        for member in list(value):
            yield from inside(member, depth - 1)


def behind(error: BaseException | None) -> Iterator[BaseException]:
    """`error`, and all errors that can be reached from it."""
    pending = [error]
    seen: set[int] = set()
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        pending += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            pending += one.exceptions


def shown(error: BaseException | None) -> Iterator[tuple[str, str]]:
    """Everything that can be seen of an error, with the place. Frames of tests are the caller's."""
    for one in behind(error):
        name = type(one).__name__
        yield f"str of {name}", str(one)
        yield f"repr of {name}", repr(one)
        yield f"notes of {name}", repr(getattr(one, "__notes__", ""))
        yield f"members of {name}", repr(vars(one))
        yield f"lines of {name}", "".join(traceback.format_exception(one))
        with contextlib.suppress(Exception):
            yield f"pickle of {name}", pickle.dumps(one).decode("latin-1")
        for frame, _ in traceback.walk_tb(one.__traceback__):
            file = frame.f_code.co_filename
            if file.startswith(TESTS) or "pytest" in file:
                continue
            where = f"{Path(file).name}:{frame.f_code.co_name}"
            for variable, value in list(frame.f_locals.items()):
                for text in inside(value):
                    yield f"{where} {variable}", text


def leaks(error: BaseException | None, keys: Iterable[str]) -> list[str]:
    """The places of `error` that show one of `keys`."""
    keys = list(keys)
    return sorted({where for where, text in shown(error) if any(key in text for key in keys)})


class Records(logging.Handler):
    """All log records, of every logger and level, with what they say and carry."""

    def __init__(self, *keys: str) -> None:
        super().__init__(0)
        self.keys = keys
        self.leaks: set[str] = set()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
        name = f"log of {record.name} ({record.levelname})"
        text = record.getMessage() + repr(record.args)
        if any(key in text for key in self.keys):
            self.leaks.add(f"{name}: {record.msg}")
        if record.exc_info:
            self.leaks.update(f"{name}: {where}" for where in leaks(record.exc_info[1], self.keys))


@contextlib.contextmanager
def all_records(*keys: str) -> Iterator[Records]:
    """Hears every logger at every level."""
    handler = Records(*keys)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(1)
    try:
        yield handler
    finally:
        root.setLevel(before)
        root.removeHandler(handler)
