"""Takes a small project through trace, compile and run, at home and moved, and compares with the plain function."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from conftest import Done, tidalctl
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from small_projects import SmallProject

# Answers plainly, each in a fork of a process that has imported torch: what is asked are lines of JSON, and so are the answers.
PLAIN = """
import json, os, sys, traceback
import torch, safetensors.torch
for line in sys.stdin:
    asked = json.loads(line)
    reader, writer = os.pipe()
    if not os.fork():
        os.dup2(2, 1)  # the function may print
        os.environ.update({k: v for k, v in asked["env"].items() if v is not None})
        for name in [k for k, v in asked["env"].items() if v is None]:
            os.environ.pop(name, None)
        os.chdir(asked["folder"])
        sys.path.insert(0, asked["folder"])
        try:
            import app
            told = {"output": json.loads(json.dumps(app.handler(asked["event"], None)))}
        except BaseException as error:  # whatever the function raises is its answer
            told = {"error": "".join(traceback.format_exception_only(error)).strip()}
        os.write(writer, json.dumps(told).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as answer:
        print(answer.read(), flush=True)
    os.wait()
"""


class Wrong(AssertionError):
    """A start gives something else than the plain function, and nobody has said so."""


@dataclass
class Verdict:
    """What became of a project: `blocked` is the error of the command that refused it; otherwise how its starts went.

    Of a start that did not restore the state that is the strategy with the cause's code.
    """

    blocked: str = ""
    strategies: tuple[str, ...] = ()
    excused: tuple[str, ...] = ()  # parts of which compile had told that they may differ


class ProjectBench:
    """Takes projects through the commands. A context: a process that answers plainly lives meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def __enter__(self) -> "ProjectBench":
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._plain = subprocess.Popen([sys.executable, "-P", "-c", PLAIN], **pipes)
        return self

    def __exit__(self, *error: Any) -> None:
        self._plain.communicate(timeout=60)

    def check(self, project: SmallProject) -> Verdict:
        """Trace, compile and run a project. Raise Wrong where a start differs from the plain function without a word."""
        folder = self._folder / f"p{self._count}"
        self._count += 1
        try:
            return self._check(project, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _check(self, project: SmallProject, folder: Path) -> Verdict:
        write(project, folder)
        env = {**dict.fromkeys(project.other_env), **project.env}
        asked = [(event, env) for event in project.traced] + [(project.other, project.other_env), (project.other, env)]
        plain = {json.dumps(question): self._answer(folder / "project", *question) for question in asked}
        set_env = {name: value for name, value in env.items() if value is not None}
        events = [word for event in project.traced for word in ("--event", json.dumps(event))]
        traced = tidalctl("trace", "project/app.py", *events, *project.options, cwd=folder, env=set_env)
        if any("error" in plain[json.dumps(question)] for question in asked[: len(project.traced)]):
            if not traced.code:
                raise Wrong(f"the plain function raises, and its trace does not: {plain}")
            return Verdict(blocked="the plain function raises")
        compiled = tidalctl("compile", "app.trace", cwd=folder, env=set_env) if not traced.code else traced
        if compiled.code:
            refused = compiled.one_error(code=compiled.code)
            if not refused.lines("hint:"):
                raise Wrong(f"refused without a remedy:\n{compiled.err}")
            return Verdict(blocked=refused.lines("error:")[0])
        home = self._hold(project, compiled, plain, asked[-2], folder / "app.bundle")
        shutil.copytree(folder / "app.bundle", folder / "elsewhere/x.bundle")
        with gone(folder / "project"):  # the traced events from elsewhere are compile's own proof
            moved = self._hold(project, compiled, plain, asked[-1], folder / "elsewhere/x.bundle")
        starts = [home, moved]
        excused = tuple(part for _, parts in starts for part in parts)
        return Verdict(strategies=tuple(strategy for strategy, _ in starts), excused=excused)

    def _answer(self, folder: Path, event: dict[str, Any], env: dict[str, str | None]) -> dict[str, Any]:
        assert self._plain.stdin is not None and self._plain.stdout is not None
        self._plain.stdin.write(json.dumps({"folder": str(folder), "event": event, "env": env}) + "\n")
        self._plain.stdin.flush()
        found: dict[str, Any] = json.loads(self._plain.stdout.readline())
        return found

    def _hold(
        self, project: SmallProject, compiled: Done, plain: dict[str, Any], question: Any, bundle: Path
    ) -> tuple[str, list[str]]:
        """Compare a start with the plain function. Return its strategy, and the parts whose difference was told."""
        event, env = question
        wanted = plain[json.dumps(question)]
        set_env = {name: value for name, value in env.items() if value is not None}
        done = tidalctl("run", bundle, "--event", json.dumps(event), "--json", cwd=bundle.parent, env=set_env)
        where = f"{bundle.parent.name}, {event}, {env}"
        told = {part: any(words in compiled.err for words in all_words) for part, all_words in project.excuses.items()}
        if done.code:
            if "error" in wanted or any(told.values()):
                return "raises", [part for part in told if told[part] and "error" not in wanted]
            raise Wrong(f"{where}: raises\n{done.err}\n\ncompile said:\n{compiled.err}")
        report = done.report
        output = report["output"]
        strategy = report["strategy"] + (f": {report['cause']}" if report["cause"] else "")
        if "error" in wanted:
            if any(told.values()):
                return strategy, ["error"]
            raise Wrong(f"{where}: the plain function raises {wanted['error']}, the start gives {output}\n{compiled.err}")
        differing = [part for part in wanted["output"] if output.get(part) != wanted["output"][part]]
        if untold := [part for part in differing if not told.get(part)]:
            shown = "".join(f"\n  {part}: {output.get(part)} and not {wanted['output'][part]}" for part in untold)
            why = f"{report['strategy']}, {report['fallback']}"
            raise Wrong(f"{where} ({why}):{shown}\n\ncompile said:\n{compiled.err}\nrun said:\n{done.err}")
        return strategy, differing


def verdicts_on(folder: Path, projects: st.SearchStrategy[SmallProject], count: int) -> list[Verdict]:
    """Take this many drawn projects through the commands. What is found is shrunk by hand: each try costs ten seconds."""
    found: list[Verdict] = []

    @settings(
        max_examples=count, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None
    )
    @given(projects)
    def check(project: SmallProject) -> None:
        found.append(bench.check(project))

    with ProjectBench(folder) as bench:
        check()
    return found


def assert_most_restored(found: list[Verdict]) -> None:
    """More than half of the starts, two a project, restored their state: or there was little to compare."""
    strategies = Counter(strategy for verdict in found for strategy in verdict.strategies)
    assert strategies["snapshot"] > len(found), (strategies, Counter(verdict.blocked for verdict in found))


@contextlib.contextmanager
def gone(folder: Path) -> Iterator[None]:
    """A context in which a folder is not at its place."""
    away = folder.with_name("gone")
    folder.rename(away)
    try:
        yield
    finally:
        away.rename(folder)


def write(project: SmallProject, folder: Path) -> None:
    """Write the files of a project, and those beside it."""
    root, outside = folder / "project", str(folder / "outside")
    for name, text in project.files.items():
        path = Path(name.replace("OUTSIDE", outside)) if name.startswith("OUTSIDE") else root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {"w": torch.arange(12.0).view(3, 4) / 7}
        if text == "pt":
            torch.save(tensors, path)
        elif text == "safetensors":
            save_file(tensors, path)
        else:
            path.write_text(text.replace("OUTSIDE", outside))
    for name, target in project.links.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(target.replace("OUTSIDE", outside), root / name)
