"""Values for tools: exceptions, options, descriptions, and the context of a run.

Nothing here runs a tool, builds a schema or knows an event loop. `rejoinder.llm.tool_context` re-exports
the public names.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, NotRequired, TypeAlias

from typing_extensions import TypedDict, TypeVar

from rejoinder._core.items import FunctionCall
from rejoinder._options import checked

if TYPE_CHECKING:
    from rejoinder._core.fitting import Fitter
    from rejoinder._core.frozen import Frozen

__all__ = [
    "Function",
    "FunctionToolInfo",
    "NamedToolChoice",
    "RawFunctionDescription",
    "RawFunctionToolInfo",
    "RunContext",
    "StopResponse",
    "ToolChoice",
    "ToolError",
    "ToolFlag",
    "ToolOptions",
]


class Function(TypedDict):
    """Names the function of a `NamedToolChoice`."""

    name: str


class NamedToolChoice(TypedDict):
    """The model must call this function."""

    type: Literal["function"]
    function: Function


ToolChoice: TypeAlias = NamedToolChoice | Literal["auto", "required", "none"]


class RawFunctionDescription(TypedDict):
    """A tool with a handwritten description."""

    name: str
    description: NotRequired[str | None]
    parameters: dict[str, object]


class ToolError(Exception):
    """Raised (or returned) by a tool: the model receives `message`."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self._message = message

    @property
    def message(self) -> str:
        return self._message


class StopResponse(Exception):
    """Raised (or returned) by a tool: the call is answered, and the model is not asked again."""

    def __init__(self) -> None:
        super().__init__()


class ToolFlag(enum.Flag):
    """Marks for a session layer. Accepted and kept; nothing in this package acts on them."""

    NONE = 0
    IGNORE_ON_ENTER = enum.auto()
    CANCELLABLE = enum.auto()


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """How one tool is run.

    Attributes:
        timeout: maximum seconds of one run; ``None`` for no limit.
        interruptible: whether an interruption may cancel a run. A tool that is not interruptible
            finishes in the background, and its result still enters the conversation.
        threaded: run a plain (not ``async``) function in a worker thread, so that it may block.
        effects: whether a run may change anything. ``run_turn(approve=...)`` does not ask about a
            tool without effects.
    """

    timeout: float | None = None
    interruptible: bool = True
    threaded: bool = False
    effects: bool = True

    def __post_init__(self) -> None:
        timeout: object = self.timeout
        if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
            raise ValueError(
                f"timeout of a tool: expected seconds greater than 0, got {self.timeout!r}"
            )


Descriptions: TypeAlias = dict[tuple[Any, ...], "tuple[object, Frozen]"]
"""Cached descriptions of one tool for providers, by dialect and options, with their source."""


@dataclass(slots=True)
class FunctionToolInfo:
    """The information of the decorator about a function tool."""

    name: str
    description: str | None


@dataclass(slots=True)
class RawFunctionToolInfo:
    """The information of the decorator about a raw function tool."""

    name: str
    raw_schema: dict[str, Any]
    """Read only when it is first sent. Replace it; do not change it."""
    descriptions: Descriptions = field(
        default_factory=Descriptions, init=False, repr=False, compare=False
    )
    fitter: tuple[object, Fitter] | None = field(
        default=None, init=False, repr=False, compare=False
    )
    """The fitter of the schema beside it."""


Userdata_T = TypeVar("Userdata_T", default=Any)


class RunContext(Generic[Userdata_T]):
    """Given to a tool that has a parameter of this type (or of a subclass of it).

    The parameter is not part of the schema, so the model neither sees nor fills it.
    """

    @checked()
    def __init__(
        self,
        function_call: FunctionCall | None = None,
        *,
        userdata: Userdata_T = None,  # type: ignore[assignment]  # the type of "none given"
        interruptible: bool = True,
    ) -> None:
        self._function_call = function_call
        self._userdata = userdata
        self._interruptible = interruptible

    @property
    def userdata(self) -> Userdata_T:
        """The application's own object, the same for every call of a turn.

        Raises:
            ValueError: if the turn was started without one.
        """
        if self._userdata is None:
            raise ValueError(
                "RunContext.userdata: no userdata was passed; pass `userdata=` when the turn starts"
            )
        return self._userdata

    @property
    def function_call(self) -> FunctionCall:
        """The call that is being run.

        Raises:
            ValueError: if the context was made without a call.
        """
        if self._function_call is None:
            raise ValueError("RunContext.function_call: this context belongs to no call")
        return self._function_call

    @property
    def idempotency_key(self) -> str:
        """32 hexadecimal characters that are the same whenever this call is run.

        Pass it to a service that accepts an idempotency key, so that running the call again (after a
        crash, from a stored history) does not repeat its effect.
        """
        return idempotency_key(self.function_call)

    @property
    def interruptible(self) -> bool:
        """Whether an interruption may still cancel this run."""
        return self._interruptible

    def disallow_interruptions(self) -> None:
        """Let the run finish in any case from now on. Call it before a side effect."""
        self._interruptible = False


def idempotency_key(call: FunctionCall) -> str:
    """The same text for the same call item, even in another process."""
    text = f"{call.id}\0{call.call_id}\0{call.name}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
