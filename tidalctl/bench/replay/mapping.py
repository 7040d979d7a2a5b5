"""`--map`: which bundle, and which event, serves which function of the arrivals."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from tidalctl.artifacts.errors import TidalError
from tidalctl.bench.replay.serving import Served
from tidalctl.bench.subject import open_subject
from tidalctl.function.context import context_fields
from tidalctl.function.event import read_object
from tidalctl.function.near_names import near_names

EXAMPLE = """for example: --map '*=app.bundle:{"prompt": "Hello"}'"""
ANY = "*"


class Mapping(msgspec.Struct, frozen=True):
    """A function's name, or `*` for those that no other mapping names; the path of a bundle; an event, JSON or a file with it."""

    function: str
    bundle: str
    event: str


def parse_mapping(text: str) -> Mapping:
    """Return what `FUNCTION=BUNDLE:EVENT` names. Raises TidalError where it is not of this form."""
    function, equals, rest = text.partition("=")
    bundle, colon, event = rest.partition(":")
    if not (function.strip() and bundle.strip() and event.strip()):
        missing = "=" if not equals else ":" if not colon else "a part"
        raise TidalError(f"--map {text!r} is not FUNCTION=BUNDLE:EVENT: {missing} is missing", EXAMPLE)
    return Mapping(function.strip(), bundle.strip(), event.strip())


def assign(functions: Sequence[str], mappings: Sequence[Mapping]) -> dict[str, int]:
    """Return the number of each function's mapping: the one that names it, or in turn one of those with `*`.

    Raises TidalError for a name that is no function's or that stands twice, and for a function that nothing serves.
    """
    named: dict[str, int] = {}
    for number, mapping in enumerate(mappings):
        name = mapping.function
        if name == ANY:
            continue
        if name not in functions:
            near = near_names(name, functions) or functions[:5]
            raise TidalError(f"--map {name}=…: no request is for {name}", f"the functions are: {', '.join(near)}")
        if name in named:
            raise TidalError(f"--map {name}=…: {name} was mapped before", "map it once")
        named[name] = number
    for_any = [number for number, mapping in enumerate(mappings) if mapping.function == ANY]
    others = [name for name in functions if name not in named]
    if others and not for_any:
        shown = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        raise TidalError(f"no --map serves {shown}", EXAMPLE)
    turns = {name: for_any[turn % len(for_any)] for turn, name in enumerate(others)}
    return {name: named[name] if name in named else turns[name] for name in functions}


def open_functions(functions: Sequence[str], mappings: Sequence[Mapping]) -> dict[str, Served]:
    """Open the bundles and read the events. Raises TidalError where one can't be used."""
    assigned = assign(functions, mappings)
    served: dict[int, Served] = {}
    for number in sorted(set(assigned.values())):
        mapping = mappings[number]
        subject = open_subject(Path(mapping.bundle))
        event, _ = read_object("--map", mapping.event, EXAMPLE)
        context = context_fields(subject.manifest.function.module, event)
        served[number] = Served(subject=subject, mapping=number, request=event, context=context)
    return {name: served[number] for name, number in assigned.items()}
