"""What does an adapter never traced cost beside the static function's bundle?

    python benchmarks/adapters.py [--shape 1b|tiny] [-n 7] [--models build/models] [--work build/adapters] [--output FILE]

Five functions of `apps/`: the base model and a fixed adapter (both static), and an adapter that the event names: attached in the
handler to a base model that a nested static init gives, attached by init, and merged by init. The nested one is traced with one
adapter, the last two with two, of two ranks; all are measured with others. Each turn starts every function from its bundle and
plain, in fresh processes over a warm page cache, in an order that turns around; a ratio is the median over the turns' own ratios.
Every sample is in the JSON. Makes models, traces and bundles first; --reuse keeps bundles.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from measure import say, tidalctl

from tidalctl.artifacts.errors import TidalError
from tidalctl.bench.page_cache import cached_files, fill
from tidalctl.bench.processes import Run, run_bundle, run_eager
from tidalctl.bench.samples import VARIANTS, Sample, Variant, spread
from tidalctl.bench.subject import Subject, comparable, open_subject
from tidalctl.report.machine import describe_machine

HERE = Path(__file__).parent
FUNCTIONS = {
    "base": "base model, static",
    "static": "fixed adapter, static",
    "nested": "adapter of the event, nested static init",
    "adapter": "adapter of the event, attached by init",
    "merged": "adapter of the event, merged by init",
}
NAMED = ("nested", "adapter", "merged")  # functions whose event names the adapter
DYNAMIC = ("adapter", "merged")  # of those, whose init depends on it
FIXED, TRACED, HELD_OUT = 0, (1, 2), (3, 4, 5, 6)  # adapters by number; their ranks alternate
PROMPT, TOKENS, VOCABULARY = 32, 8, 256  # ids that every shape has
Key = tuple[str, Variant]
RATIOS: dict[str, tuple[Key, Key]] = {
    "nested / fixed adapter": (("nested", "bundle"), ("static", "bundle")),
    "adapter of the event / fixed adapter": (("adapter", "bundle"), ("static", "bundle")),
    "adapter of the event / base model": (("adapter", "bundle"), ("base", "bundle")),
    "merged / fixed adapter": (("merged", "bundle"), ("static", "bundle")),
    "merged / base model": (("merged", "bundle"), ("base", "bundle")),
    **{f"{FUNCTIONS[name]}: bundle / plain": ((name, "bundle"), (name, "eager")) for name in FUNCTIONS},
}


@dataclass(frozen=True)
class Taken:
    """One process: whose it was, what it gave, and how much of the files that it reads lay in memory before."""

    turn: int
    function: str
    variant: Variant
    adapter: str | None
    run: Run
    resident: float | None
    warm: bool

    @property
    def key(self) -> Key:
        return self.function, self.variant


def event(number: int, adapter: str | None) -> str:
    """A request with a prompt of its own."""
    request: dict[str, Any] = {"prompt": [(37 * i + 11 + 5 * number) % VOCABULARY for i in range(PROMPT)], "tokens": TOKENS}
    return json.dumps(request | ({"adapter": adapter} if adapter else {}))


def make_models(options: argparse.Namespace) -> list[str]:
    """The adapters' folders. The functions find the rest in the environment. In a process of its own, which imports torch."""
    command = [sys.executable, str(HERE / "models.py"), "--shape", options.shape, "--models", str(options.models)]
    command += ["--adapters", str(1 + max(HELD_OUT)), "--targets", options.targets]
    made = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    os.environ |= {"LLAMA_BASE": made["base"], "LLAMA_ADAPTER": made["adapters"][FIXED], "HF_HUB_OFFLINE": "1"}
    return made["adapters"]


def make_bundle(function: str, adapters: Sequence[str], options: argparse.Namespace) -> Subject:
    folder = options.work.absolute() / f"{options.shape}-{options.targets}"
    trace, bundle = folder / f"{function}.trace", folder / f"{function}.bundle"
    if not (options.reuse and bundle.is_dir()):
        folder.mkdir(parents=True, exist_ok=True)
        traced = TRACED if function in DYNAMIC else TRACED[:1]
        seen = [adapters[number] for number in traced] if function in NAMED else [None]
        events = [part for number, adapter in enumerate(seen) for part in ("--event", event(number, adapter))]
        app = str(HERE / "apps" / f"llama_{function}.py")
        vary = ("--vary", "adapter") if function in DYNAMIC else ()
        tidalctl("trace", app, *events, *vary, "-o", str(trace), "--force")
        tidalctl("compile", str(trace), "-o", str(bundle), "--force")
    return open_subject(bundle)


def take(turn: int, function: str, variant: Variant, subject: Subject, adapter: str) -> Taken:
    named = adapter if function in NAMED else None
    # apart, so that the large files can't hide that a small one is missing
    parts: list[Sequence[Path]] = [subject.read, cached_files(Path(named).iterdir()) if named else ()]
    if variant == "bundle":
        parts.append(subject.weights)
    found = [fill(files) for files in parts if files]
    request = event(len(TRACED), named)
    run = run_eager(subject.plain, request) if variant == "eager" else run_bundle(subject.path, subject.plain, request)
    shares = [part.share for part in found if part.share is not None]
    return Taken(
        turn=turn,
        function=function,
        variant=variant,
        adapter=Path(named).name if named else None,
        run=run,
        resident=min(shares, default=None),
        warm=all(part.warm for part in found),
    )


def take_all(subjects: dict[str, Subject], adapters: Sequence[str], turns: int) -> Iterator[Taken]:
    order = [(function, variant) for variant in reversed(VARIANTS) for function in FUNCTIONS]
    for function, variant in order:
        say(f"warm-up: {function} {variant}")
        take(-1, function, variant, subjects[function], adapters[HELD_OUT[0]])
    for turn in range(turns):
        adapter = adapters[HELD_OUT[turn // 2 % len(HELD_OUT)]]  # each in both orders
        for function, variant in order if turn % 2 == 0 else order[::-1]:
            taken = take(turn, function, variant, subjects[function], adapter)
            say(f"{turn + 1}/{turns} {function} {variant}: {taken.run.ttft_s:.3f} s, {taken.run.strategy}")
            yield taken


def plain_answers(taken: Sequence[Taken]) -> dict[tuple[str, str | None], str]:
    """By function and adapter, what the first plain run gave."""
    answers: dict[tuple[str, str | None], str] = {}
    for one in taken:
        if one.variant == "eager":
            answers.setdefault((one.function, one.adapter), comparable(one.run.output))
    return answers


def sample(one: Taken, expected: str) -> dict[str, Any]:
    run = one.run
    found = Sample(
        variant=one.variant,
        cache="warm",
        ttft_s=run.ttft_s,
        total_s=run.total_s,
        exit_s=run.exit_s,
        phases={name: round(seconds, 6) for name, seconds in run.phases.items()},
        own_s=run.own_s,
        output_equal=comparable(run.output) == expected,
        resident_before=one.resident,
        cache_proved=one.warm,
        strategy=run.strategy,
        fallback=run.fallback,
    )
    return {"turn": one.turn, "function": one.function, "adapter": one.adapter, **msgspec.to_builtins(found)}


def ratio(taken: Sequence[Taken], over: Key, under: Key) -> dict[str, Any]:
    """Of the times to first token, turn by turn."""
    above, below = ({one.turn: one.run.ttft_s for one in taken if one.key == key} for key in (over, under))
    pairs = [above[turn] / below[turn] for turn in above]
    return {"median": statistics.median(pairs), "pairs": pairs}


def document(taken: Sequence[Taken], subjects: dict[str, Subject], options: argparse.Namespace) -> dict[str, Any]:
    answers = plain_answers(taken)
    unmerged = [
        answer for (function, _), answer in answers.items() if function not in ("base", "merged", "nested")
    ]  # nested has the adapters that adapter has
    return {
        "schema": 1,
        "machine": describe_machine(subjects["base"].manifest.fingerprint.torch),
        "model": {"shape": options.shape, "targets": options.targets, "prompt": PROMPT, "tokens": TOKENS},
        "bundles": {
            name: {
                "digest": subject.manifest.digest,
                "strategy": subject.manifest.strategy,
                "fallbacks": msgspec.to_builtins(subject.manifest.fallbacks),
            }
            for name, subject in subjects.items()
        },
        "adapters_tell": len(set(unmerged)) == len(unmerged),  # else equal outputs would prove little
        "ratios": {name: ratio(taken, *keys) for name, keys in RATIOS.items()},
        "samples": [sample(one, answers[one.function, one.adapter]) for one in taken],
    }


def report(result: dict[str, Any]) -> Iterator[str]:
    samples = result["samples"]
    yield "| first token, files in memory | from the bundle | plain | state made by |"
    yield "| --- | --- | --- | --- |"
    for function, label in FUNCTIONS.items():
        cells = []
        for variant in ("bundle", "eager"):
            ttft = spread([s["ttft_s"] for s in samples if (s["function"], s["variant"]) == (function, variant)])
            cells.append(f"{ttft.median:.2f} s ({ttft.least:.2f}–{ttft.most:.2f})")
        how = sorted({s["strategy"] for s in samples if s["function"] == function and s["variant"] == "bundle"})
        yield f"| {label} | {cells[0]} | {cells[1]} | {', '.join(how)} |"
    yield ""
    for name, found in result["ratios"].items():
        pairs = found["pairs"]
        yield f"{name}: {found['median']:.3f}, median of {len(pairs)} ({min(pairs):.3f} to {max(pairs):.3f})"
    for cause in dict.fromkeys((s["function"], s["fallback"]) for s in samples if s["fallback"]):
        yield f"note: {cause[0]}: init ran the ordinary way, because {cause[1]}"
    if unproved := sum(not s["cache_proved"] for s in samples):
        yield f"note: the page cache was not proved to be warm in {unproved} of {len(samples)} runs"
    if not result["adapters_tell"]:
        yield "note: some adapters give the same answer, so equal outputs say little"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("1b", "tiny"), default="1b")
    parser.add_argument("-n", type=int, default=7, help="turns")
    parser.add_argument("--models", type=Path, default=HERE.parent / "build/models", help="where models are kept")
    parser.add_argument("--work", type=Path, default=HERE.parent / "build/adapters", help="where traces and bundles go")
    parser.add_argument("--targets", choices=("qv", "all"), default="qv", help="layers that an adapter changes")
    parser.add_argument("--reuse", action="store_true", help="keep the bundles that are there")
    parser.add_argument("--output", type=Path, default=HERE / "results/adapters.json")
    options = parser.parse_args()
    try:
        adapters = make_models(options)
        subjects = {function: make_bundle(function, adapters, options) for function in FUNCTIONS}
        taken = list(take_all(subjects, adapters, options.n))
    except TidalError as error:
        raise SystemExit(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else "")) from None
    result = document(taken, subjects, options)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print("\n".join(report(result)))
    differing = sum(not one["output_equal"] for one in result["samples"])
    if differing:
        raise SystemExit(f"error: the output differs from the plain function's in {differing} of {len(taken)} runs")


if __name__ == "__main__":
    main()
