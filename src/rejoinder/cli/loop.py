"""An event loop in a thread of its own, so that the main thread can wait at the keyboard.

Ctrl-C reaches the main thread only. It interrupts waiting for a line or a reply, and never strikes
in the middle of a coroutine. Connections are served while the user thinks, and a tool that blocks
the loop cannot prevent the program from ending.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

from rejoinder.cli.outcome import Ended

__all__ = ["LoopThread"]

T = TypeVar("T")

_PATIENCE = 2.0
"""Seconds within which an interrupted reply should end."""


class LoopThread:
    """A running event loop. Use it in ``with``."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _loop, _context: None)
        self._stopped = False
        self._questions: queue.SimpleQueue[
            tuple[Callable[[], Any], concurrent.futures.Future[Any]] | None
        ] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="rejoinder", daemon=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            while not self._stopped:
                with contextlib.suppress(KeyboardInterrupt, SystemExit):  # a tool raised one
                    self._loop.run_forever()
        finally:
            self._loop.close()

    def _stop(self) -> None:
        self._stopped = True
        self._loop.stop()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(
        self,
        work: Coroutine[Any, Any, T],
        *,
        interrupt: Callable[[], None] | None = None,
        stuck: Callable[[], None] | None = None,
        timeout: float | None = None,
    ) -> T:
        """Run `work` on the loop and wait for it.

        Ctrl-C calls `interrupt` on the loop (default: cancels `work`), and this method continues to
        wait until `work` has ended. If that takes long, something blocks the loop, and `stuck` is
        called in this thread.

        Raises:
            KeyboardInterrupt: Ctrl-C without `interrupt`, or a second Ctrl-C.
            Ended: the process received a termination signal; `work` is cancelled.
            TimeoutError: it took longer than `timeout` seconds.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.add_done_callback(lambda _: self._questions.put(None))
        try:
            try:
                self._answer_until(future, timeout)
                return future.result(0)
            except KeyboardInterrupt:
                if interrupt is None:
                    raise
            self._loop.call_soon_threadsafe(interrupt)
            concurrent.futures.wait((future,), _PATIENCE)
            if not future.done() and stuck is not None:
                stuck()
            return future.result()
        except (KeyboardInterrupt, Ended):
            future.cancel()
            if self.responds():
                self._settle(future)
            raise

    def _answer_until(self, future: concurrent.futures.Future[Any], timeout: float | None) -> None:
        """Answer questions from the loop until `future` is done."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not future.done():
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                asked = self._questions.get(timeout=left)
            except queue.Empty:
                raise TimeoutError from None
            if asked is None:
                continue
            question, answer = asked
            if not answer.set_running_or_notify_cancel():
                continue
            try:
                answer.set_result(question())
            except BaseException as error:
                answer.set_exception(asyncio.CancelledError())
                if not isinstance(error, Exception):
                    raise
        while not self._questions.empty():
            self._questions.get()

    async def ask(self, question: Callable[[], T]) -> T:
        """Call `question` in the thread that waits in `run`, which may read the keyboard, and
        return its result.

        Raises:
            asyncio.CancelledError: the user pressed Ctrl-C instead of answering.
        """
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._questions.put((question, answer))
        return await asyncio.wrap_future(answer)

    def responds(self, timeout: float = 0.5) -> bool:
        """Whether the loop runs; false while something blocks it."""
        turned = threading.Event()
        self._loop.call_soon_threadsafe(turned.set)
        return turned.wait(timeout)

    @staticmethod
    def _settle(future: concurrent.futures.Future[Any], timeout: float = 2.0) -> None:
        # `cancel` marks this future at once; give the coroutine a moment to clean up.
        concurrent.futures.wait((future,), timeout)

    def stop(self, timeout: float = 2.0) -> bool:
        """Stop the loop. Returns whether it ended within `timeout` (something may block it)."""
        if not self._thread.is_alive():
            return True
        if not self.responds():
            return False
        try:
            done = asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop)
            done.result(timeout)
        except (TimeoutError, concurrent.futures.CancelledError):
            return False
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        await self._loop.shutdown_asyncgens()
