"""Charts of vega and vega-lite that load nothing and run nothing but sums over their own data.

Pure; standard library only. vega compiles expressions to functions; its own protections were got
round several times (vega issues 3018, 3027 and 3984, advisories GHSA-4vq7-882g-wcg4, GHSA-w5m3-
xh75-mp55 and GHSA-7f2v-3qq3-vvjf), and a front end has the version that it has. So expressions pass
that are plainly harmless: literals, operators, columns, and functions from a list, in their
plainest form. A chart with anything else is refused, and the image or text beside it is shown.

An expression is not only what stands under `expr`. Both compilers paste strings into expressions as
they are, with quotes around (a format, a mark's name, in vega-lite before 5.7 a title) or without
(a number that is given as text). So a string that is no plain word passes where it is known to be a
text, or where it would be harmless as an expression.

Sources: https://vega.github.io/vega/docs/expressions/; vega 5 and 6 (vega-parser's parsers for what
is pasted, vega-view's bind.js, which sets a binding's fields as attributes, and cursor.js, which
sets a style); vega-lite 5.6 to 6 (format.ts, tooltip.ts, datetime.ts, geopoint.ts, impute.ts);
vega-embed 6 for `usermeta`, whose options load, patch and write HTML; vega-tooltip for a column
named "image", which it loads.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIME = re.compile(r"application/vnd\.vega(?:lite)?\.v\d{1,2}\+json")

_SCHEMA = re.compile(r"https://vega\.github\.io/schema/[\w./-]+")

LOADING = frozenset(("image", "cursor", "href"))
"""Strings that name what loads or leads away: a mark, a column that the tooltip shows as a picture,
a signal that becomes a style, a column that a mark's own transforms make a link."""

_EXPRESSIONS = frozenset((
    "and", "calculate", "expr", "filter", "init", "insert", "labelExpr", "modify", "not", "or",
    "react", "remove", "signal", "test", "toggle", "trigger", "update",
))  # fmt: skip
_EVENTS = frozenset(("between", "clear", "events", "on", "source", "translate", "zoom"))
_EVENT = re.compile(r"[\w\s,:>*@.!\[\]{}-]*")

_WRITTEN = {
    "timeUnit": re.compile(r"[A-Za-z]*"),
    "unit": re.compile(r"[A-Za-z]*"),
    **dict.fromkeys(
        ("formatType", "numberFormatType", "timeFormatType", "normalizedNumberFormatType"),
        re.compile(r"(?:number|time|utc)?"),
    ),
    **dict.fromkeys(
        (
            "format", "numberFormat", "timeFormat", "normalizedNumberFormat", "name", "marktype",
            "markname", "markrole", "type",
        ),
        re.compile(r"[^\"'`\\]*"),
    ),
    "cursor": re.compile(r"[a-z-]*"),
}  # fmt: skip
"""What strings may be that are pasted as names or between quotes, or become a style."""

_TEXTS = frozenset((
    "title", "subtitle", "text", "description", "labels", "options", "value", "values", "datum",
    "domain", "equal", "gt", "gte", "lt", "lte", "oneOf", "range", "tooltip", "sort", "default",
    "placeholder",
))  # fmt: skip
"""Where a string is shown, or compared as a literal."""

_COLUMNS = frozenset((
    "as", "color", "column", "columns", "detail", "facet", "field", "fields", "flatten", "fold",
    "group", "groupby", "joinaggregate", "key", "layer", "lookup", "argmax", "argmin",
    "order", "parent", "pivot", "quantile", "regression", "repeat", "row", "stack", "window",
    "loess", "density", "bin", "x", "y", "x2", "y2", "size", "shape", "opacity", "encodings",
    "param",
))  # fmt: skip
"""Where a string is the name of a column: any but for the signs that end a string literal."""

_GUIDES = frozenset((
    "legends", "axes", "legend", "axis", "latitude", "longitude", "latitude2", "longitude2",
))  # fmt: skip
"""Below these, `value` and `datum` are pasted too."""

_ENDS_LITERAL = re.compile(r"[\"`]|\\(?![.\[\]'])")
_OF_CODE = re.compile(r"[(\[{`']")
_COLOUR = re.compile(r"(?:rgb|hsl)a?\([\d\s.,%/deg-]*\)")

_PARSED = re.compile(r"(?:date|utc)(?::'[^'\\]*'|:\"[^\"\\]*\")?|number|boolean|string|flatten")

_BOUND = frozenset((
    "input", "name", "options", "labels", "min", "max", "step", "placeholder", "autocomplete",
    "debounce", "legend",
))  # fmt: skip
"""A binding's fields; vega before 6.3 makes attributes of all, `onfocus` among them."""

_INPUTS = frozenset((
    "checkbox", "radio", "range", "select", "text", "number", "color", "date", "datetime-local",
    "month", "week", "time", "search",
))  # fmt: skip
"""Of an input's types those that load and upload nothing."""

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
"""Functions whose first argument must be one written string: scale calls what it is given."""

OUTSIDE = frozenset((
    "event", "item", "view", "window", "document", "globalThis", "self", "top", "this", "eval",
    "Function", "constructor", "prototype", "__proto__", "toString", "valueOf", "ownerDocument",
    "defaultView", "contentWindow", "context", "dataflow", "VEGA_DEBUG", "call", "apply", "bind",
))  # fmt: skip
"""Names that lead from data to functions and to the page."""

MAX_EXPRESSION = 2000
"""Characters; what people write is a line."""

_STRING = r"\"[^\"\\\n]*\"|'[^'\\\n]*'"
_MODIFIERS = re.compile(r"\bevent\.(?:shift|ctrl|alt|meta)Key\b")
_SIGN = r"[<>]=?|[!=]==?|!|&&|\|\||[-+*%?:,()\[\].]|/(?![/*])"
_WORD = re.compile(
    rf"\s*(?:(?P<text>{_STRING})|(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)"
    rf"|(?P<name>[A-Za-z_$][\w$]*)|(?P<sign>{_SIGN}))\s*"
)
_MEMBER = re.compile(rf"(?:\d+|({_STRING}))\s*\]")
_QUOTED = re.compile(_STRING)
_NAMED = re.compile(rf"\(\s*(?:{_STRING})\s*[,)]")


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
            fine = _name_is_harmless(word, before, text, at)
        else:
            operand = kind in ("name", "text", "number") or before in (")", "]")
            fine = _sign_is_harmless(word, kind if operand else "", text, at)
        if not fine:
            return False
        before, kind = word, match.lastgroup
    return True


def _sign_is_harmless(sign: str, operand: str, text: str, at: int) -> bool:
    """May this sign follow an operand of that kind ("" if none is before it)?"""
    if sign == "/":
        return bool(operand)  # else it begins a pattern
    if sign == "(" and operand:
        return operand == "name"  # else it calls what has no name
    if sign == "[" and operand:
        member = _MEMBER.match(text, at)
        return member is not None and (member[1] or "")[1:-1] not in OUTSIDE
    return True


def _name_is_harmless(name: str, before: str, text: str, at: int) -> bool:
    if name in OUTSIDE:
        return False
    if not text.startswith("(", at):
        return True
    named = name in OF_NAMES and _NAMED.match(text, at) is not None
    return before != "." and (name in PURE or named)


def chart(spec: Any, hold: Callable[[str], None]) -> Any:
    """A chart of vega or vega-lite that loads and runs nothing of its own; None if it would."""
    if not isinstance(spec, dict):
        hold("is not a chart")
        return None
    kept = {key: value for key, value in spec.items() if key != "usermeta"}
    if not _SCHEMA.fullmatch(str(kept.get("$schema", ""))):
        kept.pop("$schema", None)
    why = next(_reasons({k: v for k, v in kept.items() if k != "$schema"}, ""), "")
    if not why and _pivots(kept) and "image" in _strings(kept):
        why = "makes a column of images, which it would load"
    if why:
        hold(why)
        return None
    return kept


def _reasons(value: Any, key: str, *, pasted: bool = False) -> Iterator[str]:
    """Why a part of a chart, under its key, is not harmless."""
    if isinstance(value, list):
        for inside in value:
            yield from _reasons(inside, key, pasted=pasted)
    elif isinstance(value, str):
        yield from _string_reasons(value, key, pasted=pasted)
    elif isinstance(value, dict):
        of_trigger = "trigger" in value
        of_column = "field" in value or "aggregate" in value
        pasted = pasted or key in _GUIDES
        for name, inside in value.items():
            if key == "datasets" or (key == "data" and name == "values"):
                yield from _row_reasons(inside)
            elif of_trigger and name == "values":
                yield from _reasons(inside, "trigger")
            elif of_column and name == "title":  # the tooltip's name for it: a literal's text
                yield from _reasons(inside, "field")
            elif name == "field" and "impute" in value:
                yield from _reasons(inside, "impute")
            else:
                yield from _named_reasons(inside, name, pasted=pasted)


def _named_reasons(value: Any, name: str, *, pasted: bool) -> Iterator[str]:
    if name in ("href", "url"):
        yield f"has an address: {str(value)[:60]}"
    elif name == "bind":
        yield from _bind_reasons(value)
    elif name == "parse" and isinstance(value, dict):
        if not all(v is None or _PARSED.fullmatch(str(v)) for v in value.values()):
            yield "has an unknown way to parse"
    elif name == "cursor" and isinstance(value, dict):
        if not (value.keys() == {"value"} and isinstance(value["value"], str)):
            yield "has a cursor that is computed"
        else:
            yield from _string_reasons(value["value"], "cursor", pasted=pasted)
    else:
        yield from _reasons(value, name, pasted=pasted)


def _bind_reasons(value: Any) -> Iterator[str]:
    """Why an input for a value of the chart is not harmless."""
    if isinstance(value, str):
        yield from () if value in ("scales", "legend") else ("has an unknown binding",)
    elif isinstance(value, dict) and value and all(isinstance(v, dict) for v in value.values()):
        for one in value.values():  # an input for each column
            yield from _bind_reasons(one)
    elif isinstance(value, dict):
        known = value.keys() <= _BOUND and _EVENT.fullmatch(str(value.get("legend", "")))
        lists = value.get("options"), value.get("labels")
        flat = not any(isinstance(v, dict) for v in value.values()) and not any(
            isinstance(inside, (dict, list)) for some in lists for inside in some or ()
        )
        if not known or not flat or str(value.get("input", "text")) not in _INPUTS:
            yield "has an input with attributes of its own"
    elif value is not None:
        yield "has an unknown binding"


def _string_reasons(value: str, key: str, *, pasted: bool) -> Iterator[str]:
    if value in LOADING:
        yield f"has a part {value!r}, which would load or lead away"
    elif key in _EXPRESSIONS:
        if not harmless(value):
            yield f"has an expression that is not plainly harmless: {value[:60]}"
    elif key in _EVENTS:
        if not _EVENT.fullmatch(_MODIFIERS.sub("", value)):
            yield f"has an event that is not plainly harmless: {value[:60]}"
    elif not _may_stand(value, key, pasted=pasted):
        yield f"has a {key[:40]} that is not plainly harmless: {value[:60]}"


def _may_stand(value: str, key: str, *, pasted: bool) -> bool:
    """May this string stand under this key, whether or not it is pasted into an expression?"""
    if key in _WRITTEN:
        return _WRITTEN[key].fullmatch(value) is not None
    if key in _TEXTS and not (pasted and key in ("datum", "value")):
        return True
    if key.endswith(("font", "Font")):
        return not _OF_CODE.search(_QUOTED.sub("", value))
    if _ENDS_LITERAL.search(value):
        return False
    if key in _COLUMNS or not _OF_CODE.search(value):
        return True
    return _COLOUR.fullmatch(value) is not None or harmless(value)


# -- data ----------------------------------------------------------------------------------------


def _row_reasons(rows: Any) -> Iterator[str]:
    """Why data, as rows, as text (CSV, JSON), or as an object that holds rows, is not harmless."""
    if isinstance(rows, dict) and "signal" in rows:
        yield "has data that are computed"
    elif isinstance(rows, str) and "\\" in rows:
        yield "has data with escapes"
    elif "image" in rows if isinstance(rows, str) else _has_images(rows):
        yield "has a column of images, which it would load"


def _has_images(value: Any) -> bool:
    if isinstance(value, dict):
        if "image" in value:
            return True
        value = value.values()
    elif not isinstance(value, list):
        return False
    return any(
        _has_images(inside) for inside in value if type(inside) is dict or type(inside) is list
    )


def _pivots(value: Any) -> bool:
    """Does a chart make columns of its data's values?"""
    if isinstance(value, dict):
        return "pivot" in value or value.get("type") == "pivot" or any(map(_pivots, value.values()))
    return isinstance(value, list) and any(
        _pivots(inside) for inside in value if type(inside) is dict or type(inside) is list
    )


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = value.values()
    elif isinstance(value, str):
        yield value
        return
    elif not isinstance(value, list):
        return
    for inside in value:
        yield from _strings(inside)
