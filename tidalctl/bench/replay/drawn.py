"""Arrivals that a seed decides: drawn by the laws that requests follow, or cut and thinned from recorded ones."""

import random
from pathlib import Path

import msgspec

from tidalctl.artifacts.errors import TidalError
from tidalctl.bench.replay.arrivals import MOST, Arrival, Arrivals, read_arrivals, zipf

BURST_GAP_S = 0.1  # mean time between two requests of a burst


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which arrivals are replayed: those of a file, cut to `seconds` and thinned to `rate` a second, or as many drawn ones.

    `functions` and `burst` are None where nobody asked for any.
    """

    path: Path | None
    functions: int | None
    rate: float | None
    seconds: float | None
    burst: float | None
    seed: int


def chosen_arrivals(choice: Choice, maps: int) -> Arrivals:
    """Read or draw the arrivals; where nothing says how many functions they are for, that is the number of maps.

    Raises TidalError where the choice asks for what there is not.
    """
    functions, seed = choice.functions or maps, choice.seed
    if choice.path is None:
        if choice.rate is None or choice.seconds is None:
            raise TidalError("no file of arrivals is named", "name one, or say what to draw: --rate 0.5 --seconds 600")
        return generate(functions, choice.rate, choice.seconds, choice.burst or 1.0, seed)
    if choice.burst is not None:
        raise TidalError("--burst is for arrivals that are drawn, and a file is named", "leave one of them out")
    found = read_arrivals(choice.path, functions, seed)
    if choice.functions not in (None, len(found.functions)):
        raise TidalError(
            f"--functions {choice.functions}: {choice.path} names its {len(found.functions)} functions itself",
            "leave it out; to have fewer functions, cut the file",
        )
    if choice.seconds is not None:
        found = first_seconds(found, choice.seconds)
    return found if choice.rate is None else thin(found, choice.rate, seed)


def generate(functions: int, rate: float, seconds: float, burst: float, seed: int) -> Arrivals:
    """Draw arrivals of `rate` requests a second in the mean: bursts come by Poisson's law, for functions by Zipf's.

    A burst has `burst` requests in the mean (geometrically many), all for one function; with 1, each request comes alone.
    """
    if rate * seconds > MOST:
        raise TidalError(f"{rate:g} requests a second for {seconds:g} s are more than {MOST:,}", "give a smaller --rate")
    dice = random.Random(f"{seed} arrivals")
    names = tuple(f"f{number}" for number in range(functions))
    draw = zipf(names, dice)
    found: list[Arrival] = []
    begin = dice.expovariate(rate / burst)
    while begin < seconds:
        at, function = begin, draw()
        more = True
        while more:
            found.append(Arrival(at, function))
            at += dice.expovariate(1 / BURST_GAP_S)
            more = dice.random() >= 1 / burst
        begin += dice.expovariate(rate / burst)
    kept = sorted((arrival for arrival in found if arrival.at_s < seconds), key=lambda arrival: arrival.at_s)
    if not kept:
        raise TidalError(
            f"no request comes within {seconds:g} s at {rate:g} a second", "give a higher --rate or more --seconds"
        )
    return Arrivals(source="generated", functions=names, seconds=seconds, arrivals=tuple(kept))


def first_seconds(trace: Arrivals, seconds: float) -> Arrivals:
    """Cut the arrivals to the first seconds of their own time. Raises TidalError where none is left."""
    kept = tuple(arrival for arrival in trace.arrivals if arrival.at_s < seconds)
    if not kept:
        first = trace.arrivals[0].at_s
        raise TidalError(f"no request came in the first {seconds:g} s", f"the first came at {first:.1f} s: give more --seconds")
    return msgspec.structs.replace(trace, arrivals=kept, seconds=min(trace.seconds, seconds))


def thin(trace: Arrivals, rate: float, seed: int) -> Arrivals:
    """Keep each arrival with one probability, so that `rate` a second are left in the mean.

    A lower rate keeps some of what a higher one keeps. Raises TidalError where there are fewer than that, or none is left.
    """
    if rate > trace.rate:
        raise TidalError(
            f"--rate {rate:g}: {trace.source} has {trace.rate:.3g} requests a second", "give a lower one, or a higher --speed"
        )
    dice = random.Random(f"{seed} thin")
    kept = tuple(arrival for arrival in trace.arrivals if dice.random() < rate / trace.rate)
    if not kept:
        raise TidalError(f"--rate {rate:g} leaves no request", "give a higher one, or more --seconds")
    return msgspec.structs.replace(trace, arrivals=kept)
