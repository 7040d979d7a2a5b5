"""An init split in two does what the function does, for every event: what runs once, and what is taken out of the event later."""

import textwrap
import weakref
from collections.abc import Iterator

import pytest
from prefix_cases import Maker, making, outcome, same, why

from tidalctl.prefix import split_init


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Maker]:
    with making(tmp_path_factory.mktemp("apps")) as maker:
        yield maker


# --- what is static -----------------------------------------------------------------------------------------------------------------


def test_statements_that_never_mention_the_event_run_once_and_serve_every_event(make: Maker) -> None:
    module = make("""
        LOG = []

        def build(name):
            LOG.append(name)
            return [name]

        def load(event):
            '''Builds.'''
            base = build("base")
            scratch = build("scratch")
            tokenizer = build("tokenizer")
            return {"model": base + [event["adapter"]], "tokenizer": tokenizer}
    """)
    split = same(module, {"adapter": "a"}, {"adapter": "b"}, {})
    assert (split.carried, split.lines) == (("base", "tokenizer"), (10, 12))
    del module.LOG[:]
    carried = split.prefix()
    assert (carried, module.LOG) == ({"base": ["base"], "tokenizer": ["tokenizer"]}, ["base", "scratch", "tokenizer"])
    kept = split.prefix()
    del module.LOG[:]
    assert split.suffix(kept, {"adapter": "c"}) == {"model": ["base", "c"], "tokenizer": ["tokenizer"]}
    assert module.LOG == []


def test_a_function_without_parameters_is_static_up_to_its_return(make: Maker) -> None:
    module = make("""
        def load():
            model = list("ab")
            return {"model": model}
    """)
    split = split_init(module.load)
    assert split.suffix(split.prefix()) == module.load() == {"model": ["a", "b"]}
    assert split.lines == (3, 3)


def test_two_names_for_one_object_stay_two_names_for_one_object(make: Maker) -> None:
    module = make("""
        SHARED = []
        def load(event):
            one = list("a")
            two, shared = one, SHARED
            two.append(event["x"])
            return one, two, one is two, shared is SHARED
    """)
    same(module, {"x": 1}, {"x": 2})


def test_names_that_are_not_there_raise_what_they_raise(make: Maker) -> None:
    module = make("""
        def other(): return 0
        late = "the module's"
        def load(event):
            made = list("a")
            if not made:
                never = 1
            gone = list("b")
            del gone
            for each in made:
                pass
            try:
                raise ValueError("x")
            except ValueError as error:
                pass
            if event["x"] == 0: return never
            if event["x"] == 1: return gone
            if event["x"] == 2: return error
            if event["x"] == 3: del never
            if event["x"] == 4: never += 1
            if event["x"] == 5: return other() + unknown
            return each
    """)
    split = same(module, *({"x": n} for n in range(7)))
    assert split.carried == ("each", "error", "gone", "never")
    assert split.prefix() == {"each": "a"}
    module = make("""
        late = "the module's"
        def load(event):
            early = list("a")
            early.append(late)
            late = event["x"]
            return late
    """)
    assert outcome(split_init(module.load).prefix, module.__file__) == outcome(lambda: module.load({}), module.__file__)


def test_errors_come_from_the_users_own_lines_on_either_side(make: Maker) -> None:
    module = make("""
        import functools

        def mark(function):
            return function

        @mark
        @mark
        def load(event):
            made = list("a")
            if made == ["b"]:
                raise ValueError("static")

            def inner(value):
                return (
                    value["x"]
                    / value["y"]
                )
            return inner(event), made[
                event["z"]
            ]
    """)
    same(module, {}, {"x": 1, "y": 0}, {"x": 1, "y": 1}, {"x": 1, "y": 1, "z": 5}, 3)
    module = make("""
        def load(event):
            made = list("a")
            if made:
                made["no"]
            return event
    """)
    same(module, {}, 1)


def test_wrong_arguments_defaults_and_kinds_of_parameters_are_the_functions_own(make: Maker) -> None:
    module = make("""
        def load(event, /, scale: int = 2, *rest, dtype="f", **more) -> dict:
            base = list("ab")
            return base * scale, event, rest, dtype, more
    """)
    split = split_init(module.load)
    for arguments, keywords in [
        (({},), {}),
        (({}, 3, 4), {"dtype": "g", "event": 1, "carried": 2}),
        ((), {}),
        ((), {"event": {}}),
        (({},), {"scale": 1}),
    ]:
        assert outcome(lambda a=arguments, k=keywords: split.suffix(split.prefix(), *a, **k), "") == outcome(
            lambda a=arguments, k=keywords: module.load(*a, **k), ""
        )
    module = make("""
        def load(event):
            base = list("ab")
            return base, event
    """)
    split = split_init(module.load)
    assert outcome(lambda: split.suffix(split.prefix()), "") == outcome(module.load, "")
    assert outcome(lambda: split.suffix(split.prefix(), 1, 2), "") == outcome(lambda: module.load(1, 2), "")


def test_what_the_suffix_drops_is_freed_there_and_then(make: Maker) -> None:
    module = make("""
        class Big: pass
        import weakref
        def load(event):
            big = Big()
            seen = weakref.ref(big)
            big = event["x"]
            return seen() is None
    """)
    split = split_init(module.load)
    carried = split.prefix()
    assert list(carried) == ["seen"]
    module = make("""
        import weakref
        class Big: pass
        def load(event):
            big = Big()
            seen = weakref.ref(big)
            kept = [event, big]
            del big, kept
            return seen() is None
    """)
    split = same(module, {})
    carried = split.prefix()
    assert isinstance(carried["seen"], weakref.ref)
    assert split.suffix(carried, {}) is True
    assert carried == {}


# --- extractions --------------------------------------------------------------------------------------------------------------------


def test_extractions_from_the_event_move_past_static_statements(make: Maker) -> None:
    module = make("""
        import os
        LOG = []
        def load(event):
            adapter = event["adapter"]
            name: str = adapter.get("name", "none")
            path = os.path.join("/models", f"{name!s:>4}", str(len(adapter)))
            size = int(event.get("n", 1)) * 2 if event.get("n") and not event.get("off", {}) else [-1, name][0]
            LOG.append("built")
            base = list("ab")
            first = last = event["list"][1:]
            more = list(base)
            return base, adapter, name, path, size, first is last, more
    """)
    ok = {"adapter": {"name": "x", "k": 1}, "list": [1, 2], "n": 3}
    split = same(module, ok, {**ok, "n": 0}, {**ok, "off": {"a": 1}})
    assert (split.carried, split.lines) == (("base", "more"), (9, 12))
    # one that raises: the same error from the same line, though what is static has run
    for event in ({}, {"adapter": 3}, {"adapter": {}}):
        assert outcome(lambda e=event: split.suffix(split.prefix(), e), module.__file__) == outcome(
            lambda e=event: module.load(e), module.__file__
        )


@pytest.mark.parametrize(
    "value",
    [
        "event.pop('x')",
        "helper(event)",
        "event.keys()",
        "event.get(KEY)",
        "event.get(key='x')",
        "[x for x in event]",
        "lambda: event",
        "(y := event['x'])",
        "str(event, 'utf-8')",
        "max(event['x'], 1)",
        "len(event) + helper(1)",
        "other['x']",
        "posixpath.join('a', event['x'])",
    ],
)
def test_what_is_more_than_an_extraction_is_where_the_prefix_ends(make: Maker, value: str) -> None:
    module = make(f"""
        import posixpath
        KEY = "x"
        def helper(value): return value
        def load(event, other=None):
            base = list("ab")
            x = {value}
            after = list("cd")
            return base, after
    """)
    assert split_init(module.load).lines == (6, 6)


@pytest.mark.parametrize(
    "body",
    [
        "x = str(event['x'])\nstr = list\nafter = list('b')",  # a local of that name
        "used = list('b')\nprint(x) if not used else 0\nx = event['x']\nafter = list('b')",  # a static statement used the name
        "global G\nG = event['x']\nafter = list('b')",  # what others may see
        "(x, y) = event['x']\nafter = list('b')",
        "x = event['x']\nx += [1]\nafter = list('b')",
        "x = os.path.join(event['x'])\nafter = list('b')",  # os is not the module's
    ],
)
def test_extractions_that_something_else_could_tell_from_moved_ones_stay(make: Maker, body: str) -> None:
    module = make("def load(event):\n    base = list('a')\n" + textwrap.indent(body, "    ") + "\n    return base, after\n")
    assert split_init(module.load).lines[1] < body.count("\n") + 3


def test_a_builtin_that_the_module_shadows_is_not_pure_and_neither_is_a_default_that_others_hold(make: Maker) -> None:
    module = make("""
        def str(value): return value
        def load(event):
            x = str(event["x"])
            base = list("a")
            return base, x
    """)
    assert why(module) == "its first statement reads the event"
    module = make("""
        EVENT = {"x": 1}
        def change(): EVENT["x"] = 2
        def load(event=EVENT):
            x = event["x"]
            change()
            return x
    """)
    assert why(module) == "its first statement reads the event"
