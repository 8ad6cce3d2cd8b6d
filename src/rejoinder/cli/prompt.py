"""The prompt of ``rejoinder chat``: reads lines from the user and runs the slash commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from rejoinder.cli.kept import data_folder, path_of
from rejoinder.cli.lines import find_lines
from rejoinder.cli.outcome import CommandError, Exit
from rejoinder.cli.render import one_line, render_error
from rejoinder.errors import APIError, ConfigurationError

if TYPE_CHECKING:
    from rejoinder.cli.llms import Model
    from rejoinder.cli.loop import LoopThread
    from rejoinder.cli.screen import Screen
    from rejoinder.cli.session import Talk
    from rejoinder.llm.chat_context import ImageContent
    from rejoinder.store import SqliteStore

__all__ = ["COMMANDS", "Prompt"]

COMMANDS: Final = {
    "/tools": "show the tools that the model may call",
    "/system [TEXT]": "show or replace the instructions",
    "/model [NAME]": "show the model, or continue with another one",
    "/retry": "ask for another answer to your last message",
    "/branch": "continue in a copy; the conversation so far stays unchanged",
    "/save [FILE]": "write the conversation to a file; without FILE, show where it is kept",
    "/load FILE or ID": "continue a conversation from a file, or a kept one",
    "/reset": "begin a new conversation (also /clear)",
    "/help": "this list",
    "/quit": "leave (also Ctrl-D, or Ctrl-C twice)",
}
_MORE: Final = "A line that ends in \\ continues on the next one."


class _Leave(Exception):
    pass


class Prompt:
    """One conversation at the keyboard.

    Args:
        make: makes a model by name.
        store: the store of conversations; ``None`` keeps none.
    """

    def __init__(
        self,
        loop: LoopThread,
        talk: Talk,
        screen: Screen,
        *,
        make: Callable[[str | None], Model],
        store: SqliteStore | None,
    ) -> None:
        self._loop = loop
        self._talk = talk
        self._screen = screen
        self._make = make
        self._store = store
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": self._help, "/?": self._help,
            "/tools": lambda _: screen.note(talk.describe_tools()),
            "/system": self._system, "/model": self._model, "/retry": self._retry,
            "/branch": self._branch, "/save": self._save, "/load": self._load,
            "/reset": self._reset, "/clear": self._reset,
            "/quit": self._quit, "/exit": self._quit, "/q": self._quit,
        }  # fmt: skip

    def converse(self, text: str = "", images: Sequence[ImageContent] = ()) -> Exit:
        """Talk until the user leaves.

        Args:
            text, images: sent with the first message.
        """
        from rejoinder.store import StoreError

        talk, screen, loop = self._talk, self._screen, self._loop
        history = data_folder() / "history" if self._store is not None else None
        lines = find_lines(screen, commands=[line.split()[0] for line in COMMANDS], history=history)
        screen.note(f"{talk.model.name}. /help shows the commands, Ctrl-D leaves.")
        if spoken := sum(item.type == "message" and item.role == "user" for item in talk.items):
            screen.note(
                f"[continues after {spoken} {'message' if spoken == 1 else 'messages'} of yours]"
            )
        loop.run(talk.warm_up())
        presses = 0
        while True:
            try:
                line = lines.read("> ", ". ").strip()
            except EOFError:
                screen.break_line()
                loop.run(talk.settle())
                return Exit.OK
            except KeyboardInterrupt:
                presses += 1
                screen.break_line()
                if presses > 1:
                    raise
                screen.note("Press Ctrl-C again to leave.")
                continue
            except UnicodeError:
                screen.error("that line is not UTF-8, and was not sent")
                continue
            if not line:
                continue
            presses = 0
            try:
                if line.startswith("/") and "\n" not in line:
                    self._obey(line)
                else:
                    message = f"{line}\n\n{text}" if text else line
                    self._say(message, images)
                    text, images = "", ()
            except _Leave:
                loop.run(talk.settle())
                return Exit.OK
            except APIError as error:
                screen.error(render_error(error))
            except (ConfigurationError, CommandError, StoreError) as error:
                screen.error(str(error))
            if talk.interrupted:
                presses = 1

    def _say(self, text: str, images: Sequence[ImageContent] = ()) -> None:
        talk = self._talk
        self._loop.run(talk.note_facts())
        self._loop.run(talk.say(text, images=images), interrupt=talk.interrupt, stuck=talk.stuck)

    # -- commands ----------------------------------------------------------------------------

    def _obey(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        command = self._commands.get(name)
        self._talk.interrupted = False
        if command is None:
            close = get_close_matches(name, self._commands, 1)
            hint = f"did you mean {close[0]}?" if close else "/help shows the commands."
            self._screen.note(f"Unknown command {one_line(name, 40)}; {hint}")
        else:
            command(rest.strip())

    def _help(self, _: str) -> None:
        width = max(map(len, COMMANDS))
        lines = [f"{name.ljust(width)}  {description}" for name, description in COMMANDS.items()]
        self._screen.note("\n".join([*lines, _MORE]))

    def _quit(self, _: str) -> None:
        raise _Leave

    def _system(self, text: str) -> None:
        if text:
            self._talk.instruct(text)
            self._screen.note("The instructions apply from the next message on.")
        else:
            self._screen.note(self._talk.system or "There are no instructions.")

    def _model(self, name: str) -> None:
        talk = self._talk
        if not name:
            self._screen.note(str(talk.model))
            return
        model = self._make(name)
        self._loop.run(talk.change_model(model))
        self._screen.note(f"{talk.model.name} answers from here on.")

    def _retry(self, _: str) -> None:
        talk = self._talk
        if not talk.forget_last_reply():
            self._screen.note("There is nothing to answer yet.")
            return
        self._loop.run(talk.note_facts())
        self._loop.run(talk.reply(), interrupt=talk.interrupt, stuck=talk.stuck)

    def _branch(self, _: str) -> None:
        talk = self._talk
        if talk.kept is None:
            raise CommandError("the conversation is not kept, so there is nothing to branch from")
        before = talk.kept.id
        other = self._loop.run(talk.kept.branch())
        self._loop.run(talk.keep(other))
        self._screen.note(f"Now in {other.id}; /load {before} returns to the old conversation.")

    def _reset(self, _: str) -> None:
        self._talk.clear()
        self._fresh()
        self._screen.note("A new conversation begins.")

    def _fresh(self) -> None:
        if self._store is not None and self._talk.kept is not None:
            from rejoinder.conversation import Conversation

            self._loop.run(self._talk.keep(Conversation(self._store)))

    def _save(self, path: str) -> None:
        talk = self._talk
        if not path:
            kept = "is not kept" if talk.kept is None else f"is kept as {talk.kept.id}"
            self._screen.note(f"The conversation {kept}; /save FILE writes it to a file.")
            return
        from rejoinder.llm.chat_context import ChatContext

        data = ChatContext(talk.items).to_dict(
            exclude_image=False, exclude_audio=False, exclude_timestamp=False
        )
        file = path_of(path)
        try:
            file.write_text(json.dumps(data, indent=1) + "\n", "utf-8")
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror or error}") from error
        self._screen.note(f"Saved {len(talk.items)} items to {file}.")

    def _load(self, wanted: str) -> None:
        if not wanted:
            raise CommandError("name a file, or a conversation that is kept: /load FILE")
        if path_of(wanted).is_file():
            self._load_file(wanted)
        else:
            self._load_kept(wanted)
        self._screen.note(f"Continues after {len(self._talk.items)} items.")

    def _load_file(self, path: str) -> None:
        from rejoinder.cli.inputs import read_text
        from rejoinder.llm.chat_context import ChatContext

        text = read_text(path, "/load")
        try:
            data: Any = json.loads(text)
            chat_ctx = ChatContext.from_dict(data)
        except (ValueError, TypeError, KeyError) as error:
            # The text of a `KeyError` stands in quotes.
            why = str(error.args[0]) if isinstance(error, KeyError) else str(error)
            raise CommandError(
                f"{path} holds no conversation that /save has written: {one_line(why, 200)}"
            ) from error
        self._talk.clear()
        self._fresh()
        self._talk.use_context(chat_ctx)

    def _load_kept(self, wanted: str) -> None:
        if self._store is None:
            raise CommandError(f"no file {wanted} exists, and conversations are not kept")
        from rejoinder.cli.log import find_id
        from rejoinder.conversation import Conversation

        try:
            id = self._loop.run(find_id(self._store, wanted))
        except CommandError as error:
            raise CommandError(f"there is no file {wanted}, and {error}") from error
        self._loop.run(self._talk.keep(Conversation(self._store, id)))
