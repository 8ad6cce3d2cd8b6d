"""Checks options at the call, so that a wrong one does not fail later.

A `Rule` defines what an option may be. The types come from the annotations, the ranges from rules::

    @checked(max_steps=COUNT, tool_timeout=SECONDS.optional)
    def run(llm: LLM, *, max_steps: int = 8, tool_timeout: float | None = None) -> None: ...

A wrong value raises at the call, with a message that names the option, the expected value and the given
one. Pure, except for reading annotations.
"""

from __future__ import annotations

import builtins
import collections.abc
import dataclasses
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar, Union, cast

import typing_extensions

from rejoinder._secrets import forget_frames, is_secret_name
from rejoinder._sections import explained
from rejoinder.errors import ConfigurationError
from rejoinder.types import APIConnectOptions, NotGiven

__all__ = [
    "AMOUNT",
    "ANYTHING",
    "LIST",
    "CONNECT",
    "COUNT",
    "FLAG",
    "FUNCTION",
    "MILLISECONDS",
    "MOMENT",
    "NAME",
    "NUMBER",
    "PAUSE",
    "SECONDS",
    "SHARE",
    "STRING",
    "WHOLE",
    "Rule",
    "WrongTypeError",
    "check",
    "check_fields",
    "checked",
    "instance",
    "mapping",
    "one_of",
    "rule_of",
    "unknown_option",
]

F = TypeVar("F", bound=Callable[..., Any])
Test: TypeAlias = Callable[[Any], bool]

_ABSENT: Final = (types.NoneType, NotGiven)

_MAY_HOLD_KEYS: Final = frozenset(
    {"args", "base_url", "env", "extra_kwargs", "headers", "options", "proxy", "spec", "url"}
)
"""Names of options, beside those of credentials, whose values may hold some."""
_MAX_SHOWN: Final = 24
"""Characters of a wrong string that are shown: keys are longer."""
_MAX_MEMBERS: Final = 100
"""Maximum number of members of a list or dict that are checked."""


class WrongTypeError(ConfigurationError, TypeError):
    """An option has a value of the wrong type."""


def _always(_: object) -> bool:
    return True


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """The valid values of an option.

    Attributes:
        expected: completes the sentence "expected ...".
        type_fits: whether a value has the right type.
        value_fits: whether a value of the right type is in range.
        absent: types that mean "not given", and are accepted too.
        kinds: classes whose every instance fits; they are recognised without a call.
    """

    expected: str
    type_fits: Test
    value_fits: Test = _always
    absent: tuple[type[Any], ...] = ()
    kinds: tuple[type[Any], ...] = ()

    @property
    def optional(self) -> Rule:
        """The same rule, which also accepts ``None`` and ``NOT_GIVEN``."""
        return _optional(self)

    def check(self, option: str, value: object) -> None:
        """Refuse `value` if it does not fit.

        Args:
            option: names the option; its last word decides whether the value may be shown.

        Raises:
            ConfigurationError: the value is out of range; a `WrongTypeError` if its type is wrong.
        """
        if not self.fits(value):
            error = ConfigurationError if self.type_fits(value) else WrongTypeError
            raise error(f"{option}: expected {self.expected}, got {_shown(option, value)}")

    def fits(self, value: object) -> bool:
        """Whether `value` is right."""
        if self.type_fits(value):
            return self.value_fits is _always or self.value_fits(value)
        return isinstance(value, self.absent)


@functools.lru_cache(maxsize=256)
def _optional(rule: Rule) -> Rule:
    # First the classes that need no check of their bases.
    return replace(rule, absent=_ABSENT, kinds=(*_ABSENT, *rule.kinds))


def check(where: str, /, **options: tuple[object, Rule]) -> None:
    """Refuse the first of `options`, each a value and its rule, that does not fit.

    Raises:
        ConfigurationError: see `Rule.check`.
    """
    for name, (value, rule) in options.items():
        if not isinstance(value, rule.kinds) and not rule.fits(value):
            rule.check(f"{where}.{name}", value)


def _shown(option: str, value: Any) -> str:
    kind = type(value).__name__
    name = option.rpartition(".")[2]
    if name in _MAY_HOLD_KEYS or (is_secret_name(name) and not name.startswith("max_")):
        return f"a value of type {kind}"
    if value is None or isinstance(value, bool | int | float | NotGiven):
        return repr(value)
    if isinstance(value, str):
        return repr(value) if len(value) <= _MAX_SHOWN else f"a string of {len(value)} characters"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, list | tuple):
        members = dict.fromkeys(type(member).__name__ for member in _first(value))
        return f"a {kind} of {', '.join(members)}" if members else f"an empty {kind}"
    return f"a value of type {kind}"


# -- rules --------------------------------------------------------------------------------------


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_string(value: object) -> bool:
    return isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


STRING: Final = Rule("a string", _is_string, kinds=(str,))
NAME: Final = Rule("a string that is not blank", _is_string, lambda text: bool(text.strip()))
FLAG: Final = Rule("True or False", _is_flag, kinds=(bool,))
NUMBER: Final = Rule("a finite number", _is_number, math.isfinite)
AMOUNT: Final = Rule("a number of at least 0", _is_number, lambda number: number >= 0)
PAUSE: Final = Rule(
    "a finite number of at least 0", _is_number, lambda number: 0 <= number < math.inf
)
MILLISECONDS: Final = Rule(
    "milliseconds of at least 0", _is_number, lambda number: 0 <= number < math.inf
)
MOMENT: Final = Rule("milliseconds", _is_number, lambda number: not math.isnan(number))
"""A position in a playback. It may be before the beginning, or infinite."""
SECONDS: Final = Rule("seconds greater than 0", _is_number, lambda number: number > 0)
SHARE: Final = Rule("a number from 0 to 1", _is_number, lambda number: 0 <= number <= 1)
WHOLE: Final = Rule("a whole number of at least 0", _is_whole, lambda number: number >= 0)
COUNT: Final = Rule("a whole number of at least 1", _is_whole, lambda number: number >= 1)
FUNCTION: Final = Rule("a function", callable)
LIST: Final = Rule(
    "a list", lambda value: isinstance(value, Sequence) and not isinstance(value, str | bytes)
)
ANYTHING: Final = Rule("anything", _always)


def instance(*classes: type[Any], expected: str | None = None) -> Rule:
    """An instance of one of `classes`."""
    return Rule(
        expected or " or ".join(map(_named, classes)),
        _Instance(classes),
        kinds=classes,
    )


def one_of(*values: object) -> Rule:
    """One of `values`."""
    kinds = tuple({type(value) for value in values})
    return Rule(
        f"one of {', '.join(map(repr, values))}",
        lambda value: type(value) in kinds,
        lambda value: value in values,
    )


def mapping(expected: str = "a dict with strings as keys") -> Rule:
    """A mapping with strings as keys."""
    return Rule(expected, _is_mapping, lambda value: all(isinstance(key, str) for key in value))


@dataclass(frozen=True, slots=True)
class _Instance:
    classes: tuple[type[Any], ...]

    def __call__(self, value: object) -> bool:
        return isinstance(value, self.classes)


def _named(kind: type[Any]) -> str:
    name = kind.__name__
    return f"{'an' if name[0] in 'AEIOaeio' or name.startswith('LLM') else 'a'} {name}"


CONNECT: Final = instance(APIConnectOptions)


# -- rules from annotations ---------------------------------------------------------------------

_CALLABLE: Final[Any] = collections.abc.Callable
_PLAIN: Final[dict[object, Rule]] = {
    str: STRING,
    bool: FLAG,
    int: Rule("a whole number", _is_whole),
    float: Rule("a number", _is_number),
    bytes: Rule("bytes", _Instance((bytes, bytearray, memoryview))),
    None: Rule("None", lambda value: value is None),
    types.NoneType: Rule("None", lambda value: value is None),
}


def rule_of(hint: Any) -> Rule | None:
    """The rule for values of an annotation; ``None`` if it excludes nothing, or cannot be checked.

    Members of lists and values of mappings are checked too.
    """
    if hint in (Any, object):
        return None
    if hint is None or (isinstance(hint, type) and hint in _PLAIN):
        return _PLAIN[hint]
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin is Annotated:
        return rule_of(arguments[0])
    if origin is Literal:
        return one_of(*arguments)
    if origin in (Union, types.UnionType):
        return _any_of([rule_of(member) for member in arguments if member is not NotGiven],
                       lacks=NotGiven in arguments)  # fmt: skip
    if _CALLABLE in (origin, hint):
        return FUNCTION
    if origin is type:
        return Rule("a class", _Instance((type,)))
    if isinstance(origin, type):
        return _container(origin, arguments)
    if typing_extensions.is_typeddict(hint):
        return mapping()
    if not isinstance(hint, type) or hint is _Unknown:
        return None
    kind = cast("type[Any]", hint)
    if _is_only_for_checkers(kind):
        return None
    iterable = issubclass(kind, collections.abc.Iterable)
    return _container(hint, ()) if iterable else instance(hint)


def _is_only_for_checkers(kind: type[Any]) -> bool:
    """Whether `kind` is a protocol that `isinstance` refuses."""
    try:
        isinstance(None, kind)
    except TypeError:
        return True
    return False


def _may_be_absent(hint: Any) -> bool:
    members = typing.get_args(hint)
    return types.NoneType in members or NotGiven in members


def _any_of(rules: list[Rule | None], *, lacks: bool) -> Rule | None:
    known = [rule for rule in rules if rule is not None]
    if len(known) < len(rules):
        return None
    if len(known) == 1:
        return known[0].optional if lacks else known[0]
    names = list(dict.fromkeys(rule.expected for rule in known))
    rule = Rule(
        " or ".join(names),
        _AnyType(tuple(known)),
        _AnyValue(tuple(known)),
        kinds=tuple(kind for rule in known for kind in rule.kinds),
    )
    return rule.optional if lacks else rule


@dataclass(frozen=True, slots=True)
class _AnyType:
    rules: tuple[Rule, ...]

    def __call__(self, value: object) -> bool:
        return any(rule.type_fits(value) for rule in self.rules)


@dataclass(frozen=True, slots=True)
class _AnyValue:
    rules: tuple[Rule, ...]

    def __call__(self, value: object) -> bool:
        return any(rule.type_fits(value) and rule.value_fits(value) for rule in self.rules)


_CONTAINERS: Final[dict[type[Any], str]] = {
    collections.abc.Mapping: "a dict",
    collections.abc.MutableMapping: "a dict",
    collections.abc.Sequence: "a list",
    collections.abc.Iterable: "an iterable",
    collections.abc.Collection: "a list",
}


def _container(kind: Any, arguments: tuple[Any, ...]) -> Rule:
    expected = _CONTAINERS.get(kind) or _named(kind)
    members: tuple[Rule | None, ...] = ()
    if issubclass(kind, Mapping):
        members = tuple(map(rule_of, arguments))
    elif arguments and (arguments[1:] == (...,) or kind is not tuple):
        members = (rule_of(arguments[0]),)
    if len(members) == 2 and members[1] is not None:
        expected += f" whose values are {members[1].expected}"
    elif len(members) == 1 and members[0] is not None:
        expected += f" of {members[0].expected}"
    return Rule(expected, _Container(cast("Any", kind), members))


@dataclass(frozen=True, slots=True)
class _Container:
    kind: type[Any]
    members: tuple[Rule | None, ...]

    def __call__(self, value: Any) -> bool:
        if not isinstance(value, self.kind):
            return False
        if isinstance(value, str | bytes | bytearray):
            # One string is a sequence of strings, and never meant as one.
            return issubclass(self.kind, str | bytes | bytearray)
        match self.members:
            case (Rule() as rule,):
                # An iterator can be read only once, so it must not be read here.
                known = isinstance(value, collections.abc.Collection)
                return not known or all(map(rule.type_fits, _first(value)))
            case (keys, values):
                return all(
                    (keys is None or keys.type_fits(key))
                    and (values is None or values.type_fits(value[key]))
                    for key in _first(value)
                )
            case _:
                return True


def _first(members: Any) -> list[Any]:
    return [member for member, _ in zip(members, range(_MAX_MEMBERS), strict=False)]


# -- checked calls ------------------------------------------------------------------------------


def checked(**rules: Rule) -> Callable[[F], F]:
    """Check the arguments of a function at each call, before its body runs.

    An argument is checked by its rule, if it has one, else by its annotation. If the annotation
    accepts ``None`` or ``NOT_GIVEN``, so does the rule. Names that exist only for type checkers
    (``if TYPE_CHECKING``) accept anything, so pass a rule for them. Defaults are not checked.

    A keyword that the function does not have raises a `WrongTypeError` that suggests the closest
    name. A `ConfigurationError` of a call that takes credentials loses the frames below the caller's,
    because error reporters print their local variables.
    """
    return functools.partial(_wrap, rules=rules)


def _wrap(function: F, rules: dict[str, Rule]) -> F:
    plan = _Plan(function, rules)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        plan.check(args, kwargs)
        return function(*args, **kwargs)

    @functools.wraps(function)
    def call_discreetly(*args: Any, **kwargs: Any) -> Any:
        try:
            plan.check(args, kwargs)
            return function(*args, **kwargs)
        except ConfigurationError as caught:
            error = forget_frames(caught)
        except TypeError as caught:
            if caught.__traceback__ is not None and caught.__traceback__.tb_next is not None:
                raise  # from inside of the call
            error = WrongTypeError(explained(str(caught), "arguments"))
        del args, kwargs  # local variables of a frame that the error shows
        raise error

    @functools.wraps(function)
    async def call_async(*args: Any, **kwargs: Any) -> Any:
        plan.check(args, kwargs)
        return await function(*args, **kwargs)

    if inspect.iscoroutinefunction(function):
        return cast("F", call_async)
    return cast("F", call_discreetly if _takes_credentials(function) else call)


def _takes_credentials(function: Callable[..., Any]) -> bool:
    """Whether an argument may hold a credential."""
    code = inspect.unwrap(function).__code__
    count = code.co_argcount + code.co_kwonlyargcount
    count += bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    names = code.co_varnames[:count]
    return any(name in _MAY_HOLD_KEYS or is_secret_name(name) for name in names)


class _Plan:
    """The rules of a function; they are read from its annotations at the first call."""

    def __init__(self, function: Callable[..., Any], given: dict[str, Rule]) -> None:
        self._function = function
        self._given = given
        self._where = function.__qualname__.removesuffix(".__init__")
        self._rules: dict[str, Rule] | None = None
        self._positions: tuple[str, ...] = ()
        self._names: frozenset[str] | None = None
        """The names of all options; ``None`` if the function accepts any name."""

    def _read(self) -> dict[str, Rule]:
        rules: dict[str, Rule] = {}
        positions: list[str] = []
        function = inspect.unwrap(self._function)
        hints = _hints_of(function, function.__globals__)
        parameters = inspect.signature(self._function).parameters
        kinds = {parameter.kind for parameter in parameters.values()}
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            self._names = frozenset(list(parameters)[1:] if "self" in parameters else parameters)
        for parameter in parameters.values():
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                continue
            if parameter.kind is not parameter.KEYWORD_ONLY:
                positions.append(parameter.name)
            hint = hints.get(parameter.name, Any)
            rule = self._given.get(parameter.name)
            if rule is None:
                rule = rule_of(hint)
            elif not rule.absent and _may_be_absent(hint):
                rule = rule.optional
            if rule is not None:
                rules[parameter.name] = rule
        self._positions = tuple(positions)
        return rules

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rules = self._rules
        if rules is None:
            rules = self._rules = self._read()
        for name, value in zip(self._positions, args, strict=False):
            rule = rules.get(name)
            if rule is not None and not isinstance(value, rule.kinds) and not rule.fits(value):
                rule.check(f"{self._where}.{name}", value)
        for name, value in kwargs.items():
            rule = rules.get(name)
            if rule is None:
                if self._names is not None and name not in self._names:
                    raise unknown_option(self._where, name, self._names)
            elif not isinstance(value, rule.kinds) and not rule.fits(value):
                rule.check(f"{self._where}.{name}", value)


def unknown_option(where: str, name: str, known: Iterable[str]) -> WrongTypeError:
    """The error for an option that `where` does not have, with the closest name if there is one."""
    from difflib import get_close_matches  # rarely needed, and slow to import

    close = get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    text = f"{where}: got an unexpected keyword argument {name!r}{hint}"
    return WrongTypeError(explained(text, "arguments"))


def check_fields(options: Any, /, **rules: Rule) -> None:
    """Check the fields of a dataclass, in its ``__post_init__``: by their rules, or their types.

    Raises:
        ConfigurationError: see `Rule.check`.
    """
    kind = cast("type[Any]", type(options))
    for name, rule in {**_rules_of_fields(kind), **rules}.items():
        rule.check(f"{kind.__name__}.{name}", getattr(options, name))


@functools.cache
def _rules_of_fields(kind: type[Any]) -> dict[str, Rule]:
    hints: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        hints |= _hints_of(base, vars(inspect.getmodule(base) or builtins))
    names = [field.name for field in dataclasses.fields(kind) if field.init]
    rules = {name: rule_of(hints[name]) for name in names}
    return {name: rule for name, rule in rules.items() if rule is not None}


class _AnyName(type):
    """A namespace in which every name is `_Unknown`."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __getitem__(cls, _: object) -> Any:
        return cls


class _Unknown(metaclass=_AnyName):
    """Stands for a name that exists for type checkers only."""


class _Names(dict[str, Any]):
    def __init__(self, namespace: dict[str, Any]) -> None:
        super().__init__(namespace)

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, _Unknown)


def _hints_of(annotated: Any, namespace: dict[str, Any]) -> dict[str, Any]:
    return inspect.get_annotations(annotated, locals=_Names(namespace), eval_str=True)
