"""Runs one tool call, and turns every outcome into an output for the model."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar, cast

from rejoinder._aio import end, in_thread, unfinished
from rejoinder._core.chunks import FunctionToolCall
from rejoinder._core.items import FunctionCall, FunctionCallOutput, ImageContent
from rejoinder._core.results import TextWithPictures
from rejoinder._core.tools import RunContext, StopResponse, ToolError
from rejoinder._options import SECONDS, checked
from rejoinder.llm._signatures import prepare_function_arguments
from rejoinder.llm.tool_context import FunctionTool, RawFunctionTool, ToolContext, get_tool_options

__all__ = ["FunctionCallResult", "execute_function_call", "make_function_call_output"]

logger = logging.getLogger("rejoinder")

T = TypeVar("T")


@dataclass
class FunctionCallResult:
    """The result of one tool call.

    Attributes:
        fnc_call: the call; its arguments are rewritten as clean JSON if they had to be mended.
        fnc_call_out: the output for the model.
        raw_output: the return value of the tool.
        raw_exception: the exception that the tool raised (or returned).
    """

    fnc_call: FunctionCall
    fnc_call_out: FunctionCallOutput
    raw_output: Any = None
    raw_exception: BaseException | None = None
    fnc_call_updates: list[Any] = field(default_factory=list[Any])

    @property
    def stop(self) -> bool:
        """Whether the tool wants no further reply of the model."""
        return isinstance(self.raw_exception, StopResponse)


def to_function_call(
    call: FunctionToolCall, *, call_id: str | None = None, group_id: str | None = None
) -> FunctionCall:
    """The history item for a call that a model streamed."""
    return FunctionCall(
        call_id=call.call_id if call_id is None else call_id,
        name=call.name,
        arguments=call.arguments if call.arguments.strip() else "{}",
        extra=dict(call.extra or {}),
        group_id=group_id,
    )


@checked(timeout=SECONDS.optional)
async def execute_function_call(
    tool_call: FunctionToolCall | FunctionCall,
    tool_ctx: ToolContext,
    *,
    call_ctx: object | None = None,
    timeout: float | None = None,
) -> FunctionCallResult:
    """Run one tool call: read its arguments, call the function, return an output for the model.

    The result always holds an output: the returned value as text; the text of a `ToolError`; a
    general text for any other exception, whose details are logged and not sent to the model; or an
    explanation if the arguments do not fit, the tool does not exist, or it took too long.

    Args:
        tool_call: the call, from a chunk or from the history.
        tool_ctx: the available tools.
        call_ctx: value of context parameters; default a `RunContext` of this call.
        timeout: seconds the tool may take, if it sets no limit of its own.

    Raises:
        asyncio.CancelledError: the caller was cancelled; the tool was cancelled with it.
    """
    from rejoinder.telemetry import ToolSpan

    call = tool_call if isinstance(tool_call, FunctionCall) else to_function_call(tool_call)
    with ToolSpan(call, asyncio.get_running_loop().time) as span:
        result = await _execute(call, tool_ctx, call_ctx, timeout)
        span.end(result.fnc_call_out, result.raw_exception)
    return result


async def _execute(
    call: FunctionCall, tool_ctx: ToolContext, call_ctx: object | None, timeout: float | None
) -> FunctionCallResult:
    if not call.arguments.strip():
        call.arguments = "{}"
    tool = tool_ctx.get_function_tool(call.name)
    if tool is None:
        text = tool_ctx.unknown_tool(call.name)
        return make_function_call_output(
            fnc_call=call, output=None, exception=ValueError(text), message=text
        )
    options = get_tool_options(tool)
    if call_ctx is None:
        call_ctx = RunContext(call, interruptible=options.interruptible)
    try:
        prepare = partial(_prepared_arguments, tool, call, call_ctx)
        if len(call.arguments) > _LARGE:
            args, kwargs = await in_thread(partial(_alone, prepare), name="rejoinder-arguments")
        else:
            args, kwargs = prepare()
    except ToolError as error:
        return make_function_call_output(fnc_call=call, output=None, exception=error)
    except Exception as error:
        return _failed(call, error)

    seconds = options.timeout if options.timeout is not None else timeout
    threaded = runs_in_thread(tool)
    work = _call(tool, args, kwargs, threaded=threaded)
    try:
        output = await (work if seconds is None else _within(work, seconds, call.name))
    except _TimeUpError as error:
        what = "still runs in the background" if threaded else "was stopped"
        text = (
            f"`{call.name}` did not finish within {seconds:g} s and {what}. "
            "It may have had an effect already"
        )
        logger.warning("the tool %r did not finish within %g s", call.name, seconds)
        return make_function_call_output(fnc_call=call, output=None, exception=error, message=text)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return _failed(call, error)  # something inside the tool was cancelled, not this task
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return _failed(call, error)
    answer = partial(make_function_call_output, fnc_call=call, output=output, exception=None)
    if _holds_many(output):
        with contextlib.suppress(RuntimeError):  # another thread changes it meanwhile
            return await in_thread(answer, name="rejoinder-output")
    return answer()


def _alone(work: Callable[[], T]) -> T:
    """Call `work()` and return its failure without the values that its frames hold. Freeing millions
    of values takes as long as reading them, so they are freed here, in the thread."""
    try:
        return work()
    except ToolError as error:
        failure = error.with_traceback(None)
        failure.__cause__ = failure.__context__ = None
    raise failure


def _holds_many(value: Any) -> bool:
    """Whether converting `value` to text takes long."""
    pending: list[Any] = [value]
    count = 1
    while pending:
        one = pending.pop()
        if one is None or isinstance(one, str | bytes | int | float):
            continue
        if isinstance(one, dict):
            members: Any = cast("dict[Any, Any]", one).values()
        elif isinstance(one, list | tuple | set | frozenset):
            members = cast("Any", one)
        elif hasattr(one, "__dict__"):
            members = cast("dict[str, Any]", vars(one)).values()
        else:
            continue
        count += len(members)
        if count > _MANY:
            return True
        pending += members
    return False


def can_run(tool: FunctionTool | RawFunctionTool, call: FunctionCall, call_ctx: object) -> bool:
    """Whether the arguments of `call` fit `tool`. Rewrites them as clean JSON."""
    try:
        prepare_function_arguments(fnc=tool, json_arguments=call.arguments, call_ctx=call_ctx)
    except Exception:
        return False
    finally:
        _canonicalise(call)
    return True


_LARGE = 8_192
"""From this many characters on, arguments are read in a thread: in the worst case, mending takes 5
microseconds for each."""
_MANY = 2_000
"""From this many values on, an output is converted in a thread: each takes up to 5 microseconds."""


def _prepared_arguments(
    tool: FunctionTool | RawFunctionTool, call: FunctionCall, call_ctx: object
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments for `tool`. Rewrites those of `call` as clean JSON if they can be read."""
    try:
        found = prepare_function_arguments(
            fnc=tool, json_arguments=call.arguments, call_ctx=call_ctx
        )
    except ToolError:
        _canonicalise(call)
        raise
    _canonicalise(call)
    return found


def runs_in_thread(tool: Callable[..., Any]) -> bool:
    """Whether `tool` runs in a worker thread, where nothing can stop it."""
    return get_tool_options(tool).threaded and not inspect.iscoroutinefunction(tool)


async def _call(
    tool: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, threaded: bool
) -> Any:
    if threaded:
        # Not in the loop's thread pool: a few hanging tools would fill it, and DNS lookups need it.
        value = await in_thread(partial(tool, *args, **kwargs), name="rejoinder-tool")
    else:
        value = tool(*args, **kwargs)
    if inspect.isawaitable(value):
        return await value
    return value


class _TimeUpError(TimeoutError):
    """Our own time limit has passed, not a timeout inside the tool."""


_STOP_TIMEOUT = 1.0
"""Seconds that a tool has to end after it was cancelled."""
_deaf: set[asyncio.Task[Any]] = set()
"""Tools that did not end when they were cancelled; referenced so that they are not garbage-collected."""


async def _within(work: Coroutine[Any, Any, Any], seconds: float, name: str) -> Any:
    # In a separate task, because a tool that ignores its cancellation can only be left behind.
    task = asyncio.get_running_loop().create_task(_contained(work), name=f"tool {name}")
    try:
        await unfinished([task], seconds)
    except asyncio.CancelledError:
        await _stop(task)
        raise
    if not task.done():
        await _stop(task)
        if not task.done() or task.cancelled():
            raise _TimeUpError(f"the tool {name!r} did not finish within {seconds:g} s")
    output, error = task.result()
    if error is not None:
        raise error
    return output


async def _contained(
    work: Coroutine[Any, Any, Any],
) -> tuple[Any, KeyboardInterrupt | SystemExit | None]:
    # asyncio would raise these exceptions out of the event loop.
    try:
        return await work, None
    except (KeyboardInterrupt, SystemExit) as error:
        return None, error


async def _stop(task: asyncio.Task[Any]) -> None:
    _deaf.add(task)
    task.add_done_callback(_heard)
    await end(task, within=_STOP_TIMEOUT)


def _heard(task: asyncio.Task[Any]) -> None:
    _deaf.discard(task)
    if not task.cancelled():
        task.exception()  # mark as retrieved, or asyncio logs it


def _failed(call: FunctionCall, error: BaseException) -> FunctionCallResult:
    return make_function_call_output(fnc_call=call, output=None, exception=error)


def _canonicalise(call: FunctionCall) -> None:
    """Rewrite arguments that are not plain JSON, so that they can be sent back to any provider."""
    from rejoinder._core.arguments import canonical_arguments

    call.arguments = canonical_arguments(call.arguments)


def _message_of(name: str, error: ToolError) -> str:
    """The text of `error` for the model. Its message may be an object of any type."""
    try:
        return str(error.message)
    except Exception:
        logger.exception("the message of the ToolError of %r cannot be shown as text", name)
        return f"`{name}` failed, and its message cannot be shown as text"


@checked()
def make_function_call_output(
    *,
    fnc_call: FunctionCall,
    output: Any,
    exception: BaseException | None,
    message: str | None = None,
) -> FunctionCallResult:
    """Make the output for the model from a tool's return value or exception.

    Args:
        fnc_call: the call that is answered.
        output: the return value of the tool.
        exception: the exception that it raised, if any.
        message: the text for the model, instead of the general text for `exception`.
    """
    if exception is None and isinstance(output, BaseException):
        output, exception = None, output
    text, is_error, reply_required = "", False, True
    images: list[ImageContent] = []
    if exception is not None:
        match exception:
            case ToolError():
                text, is_error = _message_of(fnc_call.name, exception), True
            case StopResponse():
                reply_required = False
            case _:
                is_error = True
                text = message or (
                    f"`{fnc_call.name}` failed with an internal error. "
                    "Calling it again in the same way may not help"
                )
                if message is None:
                    logger.error("the tool %r failed", fnc_call.name, exc_info=exception)
    else:
        try:
            text = _as_text(output)
            images = _pictures_in(output)
        except _NoTextError:
            is_error = True
            text = (
                f"`{fnc_call.name}` was run, but its result ({type(output).__name__}) cannot be "
                "shown as text"
            )
            logger.error(
                "the tool %r returned %s: expected text, numbers, lists, dicts, a pydantic model or "
                "a dataclass",
                fnc_call.name,
                type(cast("object", output)),
            )
    return FunctionCallResult(
        fnc_call=fnc_call,
        fnc_call_out=FunctionCallOutput(
            name=fnc_call.name,
            call_id=fnc_call.call_id,
            output=text,
            is_error=is_error,
            reply_required=reply_required,
            images=images,
        ),
        raw_output=output,
        raw_exception=exception,
    )


class _NoTextError(Exception):
    """The value has no text form that is useful to a model."""


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, ImageContent):
        return _address_of(value)
    if _has_pictures(value):
        return "\n".join(map(_told, cast("list[Any]", value)))
    if _is_plain(value):
        try:
            return str(value)
        except Exception as error:  # a subclass of str or int may define __str__
            raise _NoTextError from error
    from rejoinder._core.arguments import structured_text

    text = structured_text(value)
    if text is None:
        raise _NoTextError
    return text


_MAX_PICTURES: Final = 20
"""Maximum pictures of one result. With more, Claude accepts only smaller ones."""


def _has_pictures(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(
        isinstance(part, ImageContent) for part in cast("list[Any]", value)
    )


def _told(part: Any) -> str:
    """A part of a result in words. A picture is sent beside the words, so it is only named in them."""
    if not isinstance(part, ImageContent):
        return _as_text(part)
    address = _address_of(part)
    return f"({address[5:].partition(';')[0]})" if address.startswith("data:") else address


def _pictures_in(value: Any) -> list[ImageContent]:
    if isinstance(value, TextWithPictures):
        return value.images[:_MAX_PICTURES]
    if not _has_pictures(value):
        return []
    parts = [part for part in cast("list[Any]", value) if isinstance(part, ImageContent)]
    pictures = [ImageContent(image=_address_of(part)) for part in parts[:_MAX_PICTURES]]
    return [picture for picture in pictures if str(picture.image).startswith("data:")]


def _address_of(image: ImageContent) -> str:
    """A picture as text: its URL, or a ``data:`` URL, which formats send as a picture."""
    from rejoinder._core.images import serialize_image
    from rejoinder._core.pictures import data_url

    try:
        found = serialize_image(image)
        return found.external_url or data_url(found.data_bytes or b"", found.mime_type)
    except (ValueError, TypeError, ImportError) as error:
        raise _NoTextError from error


def _is_plain(value: Any, depth: int = 0) -> bool:
    if value is None or isinstance(value, str | int | float | complex):
        return True
    if depth > 32:
        return False
    if isinstance(value, list | tuple | set | frozenset):
        return all(_is_plain(item, depth + 1) for item in cast("list[Any]", value))
    if isinstance(value, dict):
        return all(
            isinstance(key, str | int | float | complex | type(None)) and _is_plain(item, depth + 1)
            for key, item in cast("dict[Any, Any]", value).items()
        )
    return False
