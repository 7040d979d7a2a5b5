"""What the tests share: projects written to disk, tidalctl run as a real process, and two functions traced and compiled once."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# A suite says the same of the same code each time; `--hypothesis-profile=explore` looks for what it has not met yet.
hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.register_profile("explore", derandomize=False)
hypothesis.settings.load_profile("same")

APPS = Path(__file__).parent / "apps"
TIDALCTL = (sys.executable, "-P", "-m", "tidalctl")
TIMEOUT_S = 120
# what the function gives with nothing of tidalctl's but the mark on its init
PLAIN = """
import json, sys
sys.path.insert(0, sys.argv[1])
import app
result = app.handler(json.loads(sys.argv[2]), None)
print()
print(json.dumps(list(result) if hasattr(result, "__next__") else result))
"""


@dataclass(frozen=True)
class Done:
    """A process that has ended."""

    code: int
    out: str
    err: str

    def ok(self) -> "Done":
        assert self.code == 0, self.err
        return self

    @property
    def report(self) -> Any:
        """What the last line of its output holds: the report of `run --json`, or that of a script."""
        return json.loads(self.ok().out.strip().splitlines()[-1])

    def lines(self, start: str) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith(start)]

    def one_error(self, *parts: str, code: int = 2) -> "Done":
        """Exactly one `error:` line, which holds the parts (or the hint does), at most one `hint:`, and the exit code."""
        assert self.code == code, (self.code, self.err)
        assert len(self.lines("error:")) == 1, self.err
        assert len(self.lines("hint:")) <= 1, self.err
        told = "\n".join(self.lines("error:") + self.lines("hint:"))
        for part in parts:
            assert part in told, self.err
        if code != 1:
            assert "Traceback" not in self.err, self.err
        return self


def tidalctl(*arguments: object, cwd: Path, env: dict[str, str] | None = None, text: str = "", **options: Any) -> Done:
    """Run tidalctl as somebody at a terminal does: another process, its own streams, a time limit."""
    done = subprocess.run(
        [*TIDALCTL, *map(str, arguments)],
        input=text,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        timeout=options.pop("timeout", TIMEOUT_S),
        check=False,
        **options,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def forked(*arguments: object, cwd: Path, env: dict[str, str] | None = None, text: str = "") -> Done:
    """Run tidalctl as a fork of this process, which has imported it already: for what is told before much is done."""
    from tidalctl.__main__ import main

    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        given.write(text)
        given.seek(0)
        child = os.fork()
        if not child:
            code = 99
            try:
                for number, stream in enumerate((given, out, err)):
                    os.dup2(stream.fileno(), number)
                sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
                os.chdir(cwd)
                os.environ.update(env or {})
                sys.argv = ["tidalctl", *map(str, arguments)]
                main()
            except SystemExit as ended:
                code = int(ended.code or 0)
            except Exception:  # shown here: this child ends without the interpreter's own way of showing it
                traceback.print_exc()
                raise
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        return Done(code, out.read(), err.read())


def python(script: str, *arguments: object, cwd: Path, env: dict[str, str] | None = None) -> Done:
    """Run a script in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        timeout=TIMEOUT_S,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def flip_bit(path: Path, offset: int, bit: int = 0) -> None:
    """In place, so that the file stays the one that is open or mapped."""
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def files_below(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below: its size and when it was written."""
    return {
        path.relative_to(folder).as_posix(): (path.lstat().st_size if path.is_file() else 0, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


@dataclass
class Chain:
    """A project and what trace and compile make of it, in a folder of its own."""

    folder: Path
    events: list[dict[str, Any]]
    trace_options: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    traced: Done | None = None
    compiled: Done | None = None
    answers: dict[str, Any] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def trace(self) -> Path:
        return self.folder / "app.trace"

    @property
    def bundle(self) -> Path:
        return self.folder / "app.bundle"

    def make(self) -> "Chain":
        events = [word for event in self.events for word in ("--event", json.dumps(event))]
        self.traced = tidalctl("trace", "project/app.py", *events, *self.trace_options, cwd=self.folder, env=self.env).ok()
        self.compiled = tidalctl("compile", "app.trace", cwd=self.folder, env=self.env).ok()
        return self

    @property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.bundle / "manifest.json").read_bytes())
        return found

    def plain(self, event: dict[str, Any]) -> Any:
        """The plain function's answer: of the same files to the same event, by one process for all that ask."""
        asked = json.dumps([event, files_below(self.project)])
        if asked not in self.answers:
            self.answers[asked] = python(PLAIN, self.project, json.dumps(event), cwd=self.project, env=self.env).report
        return self.answers[asked]

    def run(self, event: dict[str, Any], *options: str) -> dict[str, Any]:
        return self.start(event, "--json", *options).report

    def start(self, event: dict[str, Any], *options: object, **more: str) -> Done:
        """`tidalctl run` on the event; `more` are variables of its environment."""
        return tidalctl("run", self.bundle, "--event", json.dumps(event), *options, cwd=self.folder, env={**self.env, **more})

    def said(self) -> str:
        assert self.compiled is not None
        return self.compiled.err


def chained(
    folder: Path, files: dict[str, str] | str, *events: dict[str, Any], options: tuple[str, ...] = (), **env: str
) -> Chain:
    """Write a project of some files, trace it on some events, compile it; `env` are variables of the environment."""
    made = Chain(folder, list(events) or [{}], list(options), env)
    write_project(made.project, files)
    return made.make()


@pytest.fixture
def chain(tmp_path: Path) -> Callable[..., Chain]:
    """The same in a folder of the test's own."""
    return functools.partial(chained, tmp_path)


def write_project(root: Path, files: dict[str, str] | str) -> Path:
    for name, text in ({"app.py": files} if isinstance(files, str) else files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def distribution(site: Path, name: str, files: Iterable[str], *requires: str, **more: str) -> Path:
    """An installed distribution, as its metadata tells of it; `more` are further texts of it. Returns their folder."""
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *(f"Requires-Dist: {one}" for one in requires), ""]
    record = "".join(f"{file},,\n" for file in files)
    return write_project(site / f"{name}-1.0.dist-info", {"METADATA": "\n".join(lines), "RECORD": record, **more})


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """apps/decoder, traced with a raw profile and compiled. Nobody may change it: copy what you mean to spoil."""
    import torch
    from safetensors.torch import save_file

    made = Chain(tmp_path_factory.mktemp("decoder"), [{"prompt": [3, 1, 4], "max_new_tokens": 5}])
    made.trace_options = ["--tensorboard", str(made.folder / "profile")]
    shutil.copytree(APPS / "decoder", made.project)
    generator = torch.Generator().manual_seed(0)
    names = ["unused.weight", "layers.0.weight", "layers.1.weight", "layers.2.weight", "embedding.weight"]
    save_file({name: torch.randn(96, 96, generator=generator) / 9 for name in names}, made.project / "decoder.safetensors")
    return made.make()


@pytest.fixture(scope="session")
def states(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """apps/states, traced and compiled."""
    made = Chain(tmp_path_factory.mktemp("states"), [{"n": 1}])
    shutil.copytree(APPS / "states", made.project)
    return made.make()


@pytest.fixture
def spoiled(decoder: Chain, tmp_path: Path) -> Path:
    """A copy of the decoder's bundle that a test may spoil, with the project where the bundle looks for it."""
    (tmp_path / "project").symlink_to(decoder.project)
    return Path(shutil.copytree(decoder.bundle, tmp_path / "spoiled.bundle"))


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start tidalctl as the leader of a process group, as a shell does; what is left of it is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, cwd: Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*TIDALCTL, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            preexec_fn=interruptible,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.communicate(timeout=TIMEOUT_S)


def interruptible() -> None:
    """A test run in the background of a shell has interrupts ignored, and would hand that on."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


# a prompt whose words reach few of the experts
EXPERTS_EVENT = {"prompt": [8 * n % 97 for n in range(32)], "tokens": 2}


@pytest.fixture(scope="session")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """apps/experts, traced with a prompt that reaches some experts only. Nobody may change it."""
    import torch
    from safetensors.torch import save_file

    made = Chain(tmp_path_factory.mktemp("experts"), [EXPERTS_EVENT])
    shutil.copytree(APPS / "experts", made.project)
    generator = torch.Generator().manual_seed(0)
    shapes = {"embedding.weight": (97, 64), "norm.weight": (64,), "norm.bias": (64,), "head.weight": (97, 64)}
    for number in range(8):
        shapes |= {f"experts.{number}.up.weight": (128, 64), f"experts.{number}.down.weight": (64, 128)}
    save_file({n: torch.randn(s, generator=generator) / 8 for n, s in shapes.items()}, made.project / "experts.safetensors")
    return made.make()


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A folder for temporary files, in which nothing may be left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    yield {"TMPDIR": str(folder)}
    assert [path.name for path in folder.iterdir() if not path.name.startswith("torchinductor_")] == []  # torch's own
