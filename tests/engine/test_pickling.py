"""Calls that stock clients pack are read here, and results that are packed here are read by stock clients."""

from __future__ import annotations

import datetime
import functools
import sys
from types import ModuleType
from typing import Any

import numpy
import pytest
from ipyparallel import serialize as stock
from ipyparallel.controller.dependency import depend, require
from ipyparallel.util import _execute, _pull, _push, interactive

from trio_hub.client.packing import pack_call, pack_function, unpack_value_untrusted
from trio_hub.engine.canned import UnmetDependency
from trio_hub.engine.pickling import Pickling

Namespace = dict[str, Any]


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch) -> Namespace:
    module = type(sys)("__main__")
    module.__dict__["__builtins__"] = __builtins__
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module.__dict__


def packed(function: Any, *args: Any, **kwargs: Any) -> list[Any]:
    return [bytes(buffer) for buffer in stock.pack_apply_message(function, args, kwargs)]


def in_main(function: Any) -> Any:
    function.__module__ = "__main__"
    return function


def call(pickling: Pickling, buffers: list[Any]) -> Any:
    function, args, kwargs = pickling.unpack_call(buffers)
    return function(*args, **kwargs)


def back(pickling: Pickling, value: Any) -> Any:
    return stock.deserialize_object(pickling.pack_result(value))[0]


def test_functions_arguments_and_closures(namespace: Namespace) -> None:
    offset, pickling = 10, Pickling(namespace)
    namespace["scale"] = 3

    @in_main
    def shifted(number: int, *, by: int = 1) -> Any:
        return (number + by + offset) * scale  # type: ignore[name-defined]  # noqa: F821

    assert call(pickling, packed(shifted, 1)) == 36
    assert call(pickling, packed(shifted, 1, by=2)) == 39
    assert call(pickling, packed(functools.partial(shifted, by=5), 1)) == 48
    assert call(pickling, packed(in_main(lambda f: f(1)), shifted)) == 36
    assert call(pickling, packed(abs, -1)) == 1
    assert call(pickling, packed(stock.Reference("scale.__add__"), 1)) == 4
    assert call(pickling, packed(abs, stock.Reference("scale - 9"))) == 6


def test_arrays_and_buffers(namespace: Namespace) -> None:
    pickling = Pickling(namespace)
    array = numpy.arange(10_000.0)
    function, (one, two, three, many), _ = pickling.unpack_call(
        packed(max, array, b"x" * 5000, memoryview(b"m" * 5000), [array, 1])
    )
    assert function is max
    assert (one == array).all()
    assert not one.flags.owndata, "the array shares the memory in which it came"
    assert two == b"x" * 5000
    assert bytes(three) == b"m" * 5000
    assert (many[0] == array).all()
    assert many[1] == 1


@pytest.mark.parametrize(
    "value",
    [
        *(
            None,
            True,
            5,
            1.5,
            "text",
            b"x" * 5000,
            b"few",
            [1, b"y" * 2000],
            (1, 2),
            {1, 2},
            {"b": 1, "a": b"z" * 2000},
        ),
        *([], {}, list(range(100)), {i: i for i in range(100)}, datetime.date(2020, 1, 1), {1: {2: [b"q" * 3000]}}),
    ],
)
def test_results_come_back(value: Any, namespace: Namespace) -> None:
    pickling = Pickling(namespace)
    assert back(pickling, value) == value
    assert unpack_value_untrusted(pickling.pack_result(value)) == value


@pytest.mark.parametrize(
    "array",
    [
        *(numpy.arange(5.0), numpy.arange(10_000.0), numpy.arange(10_000.0).reshape(100, 100).T, numpy.zeros((0, 3))),
        *(numpy.array([None, "x"], dtype=object), numpy.zeros(3, dtype=[("a", "i4"), ("b", "f8")]), numpy.array(5)),
    ],
)
def test_arrays_come_back(array: Any, namespace: Namespace) -> None:
    pickling = Pickling(namespace)
    for value in (back(pickling, array), unpack_value_untrusted(pickling.pack_result(array))):
        assert value.dtype == array.dtype
        assert value.shape == array.shape
        assert (value == array).all()


def test_functions_and_classes_come_back(namespace: Namespace) -> None:
    pickling = Pickling(namespace)
    base = 5
    function = back(pickling, in_main(lambda x: x + base))
    assert function(1) == 6
    assert back(pickling, functools.partial(in_main(lambda x, y: x - y), y=3))(5) == 2
    assert back(pickling, in_main(type("Point", (), {"x": 1})))().x == 1
    assert back(pickling, sorted) is sorted


def test_helpers_of_stock_clients_need_no_ipyparallel(namespace: Namespace) -> None:
    pickling = Pickling(namespace)
    call(pickling, packed(_push, a=5, b=in_main(lambda: 6)))
    assert namespace["a"] == 5
    assert call(pickling, packed(_pull, "a + b()")) == 11
    assert call(pickling, packed(_pull, ["a", "a * 2"])) == [5, 10]
    call(pickling, packed(_execute, "c = a + 1"))
    assert namespace["c"] == 6


def test_dependencies(namespace: Namespace) -> None:
    pickling = Pickling(namespace)

    @require("math", double=in_main(lambda x: 2 * x))
    @interactive
    def needs(x: float) -> Any:
        return math.sqrt(double(x))  # type: ignore[name-defined]  # noqa: F821

    assert call(pickling, packed(needs, 8)) == 4
    with pytest.raises(UnmetDependency):
        call(pickling, packed(require("no_such_module")(in_main(lambda: 1))))
    assert call(pickling, packed(depend(in_main(lambda: True))(in_main(lambda: 3)))) == 3
    with pytest.raises(UnmetDependency):
        call(pickling, packed(depend(in_main(lambda: False))(in_main(lambda: 3))))


def test_calls_of_our_client(namespace: Namespace) -> None:
    pickling = Pickling(namespace)
    array = numpy.arange(1000.0)
    offset = 1
    buffers = pack_call(pack_function(lambda x, y: x + y + offset), (array,), {"y": 2.0})
    assert (call(pickling, [bytes(buffer) for buffer in buffers]) == array + 3).all()


# Functions that come again


def times(pickling: Pickling, buffers: list[Any], number: int = 3) -> list[Any]:
    return [call(pickling, buffers) for _ in range(number)]


def test_a_function_that_comes_again_is_the_same(namespace: Namespace) -> None:
    pickling = Pickling(namespace)
    for buffers in (packed(in_main(lambda x: x + 1), 1), [*pack_call(pack_function(lambda x: x + 1), (1,), {})]):
        first, again = pickling.unpack_call(buffers).function, pickling.unpack_call(buffers).function
        assert first is again


def test_a_call_never_sees_what_the_last_one_has_changed(namespace: Namespace) -> None:
    """The result is the same as with an engine that unpickles each function again."""
    pickling = Pickling(namespace)
    seen: list[int] = []
    count = 0

    def appends() -> int:
        seen.append(1)
        return len(seen)

    def counts() -> int:
        nonlocal count
        count += 1
        return count

    def default(into: list[int] = []) -> int:  # noqa: B006 - the point of it
        into.append(1)
        return len(into)

    def attribute() -> int:
        attribute.calls = getattr(attribute, "calls", 0) + 1  # type: ignore[attr-defined]
        return int(attribute.calls)  # type: ignore[attr-defined]

    for function in (appends, counts, default, attribute):
        if function is not attribute:  # stock clients cannot send a function that names itself
            assert times(pickling, packed(in_main(function))) == [1, 1, 1], function
        assert times(pickling, pack_call(pack_function(function), (), {})) == [1, 1, 1], function


class Number(int):
    """A number to which a call can give attributes."""


@pytest.mark.parametrize(
    "source",
    [
        "f.calls = getattr(f, 'calls', 0) + 1; return f.calls",
        "f.__defaults__ = (step + 1,); return step + 1",
        "f.__kwdefaults__['other'] = other + 1; return other + 1",
        "f.__annotations__['n'] = f.__annotations__.get('n', 0) + 1; return f.__annotations__['n']",
        "f.__globals__['total'] = total + 1; return total",
        "globals()['total'] = total + 1; return total",
        "g.calls = getattr(g, 'calls', 0) + 1; return g.calls",
        "append(0); return append.__self__.__len__()",
        "module.calls = getattr(module, 'calls', 0) + 1; return module.calls",
        "number.calls = getattr(number, 'calls', 0) + 1; return number.calls",
    ],
)
def test_a_call_never_sees_what_the_last_one_has_changed_by_name(source: str, namespace: Namespace) -> None:
    scope: Namespace = {"__name__": "__main__", "total": 0, "g": in_main(lambda: 0), "append": [].append}
    scope |= {"module": ModuleType("made_here"), "number": Number(1)}
    exec(f"def f(step=0, *, other=0): {source}", scope)
    assert times(Pickling(namespace), pack_call(pack_function(scope["f"]), (), {})) == [1, 1, 1]


def test_a_call_never_sees_what_the_last_one_has_changed_in_a_closure(namespace: Namespace) -> None:
    total = 0
    scope: Namespace = {"__name__": "__main__"}
    exec("def outer():\n  x = 1\n  def deletes():\n    nonlocal x\n    del x\n    return 1\n  return deletes", scope)
    assert times(Pickling(namespace), packed(scope["outer"]())) == [1, 1, 1]
    pickling, buffers = Pickling(namespace), packed(in_main(lambda: total))
    for _ in range(2):
        function: Any = pickling.unpack_call(buffers).function
        assert function() == 0
        function.__closure__[0].cell_contents = 1


def test_a_function_of_main_is_looked_up_each_time(namespace: Namespace) -> None:
    pickling = Pickling(namespace)
    buffers = [b"c__main__\nf\n.", packed(list)[1]]
    for value in (1, 2):
        namespace["f"] = in_main(lambda value=value: value)
        namespace["f"].__qualname__ = "f"
        assert call(pickling, buffers) == value


def test_a_named_function_that_a_function_uses_is_looked_up_each_time(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("loaded_again")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec("def one(): return 1", module.__dict__)
    scope: Namespace = {"__name__": "__main__", "one": module.one}
    exec("def f(): return one()", scope)
    pickling, buffers = Pickling(namespace), pack_call(pack_function(scope["f"]), (), {})
    assert times(pickling, buffers) == [1, 1, 1]
    exec("def one(): return 2", module.__dict__)
    assert times(pickling, buffers) == [2, 2, 2]


def test_a_named_function_that_comes_again_is_looked_up_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("loaded_again")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec("def f(): return 1", module.__dict__)
    pickling, buffers = Pickling({}), pack_call(pack_function(module.f), (), {})
    assert times(pickling, buffers) == [1, 1, 1]
    exec("def f(): return 2", module.__dict__)
    assert times(pickling, buffers) == [2, 2, 2]
    del module.f
    with pytest.raises(AttributeError, match="loaded_again"):
        call(pickling, buffers)


def test_a_pickle_that_chooses_a_named_function_is_read_each_time(namespace: Namespace) -> None:
    """Its bytes tell only how the function is found: here, under a name that is not the function's own."""
    pickling, buffers = Pickling(namespace), [b"c__main__\nchosen\n.", *pack_call([], ([-1],), {})]
    for function, value in ((len, 1), (sum, -1)):
        namespace["chosen"] = function
        assert times(pickling, buffers, 2) == [value, value]


def test_a_global_of_a_function_by_value_is_its_own(namespace: Namespace) -> None:
    scope: Namespace = {"__name__": "__main__", "total": 0}
    exec("def adds():\n  global total\n  total += 1\n  return total", scope)
    assert times(Pickling(namespace), pack_call(pack_function(scope["adds"]), (), {})) == [1, 1, 1]


def test_the_users_namespace_is_shared_by_all_calls(namespace: Namespace) -> None:
    scope: Namespace = {"__name__": "__main__"}
    exec("def adds():\n  global total\n  total += 1\n  return total", scope)
    namespace["total"] = 0
    assert times(Pickling(namespace), packed(scope["adds"])) == [1, 2, 3]


def test_a_reference_is_looked_up_each_time(namespace: Namespace) -> None:
    pickling = Pickling(namespace)
    buffers = packed(stock.Reference("f"))
    for value in (1, 2):
        namespace["f"] = lambda value=value: value
        assert call(pickling, buffers) == value
