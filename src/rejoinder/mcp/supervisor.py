"""Keeps one server connected: one owner task connects, keeps the session, and reconnects.

Only the owner task enters and leaves the SDK's context managers, so any task may call `start` and
`aclose`. Each question runs in its own task, and its caller waits for a plain future. Whatever happens
to the connection, the caller gets an answer or one plain error by its deadline, and is never cancelled
by it. A caller can be cancelled at any moment, without waiting for the server.

This module uses no SDK type. It imports the SDK (about a second) in a thread, at the first start.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import importlib
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from rejoinder._aio import Alarm, end, in_thread, within
from rejoinder._secrets import forget_frames
from rejoinder._sections import explained
from rejoinder.errors import APIConnectionError, APIError, APIStatusError, APITimeoutError
from rejoinder.mcp.elicitation import Elicitation, ElicitationAnswer
from rejoinder.mcp.notes import Call, Notes, current_call, current_notes
from rejoinder.mcp.questions import Again, Question

if TYPE_CHECKING:
    from rejoinder.mcp.results import ServerInfo
    from rejoinder.mcp.session import Session

__all__ = ["Patience", "Supervisor"]

logger = logging.getLogger("rejoinder.mcp")

T = TypeVar("T")

State = Literal["connecting", "ready", "resting", "asleep", "ended"]

_FIRST_REST: Final = 0.25
_LONGEST_REST: Final = 30.0
# A connection that lasted this long was good: after the next loss, the first pause is short again.
_SETTLED: Final = 10.0
# A call waits for the next attempt if it is due within this many seconds.
_SOON: Final = 0.5
# After this many failed attempts in a row, the owner sleeps until the next call.
_RESTARTS: Final = 5
_PROBE: Final = 2.0
_STALLS: Final = 2
# Seconds that a requested end may take before the owner is cancelled, and then abandoned.
_ENDING: Final = 1.6
_LAST_GASP: Final = 0.3
# Seconds to wait for the reason of a lost connection: an exit code arrives a moment later.
_REASON: Final = 0.3


@dataclass(frozen=True, slots=True)
class Patience:
    """Deadlines, in seconds.

    Attributes:
        call: for each question (list, call, read).
        start: for connecting and the handshake, each time.
        elicitation: for a user's answer to a server's question; open calls wait for it too.
    """

    call: float
    start: float
    elicitation: float = 120.0


class Supervisor:
    """Keeps one server connected between `start` and `aclose`, and sends it questions.

    Args:
        label: names the server in messages.
        open_streams: opens the transport; called once per connection, in the owner task.
        on_list_changed: called with "tools", "resources" or "prompts"; must not raise.
        on_state: called with "lost" or "restored" and a reason; must not raise.
        elicit: answers a server's questions. ``None``: do not offer that.
        mode: whether to probe for a server of protocol 2026-07-28: ``"auto"`` probes first,
            ``"legacy"`` never, ``None`` if the handshake is refused.
    """

    def __init__(
        self,
        *,
        label: Callable[[], str],
        open_streams: Callable[[], AbstractAsyncContextManager[Any]],
        patience: Patience,
        on_list_changed: Callable[[str], None],
        on_state: Callable[[Literal["lost", "restored"], str], None],
        elicit: Callable[[Elicitation], Awaitable[ElicitationAnswer]] | None,
        mode: Literal["auto", "legacy"] | None = None,
    ) -> None:
        self.mode = mode
        self.label = label
        self.open_streams = open_streams
        self.patience = patience
        self.on_list_changed = on_list_changed
        self.on_state = on_state
        self.elicit = elicit
        self._life: _Life | None = None
        self._ending: set[_Life] = set()

    @property
    def started(self) -> bool:
        """True from a successful `start` until `aclose`, even while the connection is lost."""
        return self._life is not None and self._life.was_ready

    @property
    def connected(self) -> bool:
        return self._life is not None and self._life.state == "ready"

    @property
    def server(self) -> ServerInfo | None:
        """How the server identified itself when it was last connected."""
        return self._life.server if self._life is not None else None

    def offers(self, kind: str) -> bool:
        """Whether the connected server declares the capability "tools", "resources" or "prompts"."""
        session = self._life.session if self._life is not None else None
        return session is not None and session.offers(kind)

    async def start(self) -> None:
        """Connect. A second call while connected or connecting only waits.

        Raises:
            APIError: the server cannot be reached or refuses the connection.
            APITimeoutError: the server does not connect in time.
        """
        await _sdk()  # before the deadline starts: a slow import is not the server's fault
        life = self._life
        if life is None or life.state == "ended":
            life = self._life = _Life(self)
        life.check_loop()
        if life.was_ready:
            await life.again(self.patience.start)
            return
        try:
            await life.first_connection()
        except BaseException as error:
            # A cancelled `start` ends the attempt, unless another task waits for it.
            alone = not isinstance(error, asyncio.CancelledError) or not life.awaited
            if not life.was_ready and alone:
                self._let_go(life)
            raise

    async def ask(
        self,
        question: Callable[[Session], Awaitable[T]],
        what: str,
        *,
        timeout: float | None = None,
        limit: float = 0.0,
    ) -> T:
        """Send `question` and return the answer.

        Args:
            question: asks the session.
            what: names the question in errors.
            timeout: seconds to wait; by default `Patience.call`.
            limit: maximum seconds to wait while progress reports renew the deadline.

        Raises:
            APITimeoutError: no answer arrives in time.
            APIConnectionError: the server cannot be reached, or died before it answered.
            APIError: the server answered with an error.
        """
        life = self._life
        if life is None:
            raise APIConnectionError(f"{self.label()} is not connected", retryable=False)
        life.check_loop()
        timeout = self.patience.call if timeout is None else timeout
        return await life.ask(question, what, timeout, limit)

    async def aclose(self) -> None:
        """End the connection, its tasks and its process. Idempotent; any task may call it."""
        if self._life is not None:
            self._life.check_loop()
            self._let_go(self._life)
        if self._ending:
            await asyncio.gather(*(life.ended() for life in list(self._ending)))

    def _let_go(self, life: _Life) -> None:
        if self._life is life:
            self._life = None
        self._ending.add(life)
        life.end()
        life.owner.add_done_callback(lambda _: self._ending.discard(life))


class _Life:
    """One start up to its end: the owner task and all its connections."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._loop = asyncio.get_running_loop()
        self.state: State = "connecting"
        self.session: Session | None = None
        self.server: ServerInfo | None = None
        self.was_ready = False
        self._closing = False
        self._wake = asyncio.Event()  # wakes the owner: closing, lost, or a new attempt is wanted
        self._lost: str | None = None
        self._notes = Notes()
        self._reason: BaseException | None = None
        self._next_try = 0.0
        self._modern = supervisor.mode == "auto"
        self._stalls = 0
        self._useful = False  # this connection has answered a question
        self._questions: set[Question[Any]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiters: set[asyncio.Future[bool]] = set()
        self.awaited = 0

        self.owner = self._loop.create_task(self._own(), name="rejoinder-mcp-owner")
        self.owner.add_done_callback(lambda owner: owner.cancelled() or owner.exception())

    # the owner task

    async def _own(self) -> None:
        failures = 0
        try:
            while not self._closing:
                connected_at = self._loop.time()
                notes = Notes(
                    suspect=self._suspected, lost=self._lose, forgotten=self._session_forgotten
                )
                try:
                    await self._connection(notes)
                except Exception as error:
                    if self.session is None or self._lost is None:
                        self._reason = self._explained(error, notes)
                    else:  # already abandoned: errors of the shutdown explain nothing
                        logger.debug("%s: %r", self._label, forget_frames(error))
                held = self.session is not None
                self.session = None
                if self._closing:
                    break
                if self._lost == "modern":
                    self._modern, self._lost = True, None
                    self._set("connecting")
                    continue
                if not held:
                    self._modern = self._supervisor.mode == "auto"
                if not self.was_ready:
                    break  # the first attempt failed: `start` raises the reason
                if held:
                    lasted = self._loop.time() - connected_at > _SETTLED
                    good = lasted or (self._lost == _FORGOTTEN and self._useful)
                    failures = 0 if good else failures
                    self._died()
                    await self._rest(failures)
                    failures += not good  # counted after `_rest`: the first attempt follows at once
                else:
                    failures += 1
                    logger.info("%s: no connection: %s", self._label, self._reason)
                    await self._rest(failures)
        finally:
            self._closing = True
            self.session = None
            self._set("ended")
            self._fail_all(self._unavailable())
            await self._stop_tasks()

    async def _connection(self, notes: Notes) -> None:
        """One connection, from its first byte to its end."""
        self._lost = None
        self._notes = notes
        self._wake.clear()
        token = current_notes.set(notes)
        try:
            in_time = await self._hold(notes)
        finally:
            current_notes.reset(token)
        if not in_time:  # raised here, so that the traceback has no frames of the SDK
            raise APITimeoutError(
                f"{self._label}: not connected within {self._supervisor.patience.start:g} s"
            )

    async def _hold(self, notes: Notes) -> bool:
        """Connect, and return when the connection ends. False: not connected in time."""
        supervisor = self._supervisor
        elicit = supervisor.elicit
        module = await _sdk()
        async with AsyncExitStack() as stack:
            handshake = current_call.set(notes.handshake)
            try:
                async with within(supervisor.patience.start):
                    session = await module.Session.open(
                        stack,
                        supervisor.open_streams(),
                        modern=self._modern,
                        on_end=self._heard_the_end,
                        on_list_changed=supervisor.on_list_changed,
                        elicit=None if elicit is None else partial(self._ask_person, elicit),
                    )
            except module.ModernServer as refused:
                if supervisor.mode == "legacy":
                    raise refused.error from None
                self._lost = "modern"
                return True
            except TimeoutError:
                return False
            finally:
                current_call.reset(handshake)
                notes.calls.pop(notes.handshake.id, None)
            if self._closing:
                return True
            restored = self.was_ready
            self.session = session
            self.server = session.server
            self.was_ready = True
            self._stalls = 0
            self._useful = False
            self._reason = None
            self._set("ready")
            if restored:
                supervisor.on_state("restored", f"{self._label} is connected again")
            while self._lost is None and not self._closing:
                self._wake.clear()
                await self._wake.wait()
            if self._lost is not None:
                # The end of its stderr and its exit code may arrive a moment later.
                await self._know_why(notes)
                self._reason = APIConnectionError(f"{self._label}: {notes.ending() or self._lost}")
                self._set("resting")
                self._fail_all(self._reason)
        return True

    async def _know_why(self, notes: Notes) -> None:
        if notes.process:
            with contextlib.suppress(TimeoutError):
                async with within(_REASON):
                    await notes.exited.wait()

    async def _rest(self, failures: int) -> None:
        """Wait before the next attempt; after too many failures, until a call."""
        self._wake.clear()
        if failures >= _RESTARTS:
            self._set("asleep")
            await self._wake.wait()
        elif failures:
            rest = min(_LONGEST_REST, _FIRST_REST * 2 ** (failures - 1))
            rest *= 0.8 + 0.4 * random.random()  # noqa: S311  spreads restarts, no secret
            self._next_try = self._loop.time() + rest
            self._set("resting")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._wake.wait()
        if not self._closing:
            self._set("connecting")

    def _died(self) -> None:
        reason = self._reason or APIConnectionError(f"{self._label}: the connection was lost")
        self._reason = reason
        self._fail_all(reason)
        logger.warning("an MCP server is gone: %s", reason)
        self._supervisor.on_state("lost", str(reason))

    def _explained(self, error: BaseException, notes: Notes) -> BaseException:
        module = importlib.import_module("rejoinder.mcp.session")
        plain: BaseException = module.plain_error(error, call=notes.handshake)
        ending = notes.ending()
        forget_frames(error)
        message = plain.message if isinstance(plain, APIError) else str(plain)
        text = ending or message
        if not text.startswith(self._label):
            text = f"{self._label}: {text}"
        explained_error: APIError
        if ending is not None or not isinstance(plain, APIError):
            explained_error = APIConnectionError(text)
        elif isinstance(plain, APIConnectionError):
            explained_error = type(plain)(text, retryable=plain.retryable)
        elif isinstance(plain, APIStatusError):
            explained_error = APIStatusError(text, status_code=plain.status_code, body=plain.body)
        else:
            explained_error = APIError(text, body=plain.body, retryable=plain.retryable)
        leaf: BaseException = module.innermost(error)
        explained_error.__cause__ = leaf.__cause__ if isinstance(leaf, APIError) else leaf
        return explained_error

    @property
    def _label(self) -> str:
        return self._supervisor.label()

    # what happens to a connection

    def _heard_the_end(self) -> None:
        self._lose(_ENDED)

    def _lose(self, why: str) -> None:
        if self._lost is None:
            self._lost = why
        self._wake.set()

    def _session_forgotten(self, call: Call | None, error: Exception) -> None:
        """The server does not know the session: end this connection and ask again on the next one."""
        self._lose(_FORGOTTEN)
        if call is not None and call.fail is not None:
            call.fail(Again(error))

    def _suspected(self) -> None:
        if self.state == "ready" and not self._closing:
            self._spawn(self._probe())

    async def _probe(self) -> None:
        """Ping the server. Give the connection up if it does not answer."""
        session = self.session
        if session is None:
            return
        try:
            async with within(min(_PROBE, self._supervisor.patience.call)):
                await session.ping()
        except Exception:
            if session is self.session:
                self._lose("it does not answer any more")
        else:
            self._stalls = 0

    async def _ask_person(
        self, elicit: Callable[[Elicitation], Awaitable[ElicitationAnswer]], question: Elicitation
    ) -> ElicitationAnswer:
        patience = self._supervisor.patience.elicitation
        open_now = list(self._questions)
        began = self._loop.time()
        self._postpone(open_now, patience)
        try:
            async with within(patience):
                return await elicit(replace(question, server=self._label))
        except TimeoutError:
            return ElicitationAnswer("cancel")
        except Exception:
            logger.exception("%s: the callback for its questions raised", self._label)
            return ElicitationAnswer("cancel")
        finally:
            self._postpone(open_now, self._loop.time() - began - patience)

    def _postpone(self, questions: list[Question[Any]], seconds: float) -> None:
        """Extend deadlines by the time that the user needs to answer."""
        for question in questions:
            if question in self._questions:
                question.deadline += seconds
                self._arm(question)

    def check_loop(self) -> None:
        """Raises:
        RuntimeError: this connection belongs to another event loop.
        """
        if self.state != "ended" and asyncio.get_running_loop() is not self._loop:
            message = f"{self._label} is connected on another event loop; use one server per loop"
            raise RuntimeError(explained(message, "other loop"))

    # states

    def _set(self, state: State) -> None:
        self.state = state
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(True)
        self._waiters.clear()

    async def _change(self, deadline: float) -> float | None:
        """Wait for the next state. Returns the deadline, extended by the time in which the loop was
        blocked; ``None`` if the deadline passed first."""
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiters.add(waiter)

        def stood_still(seconds: float) -> None:
            nonlocal deadline
            deadline += seconds

        alarm = Alarm(lambda: deadline, partial(_release, waiter), stalled=stood_still)
        alarm.arm()
        self.awaited += 1
        try:
            return deadline if await waiter else None
        finally:
            self.awaited -= 1
            alarm.stop()
            self._waiters.discard(waiter)

    async def first_connection(self) -> None:
        deadline = self._loop.time() + self._supervisor.patience.start
        while not self.was_ready:
            if self.state == "ended":
                raise self._unavailable()
            moved = await self._change(deadline)
            if moved is None:
                raise APITimeoutError(
                    f"{self._label}: not connected within {self._supervisor.patience.start:g} s"
                )
            deadline = moved

    async def again(self, timeout: float) -> None:
        """Wait until connected. If the next attempt is not due yet, make it now."""
        if self.state in {"resting", "asleep"}:
            self._set("connecting")
            self._wake.set()
        await self._present(self._loop.time() + timeout, "the handshake", timeout)

    def _unavailable(self) -> Exception:
        reason = self._reason
        if isinstance(reason, Exception):
            return _copy(reason)
        return APIConnectionError(f"{self._label} is closed", retryable=False)

    # questions

    async def ask(
        self, ask: Callable[[Session], Awaitable[T]], what: str, timeout: float, limit: float
    ) -> T:
        deadline = self._loop.time() + timeout
        for last in (False, True):
            session = self.session
            if session is None or self._lost is not None:
                session = await self._present(deadline, what, timeout)
            question: Question[T] = Question(
                self._loop.create_future(), deadline, what, timeout, self._loop.time() + limit
            )
            self._questions.add(question)
            self._arm(question)
            task = self._spawn(self._put(session, ask, question))
            try:
                return await question.answer
            except Again as again:
                refusal = again.error
                deadline = question.deadline
            finally:
                self._questions.discard(question)
                if question.timer is not None:
                    question.timer.stop()
                if not task.done():
                    task.cancel()  # it notifies the server and then ends
            if last:
                raise refusal
        raise AssertionError("unreachable")

    async def _present(self, deadline: float, what: str, timeout: float) -> Session:
        while True:
            if self.session is not None and self._lost is None:
                return self.session
            if self.state == "ended" or self._closing:
                raise self._unavailable()
            wait = self._next_try - self._loop.time()
            if self.state == "resting" and wait > _SOON:
                raise APIConnectionError(f"{self._why_lost()}; the next attempt is in {wait:.1f} s")
            if self.state == "asleep":
                self._set("connecting")
                self._wake.set()
            failed = self._reason
            moved = await self._change(deadline)
            if moved is None:
                raise self._late(what, timeout)
            deadline = moved
            if self.state in {"resting", "asleep"} and self._reason is not failed:
                raise APIConnectionError(self._why_lost())

    def _why_lost(self) -> str:
        return str(self._reason) if self._reason else f"{self._label} is not connected"

    async def _put(
        self, session: Session, ask: Callable[[Session], Awaitable[T]], question: Question[T]
    ) -> None:
        module = importlib.import_module("rejoinder.mcp.session")
        answer = question.answer
        call = Call(fail=question.fail, progress=partial(self._progressed, question))
        notes = self._notes
        current_call.set(call)  # in this task's own context
        try:
            result = await ask(session)
        except module.ConnectionGone:
            # The owner ends all waits, now or as soon as it notices.
            if not answer.done():
                self._lose(_ENDED)
        except module.SessionForgotten as forgotten:
            if session is self.session:
                self._lose(_FORGOTTEN)
            question.fail(Again(forgotten.error) if forgotten.again else forgotten.error)
        except Exception as error:
            self._stalls = 0
            if not answer.done():
                plain = module.plain_error(error, call=call)
                forget_frames(error)
                if plain is not error and plain.__cause__ is None:
                    plain.__cause__ = module.innermost(error)
                answer.set_exception(plain)
        else:
            self._stalls = 0
            self._useful = True
            if not answer.done():
                answer.set_result(result)
        finally:
            notes.calls.pop(call.id, None)

    def _progressed(self, question: Question[Any], progress: float) -> None:
        """Restart the timeout of a call that makes progress, up to its limit."""
        if question in self._questions and progress > question.progress:
            question.progress = progress
            renewed = min(self._loop.time() + question.timeout, question.limit)
            if renewed > question.deadline:
                question.deadline = renewed
                self._arm(question)

    def _arm(self, question: Question[Any]) -> None:
        if question.timer is None:
            question.timer = Alarm(
                lambda: question.deadline,
                partial(self._expire, question),
                stalled=question.stood_still,
            )
        question.timer.arm()

    def _expire(self, question: Question[Any]) -> None:
        if question.answer.done():
            return
        question.answer.set_exception(self._late(question.what, question.timeout))
        self._stalls += 1
        if self._stalls >= _STALLS:
            self._suspected()

    def _late(self, what: str, timeout: float) -> APITimeoutError:
        return APITimeoutError(f"{self._label}: no answer to {what} within {timeout:g} s")

    def _fail_all(self, reason: BaseException) -> None:
        for question in list(self._questions):
            if not question.answer.done():
                question.answer.set_exception(_copy(reason))

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # the end

    def end(self) -> None:
        """Ask the owner to end."""
        self._closing = True
        self._fail_all(APIConnectionError(f"{self._label} was closed", retryable=False))
        self._wake.set()
        self._set(self.state)
        if self.state == "connecting":
            # There is no connection to close; interrupt the attempt.
            self.owner.cancel()

    async def ended(self) -> None:
        """Wait for the owner. If it takes too long, cancel it, and finally abandon it."""
        owner = self.owner
        await asyncio.wait([owner], timeout=_ENDING)
        await end(owner, within=_LAST_GASP, name=f"the connection of {self._label}")

    async def _stop_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_GASP)


_ENDED: Final = "the connection was closed by the server"
_FORGOTTEN: Final = "it has forgotten the session"


def _release(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)


def _copy(error: BaseException) -> Any:
    """A copy of the error for another caller, because each raise has its own traceback."""
    copied = copy.copy(error)
    copied.__cause__ = error.__cause__
    return copied


_loaded: list[Any] = []


async def _sdk() -> Any:
    """The session module, imported in a thread because the SDK takes about a second."""

    def load() -> Any:
        # The SDK imports the last two only when it checks structured results.
        for name in ("rejoinder.mcp.stdio", "rejoinder.mcp.http", "jsonschema", "referencing"):
            importlib.import_module(name)
        return importlib.import_module("rejoinder.mcp.session")

    if not _loaded:
        _loaded.append(await in_thread(load, name="rejoinder-mcp-import"))
    return _loaded[0]
