"""Arrivals: when requests came, and for which function, read from a file.

A file is CSV with a header that tells its format:

- `TIMESTAMP,…`: one row a request, as Azure's LLM traces have it. It names no functions: rows are dealt to some, by Zipf's law.
- `…,HashFunction,Trigger,1,2,3,…`: one row a function, with its requests in each minute, as Azure's functions traces have it.
- `at_s,function`: one row a request, in seconds from the beginning.
"""

import csv
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from tidalctl.artifacts.errors import TidalError

FORMATS = "its header must be TIMESTAMP,… or …,HashFunction,Trigger,1,2,3,… or at_s,function"
MOST = 5_000_000  # requests
PREFIX = 8  # characters of a function's hash that name it, or as many more as tell all apart


class Arrival(msgspec.Struct, frozen=True):
    """One request: when it came, in seconds from the beginning, and for which function."""

    at_s: float
    function: str


class Arrivals(msgspec.Struct, frozen=True, kw_only=True):
    """Requests sorted by their times, the names of the functions that they may be for, and how long all this took."""

    source: str
    functions: tuple[str, ...]
    seconds: float
    arrivals: tuple[Arrival, ...]

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.arrivals) / self.seconds


def read_arrivals(path: Path, functions: int, seed: int) -> Arrivals:
    """Read a file of one of the formats above. Where that names no functions, rows are dealt to `functions` of them.

    Raises TidalError where the file is of no such format, or a row is not as its header promises.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            numbered = ((number, row) for number, row in enumerate(rows, 2) if row)
            found = _reader(path, header)(path, header, numbered, functions, seed)
    except OSError as error:
        raise TidalError(f"{path} can't be read: {error.strerror}", "name a file of recorded arrivals (CSV)") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise TidalError(f"{path} is not CSV: {error}", FORMATS) from None
    if not found.arrivals:
        raise TidalError(f"{path} has no requests", "name a file with rows below its header")
    return found


Rows = Iterator[tuple[int, list[str]]]
Reader = Callable[[Path, Sequence[str], Rows, int, int], Arrivals]


def _reader(path: Path, header: Sequence[str]) -> Reader:
    if not header:
        raise TidalError(f"{path} is empty", FORMATS)
    if "HashFunction" in header:
        return _read_minutes
    if "TIMESTAMP" in header:
        return _read_timestamps
    if "at_s" in header and "function" in header:
        return _read_seconds
    raise TidalError(f"{path} has the columns {', '.join(header[:6])[:120]}, and is of no known format", FORMATS)


def _cell(path: Path, number: int, row: Sequence[str], column: int, name: str) -> str:
    if column >= len(row):
        raise TidalError(f"{path}, line {number}: there is no {name}", "each row needs all columns of the header")
    return row[column].strip()


def _read_timestamps(path: Path, header: Sequence[str], rows: Rows, functions: int, seed: int) -> Arrivals:
    column = header.index("TIMESTAMP")
    times: list[datetime] = []
    for number, row in rows:
        text = _cell(path, number, row, column, "TIMESTAMP")
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            raise TidalError(
                f"{path}, line {number}: {text[:40]!r} is no time", "write it as 2023-11-16 18:17:03.9799600"
            ) from None
        times.append(time if time.tzinfo else time.replace(tzinfo=UTC))
    times.sort()
    names = tuple(f"f{number}" for number in range(functions))
    draw = zipf(names, random.Random(f"{seed} functions"))
    arrivals = tuple(Arrival((time - times[0]).total_seconds(), draw()) for time in times)
    return Arrivals(source=path.name, functions=names, seconds=_span(arrivals), arrivals=arrivals)


def _read_seconds(path: Path, header: Sequence[str], rows: Rows, functions: int, seed: int) -> Arrivals:
    columns = header.index("at_s"), header.index("function")
    found: list[Arrival] = []
    for number, row in rows:
        text, function = (_cell(path, number, row, column, header[column]) for column in columns)
        try:
            at = float(text)
        except ValueError:
            at = -1.0
        if not 0 <= at < math.inf:
            raise TidalError(f"{path}, line {number}: {text[:40]!r} is no time", "at_s is seconds from the beginning")
        if not function:
            raise TidalError(f"{path}, line {number}: the function has no name", "name it in the column function")
        found.append(Arrival(at, function))
    found.sort(key=lambda arrival: arrival.at_s)
    names = tuple(dict.fromkeys(arrival.function for arrival in found))
    return Arrivals(source=path.name, functions=names, seconds=_span(found), arrivals=tuple(found))


def _read_minutes(path: Path, header: Sequence[str], rows: Rows, functions: int, seed: int) -> Arrivals:
    minutes = {column: int(name) for column, name in enumerate(header) if name.isascii() and name.isdigit() and int(name) > 0}
    if not minutes:
        raise TidalError(f"{path} has no columns of minutes", FORMATS)
    column = header.index("HashFunction")
    counts: list[tuple[str, int, int]] = []  # the function's hash, the minute, its requests
    for number, row in rows:
        function = _cell(path, number, row, column, "HashFunction")
        for place, minute in minutes.items():
            text = _cell(path, number, row, place, f"minute {minute}")
            if not (text.isascii() and text.isdigit()):
                raise TidalError(
                    f"{path}, line {number}: {text[:40]!r} is no number of requests", "write 0 where there are none"
                )
            counts.append((function, minute, int(text)))
    if sum(count for _, _, count in counts) > MOST:
        raise TidalError(f"{path} has more than {MOST:,} requests", "keep fewer of its rows or columns")
    names = _short(dict.fromkeys(function for function, _, _ in counts))
    dice = random.Random(f"{seed} minutes")
    arrivals = [
        Arrival((minute - 1 + dice.random()) * 60, names[function]) for function, minute, count in counts for _ in range(count)
    ]
    arrivals.sort(key=lambda arrival: arrival.at_s)
    seconds = max(minutes.values()) * 60.0
    return Arrivals(source=path.name, functions=tuple(names.values()), seconds=seconds, arrivals=tuple(arrivals))


def _short(hashes: dict[str, None]) -> dict[str, str]:
    """Name each hash by its first characters, as many as tell them all apart."""
    longest = max((len(name) for name in hashes), default=0)
    length = next(n for n in itertools.count(PREFIX) if n >= longest or len({name[:n] for name in hashes}) == len(hashes))
    return {name: name[:length] for name in hashes}


def _span(arrivals: Sequence[Arrival]) -> float:
    """Seconds from the beginning to the last request; a second where that is at the beginning itself."""
    return (arrivals[-1].at_s if arrivals else 0.0) or 1.0


def zipf(names: Sequence[str], dice: random.Random) -> Callable[[], str]:
    """A draw from the names, the n-th of which is drawn with a probability in proportion to 1/n."""
    shares = list(itertools.accumulate(1 / rank for rank in range(1, len(names) + 1)))
    return lambda: dice.choices(names, cum_weights=shares)[0]
