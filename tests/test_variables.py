"""Shows that variables are described without running the user's code, and that changes are seen.

The guest's module is plain Python: it is loaded from its file. What it does with numpy and pandas
is shown with small classes of those names, which are always there, and with the real ones if they
are installed.
"""

from __future__ import annotations

import collections
import functools
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import wasi_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WHERE = Path(wasi_kernel.__file__).parent / "guest" / "wasi_agent" / "variables.py"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("variables_of_the_guest", WHERE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


variables = load()


def one(value: Any) -> dict[str, Any]:
    """What is said of one variable: always the same, and JSON."""
    said = variables.describe({"v": value})
    assert said == variables.describe({"v": value})
    assert json.loads(json.dumps(said)) == said
    assert said.keys() == {"v"}
    found: dict[str, Any] = said["v"]
    assert {k: type(v) for k, v in found.items()} == {
        "type": str, "detail": str, "bytes": int, "print": int,
    }  # fmt: skip
    return found


def changes(value: Any, change: Callable[[Any], Any]) -> bool:
    """Is it seen that `change` was done to `value` (or gave another value)?"""
    before = variables.describe({"v": value})
    result = change(value)
    now = variables.describe({"v": value if result is None else result})
    found = variables.compare(json.loads(json.dumps(before)), now)
    assert [(d["change"], d["name"]) for d in found] in ([], [("changed", "v")])
    return bool(found)


# -- what is said --------------------------------------------------------------------------------


class Thing:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def method(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("value", "kind", "detail"),
    [
        (7, "int", "7"), (True, "bool", "True"), (None, "NoneType", "None"),
        (1.5, "float", "1.5"), (float("nan"), "float", "nan"), (2j, "complex", "2j"),
        (..., "ellipsis", "Ellipsis"), (range(3), "range", "range(0, 3)"),
        (slice(1, None), "slice", "slice(1, None, None)"),
        (10**40, "int", "1" + "0" * 28 + "…"),
        ("secret", "str", "length 6"), (b"secret", "bytes", "length 6"),
        (bytearray(3), "bytearray", "length 3"), ([1, 2], "list", "length 2"),
        ((), "tuple", "length 0"), ({1}, "set", "length 1"), (frozenset(), "frozenset", "length 0"),
        ({"a": 1}, "dict", "length 1"), (len, "builtin_function_or_method", ""),
        (load, "function", ""), (int, "type", ""), (json, "module", ""),
        (collections.Counter("ab"), "collections.Counter", ""),
    ],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_types_and_details(value: Any, kind: str, detail: str):
    said = one(value)
    assert (said["type"], said["detail"]) == (kind, detail)


def test_a_value_itself_is_not_told():
    for value in ("hunter2", ["hunter2"], {"hunter2": "hunter2"}, Thing(password="hunter2")):  # noqa: S106
        assert "hunter2" not in json.dumps(one(value))


def test_sizes():
    assert one("x" * 1000)["bytes"] >= 1000
    assert one([None] * 1000)["bytes"] >= 8000
    assert one(7)["bytes"] == 0


def test_names_of_ipythons_are_left_out():
    hidden = ["In", "Out", "_", "__", "___", "_3", "_i", "_i3", "_ii", "_dh", "__name__", "exit"]
    shown = ["x", "_x", "_3a", "_i_", "_ix", "_x3", "in", "é", "a b", ""]
    found = variables.describe(dict.fromkeys([*hidden, *shown], 1))
    assert found.keys() == set(shown)


def test_what_differs_is_told_by_name():
    before = variables.describe({"same": 1, "gone": [1], "other": "abc", "kind": 1})
    now = variables.describe({"same": 1, "other": "abcd", "kind": "1", "a_new": 2.5})
    found = variables.compare(before, now)
    size = f"{sys.getsizeof('abc'):,} bytes", f"{sys.getsizeof('abcd'):,} bytes"
    assert [d["name"] for d in found] == ["a_new", "gone", "kind", "other"]
    assert found[0] == {"change": "added", "name": "a_new", "before": "", "now": "float, 2.5"}
    assert (found[1]["change"], found[1]["now"]) == ("removed", "")
    assert found[1]["before"].startswith("list, length 1, ")
    assert found[2]["before"] == "int, 1"
    assert found[3] == {
        "change": "changed", "name": "other", "before": f"str, length 3, {size[0]}",
        "now": f"str, length 4, {size[1]}",
    }  # fmt: skip
    assert variables.compare(before, before) == []
    assert variables.compare({}, {}) == []


# -- what is a change ----------------------------------------------------------------------------


def func(source: str) -> Any:
    """The function that `source` makes."""
    made: dict[str, Any] = {}
    exec(source, made)  # noqa: S102 - text of this file
    return made["f"]


@pytest.mark.parametrize(
    ("value", "change"),
    [
        (1, lambda v: v + 1), (1, lambda _: True), (0.0, lambda v: -v), ("a", lambda v: v + "b"),
        ("ab", lambda _: "ba"), (b"ab", lambda _: b"ba"), (bytearray(3), lambda v: v.reverse()
         or v.__setitem__(1, 7)),
        ([1, 2, 3], lambda v: v.reverse()), ([[1], [2]], lambda v: v[1].__setitem__(0, 3)),
        (([1],), lambda v: v[0].__setitem__(0, 2)), ({1, 2}, lambda v: v ^ {2, 3}),
        ({"a": 1}, lambda v: v.update(a=2)), ({"a": 1}, lambda _: {"b": 1}),
        ({"a": {"b": [1]}}, lambda v: v["a"]["b"].__setitem__(0, 2)),
        (Thing(a=1), lambda v: setattr(v, "a", 2)),
        (Thing(a=Thing(b=[0])), lambda v: v.a.b.__setitem__(0, 1)),
        ([Thing(a=1)], lambda v: setattr(v[0], "a", 2)),
        ([1, 2], tuple), (range(3), lambda _: range(4)),
    ],
)  # fmt: skip
def test_a_changed_value_is_seen(value: Any, change: Callable):
    assert changes(value, change)


@pytest.mark.parametrize(
    "value",
    [1, float("nan"), "é\ud800", b"x", [1, [2]], {3, 1, 2}, {"a": {2: 3}}, (None, ...), Thing(a=1),
     Thing(), object(), func("def f(): return 1"), lambda: 2, Thing().method, json, Thing, int,
     iter([1]), collections.deque([1]), functools.partial(int, "1")],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_left_alone_is_no_change(value: Any):
    assert not changes(value, lambda _: None)


def test_a_copy_with_the_same_content_is_no_change():
    assert not changes([1, "a", {"b": (2.5, None)}], lambda _: [1, "a", {"b": (2.5, None)}])
    assert not changes({"x", "y", "z"}, lambda _: {"z", "y", "x"})
    assert not changes("abc", lambda _: "".join("abc"))
    assert not changes([float("nan")], lambda _: [float("nan")])


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("def f(): return 1", "def f(): return 2"),
        ("def f(x): return x + 1", "def f(x): return x - 1"),
        ("def f(x): return g(x)", "def f(x): return h(x)"),
        ("def f(x): return x.a", "def f(x): return x.b"),
        ("def f(x=1): return x", "def f(x=2): return x"),
        ("def f(*, x=1): return x", "def f(*, x=2): return x"),
    ],
)
def test_a_function_that_does_something_else_is_changed(before: str, now: str):
    assert changes(func(before), lambda _: func(now))


def test_a_class_that_was_changed_or_defined_again_is_seen():
    def make(x: int) -> Any:
        return type("A", (), {"__module__": "__main__", "x": x})

    assert changes(make(1), lambda _: make(2))
    assert changes(make(1), lambda kind: setattr(kind, "x", 2))


# -- no code of the user's -----------------------------------------------------------------------


class Ran(BaseException):
    """Code of the user's ran. No `except Exception` hides it."""


def ran(*_: Any, **__: Any) -> Any:
    raise Ran


SPECIAL = (
    "__eq__", "__ne__", "__lt__", "__hash__", "__len__", "__length_hint__", "__bool__", "__repr__",
    "__str__", "__format__", "__bytes__", "__iter__", "__next__", "__getitem__", "__contains__",
    "__getattribute__", "__getattr__", "__sizeof__", "__index__", "__int__", "__float__",
    "__dir__", "__reduce__", "__reduce_ex__", "__call__", "__array__", "__buffer__",
)  # fmt: skip
PROPERTIES = (
    "__class__", "__dict__", "__module__", "__name__", "__code__", "dtype", "shape", "nbytes",
    "memory_usage", "to_numpy", "tolist",
)  # fmt: skip
BASES: tuple[type, ...] = (object, list, dict, str, int, set, bytearray)


def hostile(*names: str, base: type = object, **more: Any) -> Any:
    """An object of which these methods, or properties, must not be used."""
    methods = {n: property(ran) if n in PROPERTIES else ran for n in names}
    return type("Hostile", (base,), {"__module__": "__main__", **methods, **more})()


PLACES: dict[str, Callable[[Any], Any]] = {
    "alone": lambda v: v,
    "in a list": lambda v: [1, v, v],
    "in a tuple": lambda v: ((v,),),
    "in a dict": lambda v: {"a": v},
    "in an object": lambda v: Thing(a=v),
    "in a slice": lambda v: slice(None, v, None),
    "in a list subclass": lambda v: type("L", (list,), {})([v]),
    "in a bound method": lambda v: types.MethodType(v, 1),
    "in a partial": lambda v: functools.partial(print, v),
    "in a deque": lambda v: collections.deque([v]),
    "in a class": lambda v: type("C", (), {"a": v}),
    "in constants": lambda v: types.FunctionType(
        load.__code__.replace(co_consts=(v,)), {}
    ),
    "in defaults": lambda v: types.FunctionType(load.__code__, {}, "f", (v,)),
}  # fmt: skip


@pytest.mark.parametrize("name", [*SPECIAL, *PROPERTIES])
def test_no_method_of_an_unknown_object_is_called(name: str):
    one(hostile(name))


@pytest.mark.parametrize("place", PLACES)
def test_nor_wherever_it_is(place: str):
    value = hostile(*SPECIAL, *PROPERTIES, __call__=lambda *_: 1)
    one(PLACES[place](value))


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.__name__)
def test_nor_one_of_a_type_that_is_made_from_a_known_one(base: type):
    names = [n for n in (*SPECIAL, *PROPERTIES) if n != "__module__"]
    one(hostile(*names, base=base))
    one([hostile(*names, base=base)])


def armed(*names: str) -> tuple[Any, list[bool]]:
    """A hostile object that can be put into sets and dicts, and what switches it on."""
    on: list[bool] = []

    def method(_self: Any, *_: Any) -> Any:
        if on:
            raise Ran
        return 1

    return hostile(**dict.fromkeys(names, method)), on


def test_nor_of_one_that_is_a_key_or_in_a_set():
    value, on = armed("__hash__", "__eq__", "__repr__", "__lt__", "__len__", "__str__")
    made = [{value: 1, 2: 3}, {value, 2}, frozenset([value])]
    on.append(True)
    for each in made:
        one(each)


META = ("__eq__", "__hash__", "__getattribute__", "__getattr__", "__repr__", "__str__", "__len__",
        "__instancecheck__", "__subclasscheck__", "__call__", "__bool__")  # fmt: skip
META_PROPERTIES = ("__name__", "__module__", "__dict__", "__mro__", "__class__")


@pytest.mark.parametrize("name", [*META, *META_PROPERTIES])
def test_nor_of_its_type(name: str):
    """A metaclass is code of the user's as well."""
    on: list[bool] = []

    def method(kind: Any, *args: Any) -> Any:
        if on:
            raise Ran
        return getattr(type, name)(kind, *args)

    def value_of(kind: Any) -> Any:
        if on:
            raise Ran
        return type.__dict__[name].__get__(kind)

    content = {name: property(value_of) if name in META_PROPERTIES else method}
    meta = type("Meta", (type,), content)
    kind = meta("Hostile", (), {})
    value = object.__new__(kind)
    on.append(True)
    found = [variables.describe({"v": each}) for each in (value, kind, [value], {"a": kind})]
    on.clear()
    assert all(said.keys() == {"v"} for said in found)


class Text(str):
    """A text with methods of its own."""

    __slots__ = ()
    __eq__ = ran
    __hash__ = str.__hash__
    partition = ran
    startswith = ran
    encode = ran
    __str__ = ran
    __format__ = ran
    __getitem__ = ran


ODD: dict[str, Callable[[], Any]] = {
    "hostile": lambda: hostile(*SPECIAL, "__class__"),
    "text": lambda: Text("m"),
    "number": lambda: 7,
    "none": lambda: None,
    "list": lambda: ["x"],
    "empty": str,
    "surrogate": lambda: "\ud800",
}


@pytest.mark.parametrize("name", ["__module__", "__qualname__", "__name__"])
@pytest.mark.parametrize("odd", ODD)
def test_what_a_class_says_of_itself_may_be_anything(name: str, odd: str):
    said = ODD[odd]()
    kind = type("Odd", (), {"__module__": "m"})
    if name == "__module__":
        kind.__module__ = said
    else:
        try:
            setattr(kind, name, said)
        except (TypeError, UnicodeEncodeError):  # the interpreter demands a text
            assert odd not in ("text", "empty")
            return
    one(kind())
    one(kind)


@pytest.mark.parametrize("odd", ODD)
def test_what_a_module_says_of_itself_may_be_anything(odd: str):
    module = types.ModuleType("odd")
    module.__name__ = ODD[odd]()
    one(module)
    one({"a": module})


def test_a_module_that_is_loaded_when_it_is_looked_at_is_not_loaded():
    class Lazy(types.ModuleType):
        __getattribute__ = ran

    one(Lazy("lazy"))
    module = types.ModuleType("odd")
    module.__getattr__ = ran  # type: ignore[method-assign]
    del module.__name__
    one(module)


def test_an_object_without_a_dict_is_not_asked_for_one():
    one(hostile("__getattr__", __slots__=()))


def test_attributes_are_found_without_asking():
    """The dict that is looked into is the real one."""

    class Proxy:
        @property
        def __dict__(self) -> Any:
            raise Ran

        @property
        def __class__(self) -> Any:
            raise RuntimeError("working outside of a context")

    one(Proxy())


@pytest.mark.parametrize("library", ["numpy", "pandas", "numpy.core", "pandas.x"])
@pytest.mark.parametrize("error", [RuntimeError, OSError, MemoryError, RecursionError, KeyError])
def test_a_class_that_only_says_that_it_is_known(library: str, error: type[Exception]):
    """Whatever it does, the description goes on."""

    def fails(*_: Any) -> Any:
        raise error

    names = ("dtype", "shape", "nbytes", "memory_usage", "tolist", "to_numpy", "__getattr__")
    for name in names:
        body = {"__module__": library, name: property(fails) if name[0] != "_" else fails}
        one(type("ndarray", (), body)())
        one(type("DataFrame", (), body)())


@pytest.mark.parametrize(
    "namespace",
    [{1: 2}, {None: 1}, {(): 1}, {b"x": 1}, {True: 1}, {1.5: 1}],
    ids=repr,
)
def test_names_that_are_no_names(namespace: dict[Any, Any]):
    """`globals()[1] = 2` is possible; it is no variable."""
    said = variables.describe({**namespace, "x": 1})
    assert said["x"]["type"] == "int"
    assert variables.compare(said, {**said, "y": said["x"]})[0]["name"] == "y"


def test_a_name_that_has_code_of_its_own():
    value, on = armed("__hash__", "__eq__")
    namespace = {value: 1, "x": 1}
    on.append(True)
    assert [name for name in variables.describe(namespace) if type(name) is str] == ["x"]
    assert variables.describe({Text("text"): 1, "x": 1}).keys() >= {"x"}


# -- sizes and shapes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [10**5000, -(10**5000), 1 << 10**6, [10**5000], {10**5000: 10**5000}, range(10**5000),
     slice(10**5000), Thing(a=10**5000)],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_numbers_with_more_digits_than_can_be_shown(value: Any):
    one(value)


def test_a_huge_number_that_changes_is_seen():
    assert changes(10**5000, lambda v: v + 1)


@pytest.mark.parametrize(
    "value", ["\ud800", "\0", "é" * 100, {"\ud800": 1}, Thing(**{"\ud800": 1})]
)
def test_texts_that_cannot_be_encoded(value: Any):
    one(value)
    assert variables.describe({"\ud800": 1}).keys() == {"\ud800"}


def cycles() -> Iterator[Any]:
    a: list[Any] = [1]
    a.append(a)
    yield a
    d: dict[str, Any] = {}
    d["d"] = [d, (d,)]
    yield d
    thing = Thing()
    thing.self = thing
    thing.__dict__["dict"] = thing.__dict__
    yield thing
    b: list[Any] = []
    c = [b, [b], {"b": b}]
    b.append(c)
    yield c


@pytest.mark.parametrize("value", list(cycles()), ids=lambda value: type(value).__name__)
def test_cycles_end(value: Any):
    one(value)


def test_a_change_within_a_cycle_is_seen():
    a: list[Any] = [[0]]
    a.append(a)
    assert changes(a, lambda v: v[0].__setitem__(0, 1))


@pytest.mark.parametrize("make", [lambda v: [v], lambda v: (v,), lambda v: {"a": v},
                                  lambda v: Thing(a=v)])  # fmt: skip
def test_nesting_of_any_depth(make: Callable):
    value: Any = [1]
    for _ in range(50_000):
        value = make(value)
    one(value)
    while type(value) in (list, tuple, dict, Thing):  # or freeing it would recurse
        inner = value.__dict__ if type(value) is Thing else value
        (value,) = inner.values() if isinstance(inner, dict) else inner


def calls(value: Any) -> int:
    """How many Python functions are entered to describe it."""
    count = 0

    def profile(_frame: Any, event: str, _arg: Any) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        variables.describe({"v": value})
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize(
    "make",
    [
        lambda n: [None] * n, lambda n: tuple(range(n)), lambda n: set(range(n)),
        lambda n: dict.fromkeys(range(n)), lambda n: [[]] * n, lambda n: [[k] for k in range(n)],
        lambda n: [[None] * n], lambda n: Thing(**{str(k): None for k in range(n)}),
        lambda n: [list(range(1000)) for _ in range(n // 1000)],
    ],
)  # fmt: skip
def test_no_more_is_looked_at_than_the_budget(make: Callable):
    """What is beyond it costs no step, however much it is."""
    few, many = 2 * variables.BUDGET, 20 * variables.BUDGET
    assert calls(make(many)) <= 1.1 * calls(make(few))


def test_what_lies_within_the_budget_is_looked_at():
    value = list(range(variables.BUDGET // 2))
    assert changes(value, lambda v: v.__setitem__(-1, 0))


# -- numpy and pandas ----------------------------------------------------------------------------


class Dtype:
    def __init__(self, name: str, *, hasobject: bool) -> None:
        self.name, self.hasobject = name, hasobject

    def __str__(self) -> str:
        return self.name


class ndarray:  # noqa: N801 - the real name
    """As much of one as is looked at; of one dimension."""

    __module__ = "numpy"

    def __init__(self, *values: Any, dtype: str = "object") -> None:
        self.values = list(values)
        self.dtype = Dtype(dtype, hasobject=dtype == "object")

    @property
    def shape(self) -> tuple[int]:
        return (len(self.values),)

    @property
    def nbytes(self) -> int:
        return 8 * len(self.values)

    def tolist(self) -> list[Any]:
        return list(self.values)

    def tobytes(self) -> bytes:
        assert not self.dtype.hasobject
        return b"".join(int(v).to_bytes(8, "little") for v in self.values)


class Index:
    """As much of one as is looked at."""

    __module__ = "pandas"

    def __init__(self, *labels: Any) -> None:
        self.labels = list(labels)

    def tolist(self) -> list[Any]:
        return list(self.labels)

    def to_numpy(self) -> ndarray:
        return ndarray(*self.labels)


class Series:
    """As much of one as is looked at."""

    __module__ = "pandas"

    def __init__(self, array: ndarray) -> None:
        self.array = array
        self.index = Index(*range(len(array.values)))

    @property
    def shape(self) -> tuple[int]:
        return self.array.shape

    def to_numpy(self) -> ndarray:
        return self.array

    def tolist(self) -> list[Any]:
        return self.array.tolist()

    def memory_usage(self, *, index: bool) -> int:
        return self.array.nbytes + index


class DataFrame:
    """As much of one as is looked at; column labels may be there twice."""

    __module__ = "pandas"

    def __init__(self, index: list[Any], *columns: tuple[Any, ndarray]) -> None:
        self.index = Index(*index)
        self.columns = [label for label, _ in columns]
        self.series = [Series(array) for _, array in columns]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.index.labels), len(self.columns)

    @property
    def iloc(self) -> Places:
        return Places(self)

    def memory_usage(self, *, index: bool) -> int:
        return sum(column.array.nbytes for column in self.series) + index


class Places:
    def __init__(self, frame: DataFrame) -> None:
        self._frame = frame

    def __getitem__(self, key: tuple[slice, int]) -> Series:
        assert key[0] == slice(None)
        return self._frame.series[key[1]]


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy and pandas are modules with these classes."""
    for name, kinds in {"numpy": (ndarray,), "pandas": (Index, Series, DataFrame)}.items():
        module = types.ModuleType(name)
        for kind in kinds:
            setattr(module, kind.__name__, kind)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("libraries")
def test_arrays_and_frames_are_described():
    said = one(ndarray(1, 2, dtype="int64"))
    assert (said["type"], said["detail"], said["bytes"]) == ("numpy.ndarray", "int64 (2,)", 16)
    said = one(DataFrame([0, 1], ("a", ndarray(1, 2, dtype="int64")), ("a", ndarray("x", "y"))))
    assert (said["type"], said["detail"], said["bytes"]) == ("pandas.DataFrame", "(2, 2)", 33)


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: ndarray(1, 2, dtype="int64"), lambda v: v.values.reverse()),
        (lambda: ndarray("a", "b"), lambda v: v.values.reverse()),
        (lambda: ndarray([1], [2]), lambda v: v.values[1].append(3)),
        (lambda: Series(ndarray(1, 2, dtype="int64")), lambda v: v.array.values.reverse()),
        (lambda: Series(ndarray("a", "b")), lambda v: v.array.values.reverse()),
        (lambda: [ndarray("a"), ndarray("b")], lambda v: v[1].values.__setitem__(0, "c")),
        (
            lambda: {"a": ndarray("a"), "b": ndarray("b")},
            lambda v: v["b"].values.__setitem__(0, "c"),
        ),
    ],
)
def test_a_changed_array_is_seen(make: Callable, change: Callable):
    assert not changes(make(), lambda _: make())
    assert changes(make(), change)


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("dtype", ["int64", "object"])
@pytest.mark.parametrize("column", range(4))
def test_a_change_in_any_column_of_a_frame_is_seen(dtype: str, column: int):
    def make() -> DataFrame:
        columns = [(label, ndarray(1, 2, 3, dtype=dtype)) for label in ("a", "b", "a", 0)]
        return DataFrame([0, 1, 2], *columns)

    assert not changes(make(), lambda _: make())
    assert changes(make(), lambda v: v.series[column].array.values.__setitem__(1, 9))


@pytest.mark.usefixtures("libraries")
def test_changed_labels_of_a_frame_are_seen():
    def make() -> DataFrame:
        return DataFrame([0, 1], ("a", ndarray(1, 2, dtype="int64")), ("b", ndarray("x", "y")))

    assert changes(make(), lambda v: v.columns.__setitem__(1, "c"))
    assert changes(make(), lambda v: v.columns.reverse())
    assert changes(make(), lambda v: v.index.labels.__setitem__(1, 5))
    assert changes(make(), lambda v: v.index.labels.reverse())


@pytest.mark.usefixtures("libraries")
def test_objects_in_arrays_are_not_asked():
    one(ndarray(hostile(*SPECIAL, *PROPERTIES)))
    one(DataFrame([0], ("a", ndarray(hostile(*SPECIAL, *PROPERTIES)))))


@pytest.fixture
def np() -> Any:
    return pytest.importorskip("numpy")


@pytest.fixture
def pd(np: Any) -> Any:
    return pytest.importorskip("pandas")


def test_real_arrays(np: Any):
    said = one(np.arange(6).reshape(2, 3))
    assert said["type"] == "numpy.ndarray"
    assert said["detail"] == f"{np.arange(6).dtype} (2, 3)"
    assert said["bytes"] == np.arange(6).nbytes
    assert changes(np.zeros(3), lambda v: v.__setitem__(1, 5))
    assert changes(np.zeros((2, 3)), lambda v: v.T)
    assert changes(np.zeros(2), lambda v: v.astype("float32"))
    assert not changes(np.array([np.nan, 1]), lambda _: np.array([np.nan, 1]))
    assert changes(np.array(["a", [1]], dtype=object), lambda v: v[1].append(2))
    assert changes(np.arange(12)[::2], lambda v: v.__setitem__(1, 5))


def test_odd_things_of_numpys(np: Any):
    for value in (
        np.float64(1.5), np.int8(3), np.array(5), np.array([]), np.str_("a"), np.nan, np.sin, np,
        np.dtype("i4"), np.dtype([("a", "i4"), ("b", "O")]), np.random.default_rng(1),
        np.array(object(), dtype=object), np.zeros(2, dtype=[("a", "i4"), ("b", "O")]),
        np.array(["2020"], dtype="M8[D]"), np.ma.array([1, 2], mask=[0, 1]), np.eye(2).flat,
        np.broadcast_to(np.float64(1), (10, 10)),
    ):  # fmt: skip
        one(value)
    holder = np.empty(1, dtype=object)
    holder[0] = hostile(*SPECIAL)
    one(holder)
    cycle = np.empty(1, dtype=object)
    cycle[0] = cycle
    one(cycle)


def test_real_frames(pd: Any):
    def make() -> Any:
        data = {"n": [1.0, None, 3.0], "s": ["a", "b", "c"], "t": ["x", "y", "z"]}
        return pd.DataFrame(data, index=["i", "j", "k"]).astype({"s": object, "t": object})

    said = one(make())
    assert said["type"].startswith("pandas.")
    assert said["type"].endswith("DataFrame")
    assert said["detail"] == "(3, 3)"
    assert said["bytes"] > 0
    assert not changes(make(), lambda v: v.copy())
    for column in ("n", "s", "t"):
        assert changes(make(), lambda v, c=column: v.__setitem__(c, v[c][::-1].to_numpy()))
    assert changes(make(), lambda v: v.rename(index={"j": "l"}))
    assert changes(make(), lambda v: v.rename(columns={"t": "u"}))
    assert changes(make()["s"], lambda v: v.__setitem__("j", "q"))


def test_frames_with_columns_of_the_same_name(pd: Any):
    def make() -> Any:
        return pd.DataFrame([[1, "a", 2], [3, "b", 4]], columns=["x", "x", "x"])

    assert not changes(make(), lambda v: v.copy())
    for column in range(3):
        assert changes(make(), lambda v, k=column: v.isetitem(k, v.iloc[::-1, k].to_numpy()))


def test_odd_things_of_pandas(pd: Any):
    frame = pd.DataFrame({"a": [1, 2], "shape": [3, 4], "memory_usage": [5, 6]})
    for value in (
        pd, pd.NA, pd.NaT, pd.Timestamp("2020"), pd.Timedelta(1), pd.DataFrame(), frame,
        frame.groupby("a"), frame.index, pd.MultiIndex.from_tuples([(1, "a"), (2, "b")]),
        pd.Categorical(["a", "b"]), pd.Series([1, None], dtype="Int64"), pd.Interval(0, 1),
        pd.Series(pd.date_range("2020", periods=3, tz="UTC")), frame.set_index(["a", "shape"]),
        frame.rolling(1), pd.Series([{}, []]), pd.DataFrame({(1, 2): [1]}),
    ):  # fmt: skip
        one(value)
    label, on = armed("__str__", "__repr__", "__len__")
    labelled = pd.DataFrame({None: [1], label: [2]})
    on.append(True)
    one(labelled)
