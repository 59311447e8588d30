"""Charts of vega and vega-lite that load nothing and run nothing but sums over their own data.

Pure; standard library only. vega compiles expressions to functions; its own protections were got
round several times (vega issues 3018, 3027 and 3984, advisories GHSA-4vq7-882g-wcg4, GHSA-w5m3-
xh75-mp55 and GHSA-7f2v-3qq3-vvjf), and a front end has the version that it has. So expressions pass
that are plainly harmless: literals, operators, columns, and functions from a list, in their
plainest form. A chart with anything else is refused, and the image or text beside it is shown.

Sources: https://vega.github.io/vega/docs/expressions/; vega-lite's compiler for what it writes into
expressions as it is (formatType, timeUnit, the ways to parse); vega-embed 6 for `usermeta`, whose
options load, patch and write HTML; vega-tooltip for a column named "image", which it loads.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIME = re.compile(r"application/vnd\.vega(?:lite)?\.v\d{1,2}\+json")

_SCHEMA = re.compile(r"https://vega\.github\.io/schema/[\w./-]+")
_EXPRESSIONS = frozenset((
    "and", "calculate", "expr", "filter", "init", "insert", "labelExpr", "modify", "not", "or",
    "react", "remove", "signal", "test", "toggle", "trigger", "update",
))  # fmt: skip
_EVENTS = frozenset(("between", "clear", "events", "on", "source", "translate", "zoom"))
_EVENT = re.compile(r"[\w\s,:>*@.!\[\]{}-]*")
_WRITTEN = frozenset(("formatType", "timeUnit", "unit"))
"""Strings that vega-lite writes into expressions as they are."""

_NAMED = re.compile(r"[\w.-]*")
_PARSED = re.compile(r"(?:date|utc)(?::'[^'\\]*'|:\"[^\"\\]*\")?|number|boolean|string|flatten")

PURE = frozenset((
    "isArray", "isBoolean", "isDate", "isDefined", "isNumber", "isObject", "isString", "isValid",
    "isNaN", "isFinite", "toBoolean", "toDate", "toNumber", "if", "abs", "acos", "asin", "atan",
    "atan2", "ceil", "clamp", "cos", "exp", "floor", "hypot", "log", "max", "min", "pow", "random",
    "round", "sin", "sqrt", "tan", "now", "datetime", "date", "day", "dayofyear", "year", "quarter",
    "month", "week", "hours", "minutes", "seconds", "milliseconds", "time", "timezoneoffset", "utc",
    "utcdate", "utcday", "utcyear", "utcquarter", "utcmonth", "utchours", "utcminutes",
    "utcseconds", "extent", "inrange", "indexof", "lastindexof", "length", "lerp", "peek",
    "reverse", "sequence", "slice", "span", "lower", "pad", "parseFloat", "parseInt", "split",
    "substring", "trim", "truncate", "upper", "format", "dayFormat", "dayAbbrevFormat",
    "monthFormat", "monthAbbrevFormat", "timeFormat", "utcFormat", "rgb", "hsl", "lab", "hcl",
    "luminance", "contrast",
))  # fmt: skip
"""Functions that compute a value from values; none that takes a function, a pattern or an object
(join, replace, test, merge): these were the ways out."""

OF_NAMES = frozenset((
    "scale", "invert", "domain", "range", "bandwidth", "data", "indata", "vlSelectionTest",
    "vlSelectionIdTest", "vlSelectionResolve",
))  # fmt: skip
"""Functions whose first argument must be written as a string: scale calls what it is given."""

OUTSIDE = frozenset((
    "event", "item", "view", "window", "document", "globalThis", "self", "top", "this", "eval",
    "Function", "constructor", "prototype", "__proto__", "toString", "valueOf", "ownerDocument",
    "defaultView", "contentWindow", "context", "dataflow", "VEGA_DEBUG", "call", "apply", "bind",
))  # fmt: skip
"""Names that lead from data to functions and to the page."""

MAX_EXPRESSION = 2000
"""Characters; what people write is a line."""

_STRING = r"\"[^\"\\\n]*\"|'[^'\\\n]*'"
_MODIFIERS = re.compile(r"event\.(?:shift|ctrl|alt|meta)Key\b")
_SIGN = r"[<>]=?|[=!]==?|!|&&|\|\||[-+*%?:,()\[\].]|/(?![/*])"
_WORD = re.compile(
    rf"\s*(?:(?P<text>{_STRING})|(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)"
    rf"|(?P<name>[A-Za-z_$][\w$]*)|(?P<sign>{_SIGN}))\s*"
)
_MEMBER = re.compile(rf"(?:\d+|({_STRING}))\s*\]")


def harmless(expression: str) -> bool:
    """Does an expression of vega only compute something from the chart's data?"""
    if len(expression) > MAX_EXPRESSION:
        return False
    text = _MODIFIERS.sub("true", expression)
    at, before, kind = 0, "", ""
    while at < len(text):
        match = _WORD.match(text, at)
        if match is None or match.lastgroup is None:
            return False
        word, at = match[match.lastgroup], match.end()
        if match.lastgroup == "name":
            fine = _name_is_harmless(word, before, text[at:])
        else:
            operand = kind in ("name", "text", "number") or before in (")", "]")
            fine = _sign_is_harmless(word, kind if operand else "", text[at:])
        if not fine:
            return False
        before, kind = word, match.lastgroup
    return True


def _sign_is_harmless(sign: str, operand: str, rest: str) -> bool:
    """May this sign follow an operand of that kind ("" if none is before it)?"""
    if sign == "/":
        return bool(operand)  # else it begins a pattern
    if sign == "(" and operand:
        return operand == "name"  # else it calls what has no name
    if sign == "[" and operand:
        member = _MEMBER.match(rest)
        return member is not None and (member[1] or "")[1:-1] not in OUTSIDE
    return True


def _name_is_harmless(name: str, before: str, rest: str) -> bool:
    if name in OUTSIDE:
        return False
    if not rest.startswith("("):
        return True
    named = rest[1:].lstrip()[:1] in ("'", '"')
    return before != "." and (name in PURE or (name in OF_NAMES and named))


def chart(spec: Any, hold: Callable[[str], None]) -> Any:
    """A chart of vega or vega-lite that loads and runs nothing of its own; None if it would."""
    if not isinstance(spec, dict):
        hold("is not a chart")
        return None
    kept = {key: value for key, value in spec.items() if key != "usermeta"}
    if not _SCHEMA.fullmatch(str(kept.get("$schema", ""))):
        kept.pop("$schema", None)
    for key, value in kept.items():
        why = "" if key == "$schema" else next(_named_reasons(value, key), "")
        if why:
            hold(why)
            return None
    return kept


def _reasons(value: Any, key: str) -> Iterator[str]:
    """Why a part of a chart, under its key, is not harmless."""
    if isinstance(value, list):
        for inside in value:
            yield from _reasons(inside, key)
    elif isinstance(value, str):
        yield from _string_reasons(value, key)
    elif isinstance(value, dict):
        if key == "bind" and "element" in value:
            yield "binds an element of the page"
        for name, inside in value.items():
            if key == "datasets" or (key == "data" and name == "values"):
                yield from _row_reasons(inside)
            else:
                yield from _named_reasons(inside, name)


def _named_reasons(value: Any, name: str) -> Iterator[str]:
    if name in ("href", "url"):
        if not (isinstance(value, str) and value.startswith("data:")):
            yield f"has an address: {str(value)[:60]}"
    elif name == "parse" and isinstance(value, dict):
        if not all(v is None or _PARSED.fullmatch(str(v)) for v in value.values()):
            yield "has an unknown way to parse"
    else:
        yield from _reasons(value, name)


def _string_reasons(value: str, key: str) -> Iterator[str]:
    if value == "image":  # a mark, or a column that the tooltip shows as one
        yield "has images, which it would load"
    elif key in _EXPRESSIONS and not harmless(value):
        yield f"has an expression that is not plainly harmless: {value[:60]}"
    elif key in _EVENTS and not _EVENT.fullmatch(_MODIFIERS.sub("", value)):
        yield f"has an event that is not plainly harmless: {value[:60]}"
    elif key in _WRITTEN and not _NAMED.fullmatch(value):
        yield f"has an unknown {key}"


def _row_reasons(rows: Any) -> Iterator[str]:
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and "image" in row:
            yield "has a column of images, which it would load"
