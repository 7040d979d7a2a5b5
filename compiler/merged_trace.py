"""Several traces of one function as one, so that a later trace can disprove what an earlier one let be believed."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tidalctl.artifacts.errors import TidalError
from tidalctl.artifacts.records import Function
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import (
    AnyRecord,
    Environment,
    EnvironReads,
    Executed,
    FileOpened,
    FirstUse,
    FurtherCall,
    Import,
    ImportWork,
    InitCall,
    Invocation,
    Kernel,
    PathAsked,
    SourcesRead,
    Weight,
    WeightsBuilt,
    WeightWritten,
)
from tidalctl.artifacts.trace.tape import TapeRead, TapeStep
from tidalctl.compiler.variables import environ_reads

_OF_AN_EVENT = (InitCall, FurtherCall, Weight, TapeRead, TapeStep, FirstUse, WeightWritten, Kernel, Invocation)


def merge_traces(traces: Sequence[Trace], paths: Sequence[Path], vary: Sequence[str] = ()) -> Trace:
    """The events of all traces, in order, and the fields that may vary by any of them or by `vary`.

    Raises TidalError where they are not of one function in one environment.
    """
    first = traces[0]
    varied = tuple(dict.fromkeys([*(field for trace in traces for field in trace.header.vary), *vary]))
    once = any(trace.header.once for trace in traces)
    header = msgspec.structs.replace(first.header, vary=varied, once=once, function=_with_inits_that_run(first))
    if len(traces) == 1:
        return Trace(header, first.records, first.complete)
    for trace, path in zip(traces[1:], paths[1:], strict=True):
        _refuse_another(first, trace, paths[0], path)
    events = tuple(event for trace in traces for event in trace.header.events)
    merged = Trace(msgspec.structs.replace(header, events=events), [], all(trace.complete for trace in traces))
    event = weight = call = 0
    records: list[AnyRecord] = [merged.header]
    for trace in traces:
        records += [_moved(record, event, weight, call) for record in trace.records if isinstance(record, _OF_AN_EVENT)]
        event += len(trace.header.events)
        weight += len(trace.of(Weight))
        call += len(trace.of(InitCall))
    records += _of_the_process(traces)
    merged.records = records
    return merged


def _with_inits_that_run(trace: Trace) -> Function:
    """Return the function with the names of its inits as the trace saw them run: where they are defined, not where imported."""
    function, names = trace.header.function, [call.name for call in trace.of(InitCall)]

    def as_it_ran(init: str) -> str:
        last = re.split("[:.]", init)[-1]
        alike = [name for name in names if re.split("[:.]", name)[-1] == last]
        return init if init in names or not alike else alike[0]

    # one whose name says nothing of the code that runs (an alias, a partial) is the only one that was called
    alone = len(function.inits) == 1 and len({*names}) == 1
    return msgspec.structs.replace(function, inits=(names[0],) if alone else tuple(map(as_it_ran, function.inits)))


def _refuse_another(first: Trace, other: Trace, path: Path, another: Path) -> None:
    one, two = first.header, other.header
    if (one.function, one.root, one.argv) != (two.function, two.root, two.argv):
        raise TidalError(
            f"{another} is a trace of another function, project or command line than {path}", "trace it as the first"
        )
    mine, theirs = first.one(Environment), other.one(Environment)
    if mine is not None and theirs is not None and mine.fingerprint != theirs.fingerprint:
        raise TidalError(f"{another} was made in another environment than {path}", "make both in one environment")
    if environ_reads(first) != environ_reads(other):
        raise TidalError(
            f"{another} was made under other environment variables than {path}", "set those that the function reads alike"
        )


def _moved(record: Any, event: int, weight: int, call: int) -> AnyRecord:
    changes: dict[str, Any] = {"event": record.event + event}
    if isinstance(record, Weight | TapeRead | TapeStep):
        changes["call"] = record.call + call
    if isinstance(record, Weight):
        changes["index"] = record.index + weight
    elif isinstance(record, FirstUse | WeightWritten):
        changes["weight"] = record.weight + weight
    moved: AnyRecord = msgspec.structs.replace(record, **changes)
    return moved


def _of_the_process(traces: Sequence[Trace]) -> list[AnyRecord]:
    """What a trace holds once: modules and files in the order in which the first trace saw them, then what only later ones saw."""
    imports: dict[str, AnyRecord] = {}
    opened: dict[tuple[str, str], AnyRecord] = {}
    asked: dict[tuple[str, str, str], AnyRecord] = {}
    executed: dict[str, None] = {}
    sources: dict[str, None] = {}
    works: list[ImportWork] = [work for trace in traces for work in trace.of(ImportWork)]
    for trace in traces:
        for module in trace.of(Import):
            imports.setdefault(module.name, module)
        for file in trace.of(FileOpened):
            opened[(file.path, file.phase)] = file  # the latest, since a checkpoint may have changed between the two
        for question in trace.of(PathAsked):
            asked.setdefault((question.path, question.phase, question.kind), question)
        for ran in trace.of(Executed):
            executed.update(dict.fromkeys(ran.files))
        for read in trace.of(SourcesRead):
            sources.update(dict.fromkeys(read.files))
    work = ImportWork(
        texts=tuple(dict.fromkeys(text for work in works for text in work.texts)),
        patterns=tuple(dict.fromkeys(pattern for work in works for pattern in work.patterns)),
        scans=tuple({(scan.path, scan.pathlike): scan for work in works for scan in work.scans}.values()),
    )
    once = [record for kind in (Environment, EnvironReads, WeightsBuilt) if (record := traces[0].one(kind)) is not None]
    rest = (Executed(files=tuple(executed)), SourcesRead(files=tuple(sources)), work)
    return [*once, *imports.values(), *opened.values(), *asked.values(), *rest]
