"""Dropping a suspended frame runs none of its code, and nothing of anybody else's is harmed."""

# ruff: noqa: B008, F841 -- locals that nobody reads are what this file is about

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import gc
import importlib
import itertools
import random
import subprocess
import sys
import types
import warnings
import weakref
from pathlib import Path

import pytest

# By name: the package may offer the function of the same name.
module = importlib.import_module("rowtine.core.discard")
discard = module.discard


# ------------------------------------------------------------------------- what a frame may hold


@types.coroutine
def suspend(value=None):
    return (yield value)


def generator(ran, *held):
    try:
        yield
    finally:
        ran.append("generator")


def started(ran, *held):
    """A generator that stands inside its `try`."""
    made = generator(ran, *held)
    next(made)
    return made


async def asyncgen(ran):
    try:
        while True:
            yield
    finally:
        ran.append("async generator")


@contextlib.contextmanager
def manager(ran):
    try:
        yield
    finally:
        ran.append("with")


@contextlib.asynccontextmanager
async def async_manager(ran):
    try:
        yield
    finally:
        ran.append("async with")


class Manager:
    def __init__(self, ran):
        self.ran = ran

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ran.append("__exit__")

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.ran.append("__aexit__")


class Box:
    def __init__(self, item=None):
        self.item = item

    def method(self):
        """Bound, it holds the box."""


class SlottedBox:
    __slots__ = ("item",)

    def __init__(self, item):
        self.item = item


class Awaitable:
    def __init__(self, ran):
        self.ran = ran

    def __await__(self):
        try:
            yield self
        finally:
            self.ran.append("__await__")


async def its_own_finally(ran):
    try:
        await suspend()
    finally:
        ran.append("finally")


async def its_own_except(ran):
    try:
        await suspend()
    except BaseException:
        ran.append("except")
        raise


async def a_finally_it_is_suspended_in(ran):
    try:
        try:
            pass
        finally:
            await suspend()
            ran.append("the rest of the inner finally")
    finally:
        ran.append("the outer finally")


async def a_with_block(ran):
    with Manager(ran):
        await suspend()


async def an_async_with_block(ran):
    async with Manager(ran):
        await suspend()


async def a_context_manager(ran):
    with manager(ran):
        await suspend()


async def an_async_context_manager(ran):
    async with async_manager(ran) as _:
        await suspend()


async def an_exit_stack(ran):
    with contextlib.ExitStack() as stack:
        stack.enter_context(manager(ran))
        stack.enter_context(Manager(ran))
        stack.callback(ran.append, "callback")
        await suspend()


async def an_async_exit_stack(ran):
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(async_manager(ran))
        await stack.enter_async_context(Manager(ran))
        stack.enter_context(manager(ran))
        await suspend()


async def an_async_for(ran):
    async for _ in asyncgen(ran):
        await suspend()


async def an_async_generator_that_awaits(ran):
    async def numbers():
        async with async_manager(ran):
            await suspend()
            yield 1

    async for _ in numbers():
        pass


async def an_async_generator_being_closed(ran):
    async def numbers():
        try:
            yield 1
        finally:
            try:
                await suspend()
            finally:
                ran.append("aclose")

    made = numbers()
    await anext(made)
    await made.aclose()


async def a_long_await_chain(ran, depth=50):
    try:
        if depth:
            await a_long_await_chain(ran, depth - 1)
        else:
            await suspend()
    finally:
        ran.append(depth)


async def a_generator_based_coroutine(ran):
    @types.coroutine
    def old_style():
        try:
            yield from suspend()
        finally:
            ran.append("types.coroutine")

    await old_style()


async def an_awaitable(ran):
    await Awaitable(ran)


async def a_generator_in_a_local(ran):
    held = started(ran)
    await suspend()


async def a_generator_on_the_stack(ran):
    print(started(ran), await suspend())


async def a_generator_it_iterates(ran):
    for _ in generator(ran, started(ran)):
        await suspend()


async def a_yield_from(ran):
    def outer():
        try:
            yield from generator(ran)
        finally:
            ran.append("outer")

    for _ in outer():
        await suspend()


async def a_suspended_coroutine(ran):
    held = its_own_finally(ran)
    held.send(None)
    await suspend()


async def a_suspended_async_generator(ran):
    held = asyncgen(ran)
    await anext(held)
    await suspend()


async def containers(ran):
    held = [
        {"key": (started(ran), {started(ran)})},
        collections.deque([started(ran)]),
        collections.defaultdict(list, {started(ran): 1}),
        collections.OrderedDict(key=started(ran)),
        types.SimpleNamespace(item=started(ran)),
        types.MappingProxyType({"key": started(ran)}),
    ]
    await suspend()


async def instances(ran):
    held = Box(SlottedBox(started(ran)))
    bound = Box(started(ran)).method
    await suspend()


async def callables(ran):
    def closure(item):
        return lambda: item

    def default(item=started(ran), *, keyword=started(ran)):
        return item, keyword

    @functools.wraps(default)
    def wrapped():
        return default

    held = [
        closure(started(ran)),
        functools.partial(print, started(ran), key=started(ran)),
        started(ran).__next__,
        wrapped,
    ]
    del wrapped
    await suspend()


async def iterators(ran):
    held = [
        map(print, started(ran)),
        zip(started(ran), itertools.count(), strict=False),
        enumerate(started(ran)),
        itertools.chain(started(ran), [1]),
        itertools.islice(started(ran), 3),
        iter([started(ran)]),
    ]
    await suspend()


async def a_callers_locals(ran):
    locals()  # up to 3.12 this leaves a copy in the frame
    held = started(ran)
    locals()
    await suspend()


async def its_own_frame(ran):
    held = started(ran)
    frame = sys._getframe()
    seen = frame.f_locals
    await suspend()


async def an_exception(ran):
    held = started(ran)
    try:
        raise ValueError(started(ran))
    except ValueError as error:
        cause = error
        await suspend()


async def a_traceback_into_a_finished_frame(ran):
    def fail():
        held = started(ran)
        error = ValueError()
        raise error

    try:
        fail()
    except ValueError:
        await suspend()


async def a_chain_of_exceptions(ran):
    def fail():
        held = started(ran)
        raise ValueError

    try:
        try:
            fail()
        except ValueError as error:
            held = error
            raise KeyError from error
    except KeyError:
        await suspend()


async def a_list_in_itself(ran):
    held = [started(ran)]
    held.append(held)
    await suspend()


async def two_objects_that_know_each_other(ran):
    held = Box(started(ran))
    held.other = Box(held)
    await suspend()


async def a_generator_that_holds_itself(ran):
    box = []
    box.append(started(ran, box))
    await suspend()


async def a_cycle_over_every_kind(ran):
    box = Box()

    async def numbers(held):
        try:
            yield
        finally:
            ran.append("async generator")

    async def inner(held):
        try:
            await suspend()
        finally:
            ran.append("coroutine")

    box.generator = started(ran, box)
    box.coroutine = inner(box)
    box.coroutine.send(None)
    box.asyncgen = numbers(box)
    with contextlib.suppress(StopIteration):
        box.asyncgen.asend(None).send(None)
    box.function = lambda: box
    await suspend()


async def a_cycle_beside_the_program(ran):
    everything, held = sys.modules, [module, sys, Box, asyncio.sleep]
    held += [held, started(ran)]
    await suspend()


async def a_tree_with_parents(ran):
    root = Box([])
    for _ in range(200):
        child = Box(started(ran))
        child.parent = root
        root.item.append(child)
    del child
    await suspend()


HOLDERS = [
    its_own_finally,
    its_own_except,
    a_finally_it_is_suspended_in,
    a_with_block,
    an_async_with_block,
    a_context_manager,
    an_async_context_manager,
    an_exit_stack,
    an_async_exit_stack,
    an_async_for,
    an_async_generator_that_awaits,
    an_async_generator_being_closed,
    a_long_await_chain,
    a_generator_based_coroutine,
    an_awaitable,
    a_generator_in_a_local,
    a_generator_on_the_stack,
    a_generator_it_iterates,
    a_yield_from,
    a_suspended_coroutine,
    a_suspended_async_generator,
    containers,
    instances,
    callables,
    iterators,
    a_callers_locals,
    its_own_frame,
    an_exception,
    a_traceback_into_a_finished_frame,
    a_chain_of_exceptions,
    a_list_in_itself,
    two_objects_that_know_each_other,
    a_generator_that_holds_itself,
    a_cycle_over_every_kind,
    a_cycle_beside_the_program,
    a_tree_with_parents,
]


# ------------------------------------------------------------------------------- how it is dropped


def suspended(body, *args):
    coroutine = body(*args)
    coroutine.send(None)
    return coroutine


def living():
    """All that could still run a `finally`, by id."""
    return {id(each) for each in gc.get_objects() if issubclass(type(each), module._FINALIZABLE)}


@pytest.fixture(scope="module", autouse=True)
def _fast_collections():
    """What exists before these tests is none of their business."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _no_warning_and_no_noise(monkeypatch):
    """Nothing may be said about a dropped frame either, not even where no exception can go."""
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda each: unraisable.append(each.exc_value))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
        gc.collect()
    assert unraisable == []


def test_this_interpreter_can_drop_frames():
    assert module.works()


@pytest.mark.parametrize("body", HOLDERS)
def test_no_code_runs_when_a_discarded_frame_is_dropped(body):
    gc.collect()
    before, ran = living(), []
    coroutine = suspended(body, ran)
    assert ran == []

    discard(coroutine)
    del coroutine

    assert ran == []
    gc.collect()
    assert ran == []
    assert living() <= before


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("body", HOLDERS)
def test_code_does_run_when_the_same_frame_is_dropped_undiscarded(body, monkeypatch):
    """The control: each of these frames has something that the test above could miss."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    warnings.simplefilter("ignore")
    ran = []
    coroutine = suspended(body, ran)

    del coroutine
    gc.collect()

    assert ran != []


@pytest.mark.parametrize("body", HOLDERS)
def test_a_frame_in_a_cycle_with_its_holder_is_dropped_by_the_collector(body):
    ran = []
    holder = Box(suspended(body, ran))
    holder.cycle = holder
    gone = weakref.ref(holder)

    discard(holder.item)
    del holder

    gc.collect()
    assert gone() is None
    assert ran == []


def test_a_frame_that_was_never_started_is_dropped_without_a_warning():
    async def body():
        never_awaited = its_own_finally([])
        await suspend()

    for coroutine in (its_own_finally([]), suspended(body)):
        discard(coroutine)

    del coroutine, body
    gc.collect()  # warnings are errors here


def test_a_finished_frame_may_be_discarded():
    async def body():
        return 1

    coroutine = body()
    with pytest.raises(StopIteration):
        coroutine.send(None)

    discard(coroutine)


def test_a_discarded_frame_may_be_discarded_again():
    ran = []
    coroutine = suspended(containers, ran)

    discard(coroutine)
    discard(coroutine)
    del coroutine

    assert ran == []


def test_a_frame_with_more_private_objects_than_the_reach_is_dropped_whole():
    async def body(ran):
        rows = [{"row": [i]} for i in range(3 * module._REACH)]
        by_number = dict(enumerate(rows))
        held = [[started(ran)]]
        await suspend()

    ran = []
    coroutine = suspended(body, ran)

    discard(coroutine)
    del coroutine

    assert ran == []


def test_a_deep_structure_is_no_recursion():
    async def body(ran):
        held = started(ran)
        for _ in range(10_000):
            held = [held]
        await suspend()

    ran = []
    coroutine = suspended(body, ran)

    discard(coroutine)
    del coroutine

    assert ran == []


def test_no_method_of_a_held_object_is_called():
    def fail(*_):
        raise AssertionError

    class Meta(type):
        __eq__ = __hash__ = __instancecheck__ = __subclasscheck__ = fail

    class Touchy(metaclass=Meta):
        __getattribute__ = __eq__ = __hash__ = __len__ = __bool__ = __iter__ = __getitem__ = fail

    async def body(ran):
        held = Touchy()
        twice = [held, held]
        held, cycle = None, [Touchy(), started(ran)]
        cycle.append(cycle)
        await suspend()

    ran = []
    coroutine = suspended(body, ran)

    discard(coroutine)
    del coroutine

    gc.collect()
    assert ran == []


# -------------------------------------------------------------------------- what others hold too


async def holding(*held):
    await suspend()


def test_a_generator_held_elsewhere_ends_when_its_last_owner_lets_go():
    ran = []
    shared = started(ran)
    coroutine = suspended(holding, [shared])

    discard(coroutine)
    del coroutine

    assert ran == []
    del shared
    assert ran == ["generator"]


def test_a_generator_held_elsewhere_still_works():
    ran = []
    shared = started(ran)
    coroutine = suspended(holding, shared)

    discard(coroutine)
    del coroutine

    assert next(shared, "done") == "done"
    assert ran == ["generator"]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda item: [item],
        lambda item: {"key": (item,)},
        Box,
        lambda item: lambda: item,
        lambda item: functools.partial(print, item),
        lambda item: Box(item).method,
        lambda item: started([], item),
        lambda item: map(print, item),
    ],
)
def test_what_an_object_held_elsewhere_leads_to_is_not_marked(wrap):
    ran = []
    outside = wrap(started(ran))
    coroutine = suspended(holding, outside)

    discard(coroutine)
    del coroutine

    gc.collect()
    assert ran == []
    del outside
    gc.collect()
    assert ran == ["generator"]


def test_what_a_cycle_held_elsewhere_leads_to_is_not_marked():
    ran = []
    outside = [started(ran)]
    outside.append(outside)
    coroutine = suspended(holding, outside, outside)

    discard(coroutine)
    del coroutine

    gc.collect()
    assert ran == []
    del outside
    gc.collect()
    assert ran == ["generator"]


def test_a_cycle_held_only_by_another_cycle_of_the_frame_is_marked():
    ran = []

    async def body():
        first, second = [started(ran)], [started(ran)]
        first += [first, second]
        second += [second]
        del second
        await suspend()

    coroutine = suspended(body)

    discard(coroutine)
    del coroutine

    gc.collect()
    assert ran == []


def test_an_awaited_coroutine_held_elsewhere_is_not_marked():
    async def outer(inner):
        try:
            await inner
        finally:
            ran.append("outer")

    ran = []
    inner = its_own_finally(ran)
    coroutine = suspended(outer, inner)

    discard(coroutine)
    del coroutine

    assert ran == []
    del inner
    assert ran == ["finally"]


def test_a_generator_of_two_frames_dies_with_the_second():
    ran = []
    shared = started(ran)
    first, second = suspended(holding, shared), suspended(holding, shared)
    del shared

    discard(first)
    del first

    assert ran == []
    discard(second)
    del second
    assert ran == []


def test_a_generator_of_two_frames_still_ends_in_the_one_that_goes_on():
    ran = []
    shared = started(ran)
    first, second = suspended(holding, shared), suspended(holding, shared)
    del shared

    discard(first)
    del first

    with pytest.raises(StopIteration):
        second.send(None)
    assert ran == ["generator"]


def test_an_exception_held_elsewhere_does_not_end_the_frame_it_was_caught_in():
    """Its traceback keeps the frame's locals when the coroutine is gone."""
    kept, ran = [], []

    async def body():
        held = started(ran)
        try:
            raise ValueError
        except ValueError as error:
            kept.append(error)
            await suspend()

    coroutine = suspended(body)

    discard(coroutine)
    del coroutine
    gc.collect()
    kept.clear()
    gc.collect()

    assert ran == []


def test_what_a_global_variable_holds_is_not_marked(monkeypatch):
    ran = []
    monkeypatch.setitem(globals(), "of_the_module", started(ran))

    async def body():
        await suspend(lambda: of_the_module)  # noqa: F821

    coroutine = suspended(body)

    discard(coroutine)
    del coroutine

    assert ran == []
    del globals()["of_the_module"]
    assert ran == ["generator"]
    monkeypatch.setitem(globals(), "of_the_module", None)


def test_a_shared_object_is_not_looked_into():
    class App(module.Shared):
        pass

    app = App()
    app.everything = [Box([i]) for i in range(100)]
    coroutine = suspended(holding, app)

    doomed = module._doomed(coroutine)

    assert doomed[0] is coroutine
    assert len(doomed) < 10


def test_a_large_program_beyond_the_reach_hides_no_cycle_that_is_near():
    everything = [Box([i]) for i in range(3 * module._REACH)]
    ran = []

    async def body(everything):
        held = [started(ran)]
        held.append(held)
        await suspend()

    coroutine = suspended(body, everything)

    discard(coroutine)
    del coroutine

    gc.collect()
    assert ran == []


def test_beyond_the_reach_nothing_is_marked():
    """The documented fallback: a private cycle that far away ends as it would have."""
    ran = []

    async def body():
        root = [[] for _ in range(2 * module._REACH)]
        root[-1] += [root, started(ran)]
        root.append(root)
        await suspend()

    coroutine = suspended(body)

    discard(coroutine)
    del coroutine

    gc.collect()
    assert ran == ["generator"]


def wire(chance, ran):
    """A random graph of holders and of generators, some of which hold each other."""
    edges = [[] for _ in range(chance.randint(1, 30))]
    nodes = []
    for i, held in enumerate(edges):
        make = chance.choice(
            [
                lambda held, _: held,
                lambda held, _: Box(held),
                lambda held, _: SlottedBox(held),
                lambda held, _: lambda: held,
                lambda held, _: functools.partial(print, held),
                lambda held, i: named_generator(ran, i, held),
                lambda held, i: named_generator(ran, i, held),
                lambda held, i: named_coroutine(ran, i, held),
            ]
        )
        nodes.append(make(held, i))
    for held in edges:
        held.extend(chance.choices(nodes, k=chance.choice([0, 1, 1, 2, 3])))
    return nodes


def named_generator(ran, name, held):
    def body():
        try:
            yield held
        finally:
            ran.append(name)

    made = body()
    next(made)
    return made


def named_coroutine(ran, name, held):
    async def body():
        try:
            await suspend(held)
        finally:
            ran.append(name)

    return suspended(body)


@pytest.mark.parametrize("seed", range(300))
def test_in_any_graph_exactly_what_dies_is_marked(seed):
    chance, ran = random.Random(seed), []
    nodes = wire(chance, ran)
    made = {i: weakref.ref(n) for i, n in enumerate(nodes) if isinstance(n, module._FINALIZABLE)}
    outside = chance.sample(nodes, k=chance.choice([0, 0, 1, min(3, len(nodes))]))
    coroutine = suspended(holding, *chance.choices(nodes, k=chance.randint(1, 4)))
    # What neither the frame nor the outside holds would die now, as it must.
    del nodes
    gc.collect()
    ended = set(ran)

    discard(coroutine)
    del coroutine
    gc.collect()

    assert set(ran) == ended
    alive = {i: ref() for i, ref in made.items() if ref() is not None}
    assert not [i for i, each in alive.items() if gc.is_finalized(each)]
    last = set(alive)
    alive.clear()
    outside.clear()
    gc.collect()
    assert set(ran) == ended | last


# ------------------------------------------------------------------------------------- asyncio


def test_an_async_generator_is_not_closed_by_the_event_loop():
    ran = []

    async def main():
        coroutine = suspended(an_async_for, ran)
        assert len(asyncio.get_running_loop()._asyncgens) == 1

        discard(coroutine)
        del coroutine

        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(asyncio.get_running_loop()._asyncgens) == 0
        assert ran == []

    asyncio.run(main())
    assert ran == []


def test_an_async_generator_in_a_cycle_is_not_closed_by_the_event_loop():
    ran = []

    async def body():
        held = [asyncgen(ran)]
        held.append(held)
        await anext(held[0])
        await suspend()

    async def main():
        coroutine = suspended(body)

        discard(coroutine)
        del coroutine

        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)
        assert ran == []

    asyncio.run(main())
    assert ran == []


def test_an_async_generator_in_a_cycle_is_not_closed_at_the_end_of_the_loop(monkeypatch):
    ran = []

    async def body():
        held = [asyncgen(ran)]
        held.append(held)
        await anext(held[0])
        await suspend()

    async def main():
        coroutine = suspended(body)

        discard(coroutine)

    gc.disable()  # so it is still there when the loop ends
    try:
        asyncio.run(main())
    finally:
        gc.enable()

    assert ran == []
    gc.collect()
    assert ran == []


def test_a_frame_that_awaits_a_future_of_the_loop_is_dropped():
    ran = []

    async def body():
        try:
            await asyncio.sleep(3600)
        finally:
            ran.append("finally")

    async def main():
        coroutine = suspended(body)

        discard(coroutine)
        del coroutine

        gc.collect()
        await asyncio.sleep(0)
        assert ran == []

    asyncio.run(main())


# ----------------------------------------------------------------------- where it does not work


def test_where_it_does_not_work_a_frame_is_parked_and_counted(monkeypatch):
    monkeypatch.setattr(module, "_works", False)
    monkeypatch.setattr(module, "_parked", [])
    ran = []
    coroutine = suspended(its_own_finally, ran)
    parked = weakref.ref(coroutine)

    discard(coroutine)
    del coroutine

    gc.collect()
    assert not module.works()
    assert module.parked_count() == 1
    assert parked() is not None
    assert ran == []


def test_a_parked_frame_does_not_end_with_the_interpreter():
    program = """
import importlib
module = importlib.import_module("rowtine.core.discard")
module._works = {works}
class Never:
    def __await__(self):
        yield
async def body():
    try:
        await Never()
    finally:
        print("finally")
coroutine = body()
coroutine.send(None)
module.discard(coroutine)
print("end")
"""
    for works in (False, True):
        done = subprocess.run(
            [sys.executable, "-c", program.format(works=works)],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(module.__file__).parents[2],
        )

        assert (done.stdout, done.stderr) == ("end\n", "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_FINALIZED", 0),  # the bit has no effect
        ("_OURS", 1),  # references are counted too high
        ("_OURS", 3),  # or too low
        ("_FINALIZABLE", (types.CoroutineType, types.GeneratorType)),
        ("_FINALIZABLE", (types.CoroutineType, types.AsyncGeneratorType)),
        ("_FINALIZABLE", (types.GeneratorType, types.AsyncGeneratorType)),
    ],
)
def test_the_self_test_fails_where_the_technique_does_not_work(monkeypatch, name, value):
    monkeypatch.setattr(module, name, value)

    assert not module._self_test()


def test_the_self_test_does_not_touch_memory_of_other_interpreters(monkeypatch):
    monkeypatch.setattr(module, "_mark", None)
    monkeypatch.setattr(module.sysconfig, "get_config_var", lambda name: name == "Py_GIL_DISABLED")

    assert not module._self_test()
