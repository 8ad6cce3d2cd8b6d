"""Converts the JSON that a model wrote to the values with which a function is called.

Law: text in, values out; the function is never called here. The only failure is `ToolError`, whose text
is written for the model: the place, the expected value and the given one. Invalid JSON is mended only if
its meaning is unambiguous, and never if it was cut off.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from rejoinder._core.feedback import complaints, cut, kind_of, path_of, shown, unknown_names
from rejoinder._core.fitting import Fitter
from rejoinder._core.json_values import MAX_VALUES, is_crowded_text
from rejoinder._core.mending import BROKEN, QUOTED, repair_json, unquoted, unwrapped
from rejoinder._core.schema import Plan
from rejoinder._core.tools import RunContext, ToolError

__all__ = [
    "bind_arguments",
    "bind_raw_arguments",
    "canonical_arguments",
    "parse_arguments",
    "structured_text",
    "validate_arguments",
]

# ---------------------------------------------------------------------------------------------
# text -> object


def parse_arguments(text: str | bytes, *, tool: str = "") -> dict[str, Any]:
    """The arguments as an object.

    A JSON ``null`` becomes an empty object; an object inside a JSON string is unwrapped; broken JSON
    is mended if that is unambiguous; Gemma's quotes around texts are removed.

    Raises:
        ToolError: the text is not a JSON object.
        TypeError: `text` is neither a string nor bytes.
    """
    if not isinstance(text, str | bytes | bytearray):
        raise TypeError(f"arguments of a tool: expected JSON text, got {type(text).__name__}")
    if is_crowded_text(bytes(text) if isinstance(text, bytearray) else text):
        # Parsers in C let no other thread run until they are done, so they would block the event loop
        # from any thread.
        raise ToolError(
            f"The arguments{_of(tool)} hold more than {MAX_VALUES} values. "
            "Give fewer at a time, in several calls"
        )
    value = _loads(text, tool)
    value = unwrapped(value)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ToolError(
            f'The arguments{_of(tool)} must be a JSON object like {{"name": value}}, '
            f"got {kind_of(value)}: {shown(value)}"
        )
    if QUOTED in text if isinstance(text, str) else QUOTED.encode() in text:
        value = unquoted(value)
    return cast("dict[str, Any]", value)


def _loads(text: str | bytes | bytearray, tool: str) -> Any:
    try:
        return from_json(text)
    except ValueError as error:
        written = text if isinstance(text, str) else text.decode("utf-8", "replace")
        value = repair_json(written)
        if value is not BROKEN:
            return value
        reason = str(error)
    if not written.strip():
        raise ToolError(
            f"The arguments{_of(tool)} are empty; write a JSON object, or {{}} for no arguments"
        ) from None
    raise ToolError(
        f"The arguments{_of(tool)} are not valid JSON ({reason}): {cut(written)}\n"
        "Write one complete JSON object with double quotes around names and texts"
    ) from None


def _of(tool: str) -> str:
    return f" of `{tool}`" if tool else ""


# ---------------------------------------------------------------------------------------------
# object -> values


def validate_arguments(plan: Plan, text: str | bytes, *, tool: str = "") -> dict[str, Any]:
    """The values by parameter name, with defaults, without context parameters.

    A null for a parameter that does not allow null means "use the default". pydantic converts values
    (``"7"`` becomes 7 for an int); unknown names are ignored.

    Raises:
        ToolError: the arguments do not fit.
    """
    values = _validate(plan, text, tool)
    return {p.name: values[p.field] for p in plan.parameters if p.context is None}


def _validate(plan: Plan, text: str | bytes, tool: str) -> Mapping[str, Any]:
    validator = plan.model.__pydantic_validator__
    as_text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    misfit: ValidationError | None = None
    try:
        if (
            isinstance(as_text, str)
            and as_text[:1] == "{"
            and "null" not in as_text
            and QUOTED not in as_text
            and not plan.renames
            and not is_crowded_text(as_text)
        ):
            # The usual case: one pass, parsing and validating together.
            try:
                return validator.validate_json(as_text).__dict__
            except ValidationError as error:
                if not _is_no_json(error):
                    misfit = error.with_traceback(None)
        data, changed = _fitter(plan).fit(parse_arguments(text, tool=tool))
        if misfit is not None and not changed:
            raise ToolError(_explain(misfit, data, plan, tool)) from misfit
    finally:
        misfit = None  # break the cycle between the error and this frame
    try:
        # Through JSON, because a strict field accepts, e.g., a date as text only from JSON.
        return validator.validate_json(to_json(data, inf_nan_mode="constants")).__dict__
    except ValidationError as error:
        raise ToolError(_explain(error, data, plan, tool)) from error


def _is_no_json(error: ValidationError) -> bool:
    return error.error_count() == 1 and error.errors(include_url=False)[0]["type"] == "json_invalid"


def _fitter(plan: Plan) -> Fitter:
    if plan.fitter is None:
        plan.fitter = Fitter(plan.schema)
    return plan.fitter


def _explain(error: ValidationError, data: Mapping[str, Any], plan: Plan, tool: str) -> str:
    lines = [
        f"The arguments{_of(tool or plan.name)} do not fit:",
        *complaints(error, plan.schema),
    ]
    known = [parameter.key for parameter in plan.parameters if parameter.context is None]
    if any(key not in data for key in known):
        # An unknown name may be a misspelt missing one.
        lines += unknown_names(data, known)
    return "\n".join(lines)


def bind_arguments(
    plan: Plan, text: str | bytes, *, call_ctx: object | None = None, tool: str = ""
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments for the function of `plan`; see `validate_arguments`.

    Raises:
        ToolError: the arguments do not fit.
        TypeError: nothing provides a value for a required context parameter.
    """
    if plan.unbound:
        raise TypeError(
            f"tool `{tool or plan.name}` is a method of a class: pass the method of an instance"
        )
    return _bind(plan, _validate(plan, text, tool), call_ctx)


def _bind(
    plan: Plan, values: Mapping[str, Any], call_ctx: object | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for parameter in plan.parameters:
        kind = parameter.kind
        if parameter.context is not None:
            value: Any = _context(
                plan.name, parameter.name, parameter.default, parameter.context, call_ctx
            )
        else:
            value = values[parameter.field]
        if kind is inspect.Parameter.VAR_POSITIONAL:
            args.extend(value)
        elif kind is inspect.Parameter.VAR_KEYWORD:
            _refuse_taken(plan, parameter.key, value)
            kwargs.update(value)
        elif kind is inspect.Parameter.KEYWORD_ONLY:
            kwargs[parameter.name] = value
        else:
            args.append(value)
    return tuple(args), kwargs


def _refuse_taken(plan: Plan, key: str, more: Mapping[str, Any]) -> None:
    """Raise an error if further keywords give a parameter a second value."""
    for parameter in plan.parameters:
        if parameter.name in more and parameter.kind is not inspect.Parameter.POSITIONAL_ONLY:
            raise ToolError(
                f"The arguments{_of(plan.name)} do not fit:\n"
                f"- {path_of((key, parameter.name))}: give this argument as {path_of((parameter.key,))}"
            )


def _context(tool: str, name: str, default: Any, wanted: type[Any], call_ctx: object | None) -> Any:
    # A subclass has attributes that not every context has; `RunContext` itself accepts any context.
    special = wanted is not RunContext and issubclass(wanted, RunContext)
    if call_ctx is not None and (not special or isinstance(call_ctx, wanted)):
        return call_ctx
    if default is not inspect.Parameter.empty:
        return default
    got = "nothing" if call_ctx is None else f"a {type(call_ctx).__name__}"
    raise TypeError(
        f"tool `{tool}`, parameter `{name}`: expected a {wanted.__name__}, got {got}; set "
        "its value when the tool is run (`call_ctx=`, or `make_context=` of a turn)"
    )


def bind_raw_arguments(
    function: Callable[..., Any],
    text: str | bytes,
    *,
    contexts: Mapping[str, type[Any]],
    fitter: Fitter | None = None,
    call_ctx: object | None = None,
    tool: str = "",
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Like `bind_arguments` for a raw tool, which gets the whole object as ``raw_arguments``.

    Args:
        contexts: its context parameters, by name.
        fitter: fitter of its schema; without one, the arguments stay unchanged.
    """
    given = parse_arguments(text, tool=tool)
    if fitter is not None:
        given, _ = fitter.fit(given)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    parameters = inspect.signature(function).parameters
    for name, parameter in parameters.items():
        kind = parameter.kind
        if name == "raw_arguments":
            value: Any = given
        elif name in contexts:
            value = _context(tool, name, parameter.default, contexts[name], call_ctx)
        elif kind is parameter.VAR_POSITIONAL:
            continue
        elif kind is parameter.VAR_KEYWORD:
            if "raw_arguments" not in parameters:
                kwargs["raw_arguments"] = given
            continue
        elif parameter.default is not parameter.empty:
            value = parameter.default
        else:
            raise TypeError(
                f"raw tool `{tool}`, parameter `{name}`: expected a default or a RunContext, "
                "because nothing provides its value"
            )
        if kind is parameter.KEYWORD_ONLY:
            kwargs[name] = value
        else:
            args.append(value)
    return tuple(args), kwargs


# ---------------------------------------------------------------------------------------------
# texts


def canonical_arguments(text: str) -> str:
    """`text` itself if it is a JSON object or cannot be read; otherwise the intended object, as
    JSON."""
    if is_crowded_text(text):
        return text
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError:
        pass
    else:
        if isinstance(value, dict):
            return text
    try:
        return _compact(parse_arguments(text))
    except ToolError:
        return text


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def structured_text(value: Any) -> str | None:
    """The JSON of models, dataclasses, dates and lists of these; ``None`` if JSON cannot express the
    value."""
    try:
        return to_json(value, by_alias=True).decode()
    except (ValueError, TypeError, RecursionError):
        return None
