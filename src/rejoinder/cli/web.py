"""``rejoinder web``: a page on this machine to talk to a model and to see why a reply was late."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import webbrowser
from typing import TYPE_CHECKING, Any, Final

from rejoinder.cli.chat import (
    SYSTEM,
    add_approve_option,
    add_model_options,
    add_tool_options,
)
from rejoinder.cli.kept import open_store
from rejoinder.cli.llms import find_tools, is_local, make_llm
from rejoinder.cli.loop import LoopThread
from rejoinder.cli.models import fetch_notice
from rejoinder.cli.numbers import port
from rejoinder.cli.outcome import CommandError, Exit
from rejoinder.cli.render import render_error, sentence
from rejoinder.cli.screen import Screen
from rejoinder.cli.servers import connect_servers
from rejoinder.cli.session import patience_for
from rejoinder.errors import APIError

if TYPE_CHECKING:
    from rejoinder.llm.llm import LLM
    from rejoinder.store import Store
    from rejoinder.transport.http import HttpTransport
    from rejoinder.web.team import Choice

__all__ = ["add_options", "explain", "run"]

_PORT: Final = 8765
_CLOSE_TIMEOUT: Final = 4.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add_model_options(parser)
    add_tool_options(parser)
    add_approve_option(parser)
    parser.add_argument(
        "--host", metavar="ADDRESS", default="127.0.0.1",
        help="address to listen on (default: %(default)s, which other machines cannot reach)",
    )  # fmt: skip
    parser.add_argument(
        "--port", metavar="N", type=port,
        help=f"0 takes any free port (default: {_PORT}, or any if it is taken)",
    )  # fmt: skip
    parser.add_argument(
        "--keep", action="store_true",
        help="keep the conversations on this machine, with those of `rejoinder chat`; by default "
        "they end with the command",
    )  # fmt: skip
    parser.add_argument(
        "--replay", metavar="FILE",
        help="answer from this recording (a ZIP of the page, or a folder), at its own pace, instead of "
        "asking the provider",
    )  # fmt: skip
    parser.add_argument("--open", action="store_true", help="open the page in the browser")


def run(args: argparse.Namespace) -> Exit:
    """Run the command, until Ctrl-C.

    Raises:
        CommandError: the options cannot be used, or something is missing.
    """
    try:
        from rejoinder.web.app import make_app
        from rejoinder.web.serve import bind, serve
        from rejoinder.web.team import Team
    except ImportError as error:
        raise CommandError(
            f"the page needs the extra `web`: pip install 'rejoinder[web]' ({error})", Exit.SETUP
        ) from error
    _check_host(args.host)
    screen = Screen()
    tools = [] if args.no_tools else find_tools(args.tool or ["demo"])
    names = [args.model, *args.fallback]
    team_choices = [
        _choice(args, name, screen, first=number == 0) for number, name in enumerate(names)
    ]
    transport = None if args.replay is None else _replayed(args.replay)
    with LoopThread() as loop:
        opened: list[Any] = []
        try:
            servers: list[str] = [] if args.no_tools else args.mcp
            tools = loop.run(
                connect_servers(
                    servers, tools, tool_timeout=args.tool_timeout, screen=screen, opened=opened
                )
            )
            team = Team(team_choices, transport=transport)
            address = _bind(bind, args)
            app = make_app(
                team,
                store=_store(keep=args.keep),
                token=address.token,
                hosts=address.hosts,
                tools=tools,
                system=SYSTEM if args.system is None else args.system,
                tool_timeout=args.tool_timeout,
                approve=args.approve,
                conn_options=patience_for(args.timeout, local=is_local(args.model)),
                kept=args.keep,
                explain=explain,
            )
            screen.data(address.url)
            screen.note("Open this address in a browser on this machine. Ctrl-C ends the server.")
            if args.open:
                webbrowser.open(address.url)
            loop.run(serve(app, address))
        except KeyboardInterrupt:
            return Exit.OK
        finally:
            screen.clear()
            with contextlib.suppress(KeyboardInterrupt, TimeoutError, RuntimeError):
                if opened and loop.responds():
                    loop.run(_close(opened), timeout=_CLOSE_TIMEOUT)
    return Exit.OK


def explain(error: BaseException) -> str:
    """Why a run failed, in one sentence."""
    from rejoinder.web.timeline import reason_of

    return sentence(render_error(error) if isinstance(error, APIError) else reason_of(error))


async def _close(opened: list[Any]) -> None:
    for connection in opened:
        await connection.aclose()


def _check_host(host: str) -> None:
    if host == "localhost":
        return
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise CommandError(
            f"--host: expected an IP address of this machine, got {host!r}"
        ) from None
    if address.is_unspecified:
        raise CommandError(
            f"--host: {host} stands for all addresses of this machine; name the one that browsers "
            "will use"
        )


def _bind(bind: Any, args: argparse.Namespace) -> Any:
    ports = [args.port] if args.port is not None else [_PORT, 0]
    for number in ports:
        try:
            return bind(args.host, number)
        except OSError as error:
            if number == ports[-1]:
                raise CommandError(
                    f"cannot listen on {args.host}, port {number}: {error.strerror or error}; try "
                    "another --port",
                    Exit.SETUP,
                ) from error
    raise AssertionError("there is always a port to try")


def _store(*, keep: bool) -> Store:
    if keep:
        return open_store()
    from rejoinder.web.memory import MemoryStore

    return MemoryStore()


def _replayed(folder: str) -> Any:
    from rejoinder.testing import replay

    try:
        recording = replay(folder, speed=1.0)
    except OSError as error:
        raise CommandError(f"--replay: {folder}: {error.strerror or error}") from error
    except ValueError as error:
        raise CommandError(f"--replay: {folder}: {error}") from error
    if not recording.unused:
        raise CommandError(f"--replay: {folder} holds no recording (no *.json)")
    return lambda: recording


def _choice(args: argparse.Namespace, name: str | None, screen: Screen, *, first: bool) -> Choice:
    """A model of the page.

    Raises:
        CommandError: the model is unknown, or it cannot be made.
    """
    from rejoinder.providers.local.models import DEFAULT_MODEL
    from rejoinder.web.team import Choice

    base_url = args.base_url if first else None
    local = is_local(name) and base_url is None

    def make(transport: HttpTransport | None) -> LLM[Any]:
        return make_llm(
            name,
            base_url=base_url,
            report=screen.fetching,
            max_tokens=args.max_tokens if first or local else None,
            context=args.context if first or local else None,
            temperature=args.temperature,
            transport=transport,
        ).llm

    async def load(llm: Any) -> None:
        notice = fetch_notice(name or DEFAULT_MODEL)
        if notice is not None:
            screen.note(notice)
        await llm.load()
        screen.clear()

    return Choice(name or DEFAULT_MODEL, make, local=local, load=load if local else None)
