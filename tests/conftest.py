"""What all tests share."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster
from hypothesis import HealthCheck, settings
from looptime._internal import plugin as looptime_plugin

from certificates import LOOPBACK, make_certificate
from published import client_faults
from recorded.corpus import required_root
from rejoinder.llm._prepared import prepare
from rejoinder.testing import RealtimeConnection, RealtimeService
from rejoinder.transport import _aiohttp

pytest_plugins = ["skips", "few", "recorded.summary", "embedded"]

# Said once, so that nothing (looptime asks for every test) makes a loop that nobody closes.
asyncio.set_event_loop(None)

# The first model of pydantic that is built in a process looks for plugins in all folders of packages.
prepare()


def pytest_configure() -> None:
    """Let looptime find out once whether a fixture makes a loop. It goes through all names of
    pytest-asyncio each time that any fixture is set up: fifty thousand times, a minute of the suite."""
    asks = looptime_plugin._should_patch
    known: dict[tuple[str, str], bool] = {}

    def should_patch(fixture: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> bool:
        key = (fixture.func.__module__, fixture.argname)
        if key not in known:
            known[key] = asks(fixture, request)
        return known[key]

    looptime_plugin._should_patch = should_patch


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect no garbage while tests are collected: a tenth of the time, and almost nothing can go."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep what imports and collection made out of every later garbage collection, which tests that
    look for unclosed connections ask for: it holds millions of objects, none of which can go."""
    gc.collect()
    gc.freeze()


settings.register_profile(
    "ci",  # the same examples in each run: a change is not judged by dice. `thorough` looks for new ones
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.register_profile(
    "near",  # a change in the making: the whole suite looks closer
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.register_profile(
    "thorough",
    max_examples=2000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session", autouse=True)
def read_as_usual() -> None:
    """With this variable bodies are not pushed but read, as with an aiohttp that does not offer the
    first: `make newest` runs all tests so."""
    if os.environ.get("REJOINDER_TESTS_PULL"):
        _aiohttp.can_push = lambda content: False


@cache
def blocking_calls() -> BlockBuster:
    """The functions that may not be called: one table for all tests, as making it takes a millisecond."""
    # The checks of options stand around what they call, also around what tests may call.
    watch = BlockBuster("rejoinder", excluded_modules=["rejoinder.testing", "rejoinder._options"])
    # Where coverage is measured, slipcover reads the source of each module that is imported.
    for function in watch.functions.values():
        function.can_block_in("slipcover/importer.py", "exec_module")
    return watch


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Calls of the library that would freeze the event loop fail the test.

    What a test itself does in its own coroutines (reading a file, starting a server process) is
    not watched: only code below ``rejoinder`` is.
    """
    if request.node.get_closest_marker("may_block"):
        yield
        return
    watch = blocking_calls()
    watch.activate()
    try:
        yield
    finally:
        watch.deactivate()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine that is its own authority, with its key."""
    return make_certificate(tmp_path_factory.mktemp("tls") / "loopback.pem", *LOOPBACK)


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of recorded provider traffic."""
    return required_root()


@pytest.fixture(autouse=True)
def published_types(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every event that a test's realtime session sends in OpenAI's current words is held against the
    types that OpenAI publishes; see `published`. The marker ``dialect`` excepts a test of other words."""
    if request.node.get_closest_marker("dialect") is not None:
        yield
        return
    faults: list[str] = []

    def look(connection: RealtimeConnection, event: dict[str, Any]) -> None:
        session = connection.session or event.get("session") or {}
        if session.get("type") == "realtime":  # the beta form has no type
            faults.extend(client_faults(event))

    RealtimeService.observers.append(look)
    yield
    RealtimeService.observers.remove(look)
    assert faults == []
