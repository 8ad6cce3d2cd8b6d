"""``rejoinder log``: finds, shows, exports and removes kept conversations."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

from rejoinder.cli.kept import open_store, store_path
from rejoinder.cli.loop import LoopThread
from rejoinder.cli.numbers import count
from rejoinder.cli.outcome import CommandError, Exit
from rejoinder.cli.render import one_line, printable, render_call, table
from rejoinder.cli.screen import Screen

if TYPE_CHECKING:
    from rejoinder.llm.chat_context import ChatContext
    from rejoinder.store import SqliteStore

__all__ = ["add_options", "find_id", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "action", nargs="?", choices=("list", "show", "search", "export", "remove", "path"),
        default="list",
        help="list the conversations (default), newest first; show one; search all of them; "
        "export one as JSON; remove some; or print the path of the file that holds them",
    )  # fmt: skip
    parser.add_argument(
        "what", nargs="*",
        help="ids or their beginnings (show, export: default the last conversation), or words to "
        "search for",
    )  # fmt: skip
    parser.add_argument(
        "-n",
        "--limit",
        metavar="N",
        type=count,
        default=20,
        help="how many (default: %(default)d)",
    )
    parser.add_argument("--all", action="store_true", help="remove: all conversations")
    parser.add_argument("--json", action="store_true", help="list, search: one JSON object a line")
    parser.add_argument("-q", "--quiet", action="store_true", help="no notes")


def run(args: argparse.Namespace) -> Exit:
    """Do it.

    Raises:
        CommandError: there is no such conversation, or the store cannot be used.
    """
    from rejoinder.store import StoreError

    screen = Screen(quiet=args.quiet)
    if args.what and args.action in ("list", "path"):
        hint = "; rejoinder log search looks for words" if args.action == "list" else ""
        raise CommandError(f"log {args.action}: takes no {args.what[0]!r}{hint}")
    if args.action == "path":
        print(store_path())
        return Exit.OK
    store = open_store()
    with LoopThread() as loop:
        try:
            return loop.run(_ACTIONS[args.action](store, args, screen))
        except StoreError as error:
            raise CommandError(str(error), Exit.SETUP) from error
        finally:
            loop.run(store.aclose())


async def find_id(store: SqliteStore, wanted: str) -> str:
    """The conversation whose id is or begins with `wanted`; the last one if that is empty.

    Raises:
        CommandError: no conversation matches, or several do.
    """
    known = [each.id for each in await store.conversations()]
    if not wanted:
        if not known:
            raise CommandError("no conversation is kept yet")
        return known[0]
    found = [id for id in known if id == wanted] or [id for id in known if id.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} conversations begin" if found else "no conversation begins"
    raise CommandError(f"{what} with {wanted!r} (rejoinder log list shows them)")


async def _list(store: SqliteStore, args: argparse.Namespace, screen: Screen) -> Exit:
    found = await store.conversations(limit=args.limit)
    if args.json:
        for each in found:
            print(json.dumps({
                "id": each.id, "title": each.title, "items": each.items, "created": each.created,
                "updated": each.updated, "about": each.about,
            }))  # fmt: skip
        return Exit.OK
    rows = [
        (each.id, _when(each.updated), one_line(str(each.about.get("model") or ""), 40),
         one_line(each.title, 60))
        for each in found
    ]  # fmt: skip
    if rows:
        print(table(rows))
    else:
        screen.note("No conversation is kept yet.")
    return Exit.OK


async def _show(store: SqliteStore, args: argparse.Namespace, screen: Screen) -> Exit:
    chat_ctx = await _load(store, args.what)
    style = screen.out_style
    for item in chat_ctx.items:
        match item.type:
            case "message":
                text = (item.text_content or "").rstrip()
                more = [f"[{part.type.removesuffix('_content')}]" for part in item.content
                        if not isinstance(part, str)]  # fmt: skip
                cut = " [interrupted]" if item.interrupted else ""
                who = {"assistant": style.green, "user": style.bold}.get(item.role, style.dim)
                print(f"{who(item.role)}: {printable(' '.join([text, *more]).strip())}{cut}")
            case "function_call":
                print(style.dim(f"-> {render_call(item.name, item.arguments)}"))
            case "function_call_output":
                failed = "failed: " if item.is_error else ""
                print(style.dim(f"<- {failed}{one_line(item.output) or '(nothing)'}"))
            case _:
                pass
    return Exit.OK


async def _search(store: SqliteStore, args: argparse.Namespace, screen: Screen) -> Exit:
    text = " ".join(args.what)
    if not text.strip():
        raise CommandError("name the words to search for: rejoinder log search WORDS")
    found = await store.search(text, limit=args.limit)
    if args.json:
        for hit in found:
            print(json.dumps({
                "conversation": hit.conversation, "item": hit.item, "at": hit.at,
                "excerpt": hit.excerpt,
            }))  # fmt: skip
    elif found:
        print(table([(hit.conversation, _when(hit.at), one_line(hit.excerpt)) for hit in found]))
    else:
        screen.note(f"No message contains {one_line(text, 60)!r}.")
    return Exit.OK if found else Exit.FAILED


async def _export(store: SqliteStore, args: argparse.Namespace, _: Screen) -> Exit:
    chat_ctx = await _load(store, args.what)
    data: dict[str, Any] = chat_ctx.to_dict(
        exclude_image=False, exclude_audio=False, exclude_timestamp=False
    )
    print(json.dumps(data, indent=1))
    return Exit.OK


async def _remove(store: SqliteStore, args: argparse.Namespace, screen: Screen) -> Exit:
    if args.all == bool(args.what):
        raise CommandError("name the conversations to remove, or --all of them")
    known = [each.id for each in await store.conversations()]
    ids = known if args.all else [await find_id(store, wanted) for wanted in args.what]
    for id in ids:
        await store.remove(id)
    screen.note(f"Removed {len(ids)} {'conversation' if len(ids) == 1 else 'conversations'}.")
    return Exit.OK


async def _load(store: SqliteStore, what: list[str]) -> ChatContext:
    from rejoinder.conversation import Conversation

    if len(what) > 1:
        raise CommandError(f"expected one conversation, got {len(what)}")
    return await Conversation(store, await find_id(store, what[0] if what else "")).load()


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


_ACTIONS = {
    "list": _list, "show": _show, "search": _search, "export": _export, "remove": _remove,
}  # fmt: skip
