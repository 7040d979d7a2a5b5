"""Environment variables that are read before the handler has its state, since the state may depend on them.

What counts is who asks: the project, or a library on its behalf, be it by name, by way of the standard library (`Path.home()`, a
`string.Template`), by a settings library, or by looking at all of them. Values are kept as digests.

Packages in NEUTRAL read for themselves (how to log, where a cache lies, how many threads): what they read is left out. So are levels
of logging.
"""

import functools
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from types import FrameType, ModuleType, TracebackType
from typing import Any

from tidalctl.artifacts.project import inside, is_own
from tidalctl.artifacts.records import digest_json
from tidalctl.artifacts.trace.records import EnvironReads
from tidalctl.function.working_environment import Surroundings
from tidalctl.tracer.process.clock import TraceClock
from tidalctl.tracer.process.own_frames import own_frames

_STANDARD = os.path.dirname(os.__file__) + os.sep
_OURS = inside(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
_INSTALLED = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)
# Of what these read on their own account (a search path, a folder for temporary files, a proxy, a language) machines differ, and what
# comes of it is seldom in a state; some read all there is.
_OWN_ACCOUNT = tuple(
    _STANDARD + name
    for name in (
        *("asyncio", "ctypes", "distutils", "ensurepip", "gettext.py", "http", "logging", "multiprocessing", "platform.py"),
        *("pydoc.py", "shutil.py", "site.py", "ssl.py", "subprocess.py", "sysconfig", "tempfile.py", "unittest", "urllib"),
        *("uuid.py", "venv", "webbrowser.py", "wsgiref", "xml", "zoneinfo"),
    )
)
NEUTRAL = frozenset(
    (
        *("absl", "accelerate", "anyio", "bitsandbytes", "boto3", "botocore", "certifi", "click", "datasets", "diffusers"),
        *("fastapi", "filelock", "flask", "fsspec", "functorch", "gguf", "google", "hf_xet", "httpcore", "httpx"),
        *("huggingface_hub", "jinja2", "joblib", "llvmlite", "matplotlib", "mpmath", "numba", "numpy", "packaging", "pandas"),
        *("peft", "PIL", "pkg_resources", "platformdirs", "psutil", "pyarrow", "pydantic", "pytest", "regex", "requests"),
        *("rich", "s3fs", "safetensors", "scipy", "sentence_transformers", "sentencepiece", "setuptools", "sklearn"),
        *("starlette", "sympy", "tensorboard", "threadpoolctl", "tokenizers", "torch", "torchaudio", "torchgen"),
        *("torchvision", "tqdm", "transformers", "triton", "typer", "urllib3", "uvicorn", "werkzeug", "yaml"),
    )
)
NEUTRAL_NAMES = ("LOG_LEVEL", "LOGLEVEL", "*_LOG_LEVEL")
_SETTINGS_LIBRARIES = ("pydantic_settings", "dotenv")  # copy all variables, and look at few: see EnvironRecorder.imported


class EnvironRecorder:
    """A context in which reads of os.environ are noted. See EnvironReads for what is kept.

    Of what the handler reads it is only what one of the project's functools caches may hand on to init later.
    """

    def __init__(self, clock: TraceClock, root: str) -> None:
        self._clock = clock
        self._root = root
        self._names: dict[str, None] = {}
        self._all_by = ""
        self._at_init: dict[str, str] | None = None
        self._local = threading.local()  # the name that an iteration has given last, and the instruction that iterates

    def __enter__(self) -> "EnvironRecorder":
        self._before = dict(os.environ)
        self._since = Surroundings()
        kind: Any = type(os.environ)
        self._originals = original, listing = kind.__getitem__, kind.__iter__

        def getitem(environ: Any, key: Any) -> Any:
            if environ is os.environ or environ is os.environb:
                frame, of_all = _asker(sys._getframe(1)), self._local.__dict__
                # a value belongs to the look at all of them; dict(os.environ) lists the names before it asks for the first one
                if key != of_all.get("name") and _instruction(frame) != of_all.get("instruction"):
                    self._note([os.fsdecode(key) if isinstance(key, bytes) else key], self._reader(frame))
            return original(environ, key)

        def iterate(environ: Any) -> Iterator[str]:
            if environ is os.environ or environ is os.environb:
                frame = _asker(sys._getframe(1))
                self._local.instruction = _instruction(frame)
                self._note_all(self._reader(frame))
            for name in listing(environ):
                self._local.name = name
                yield name
                self._local.name = None

        kind.__getitem__, kind.__iter__ = getitem, iterate
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        environ: Any = type(os.environ)
        environ.__getitem__, environ.__iter__ = self._originals

    def init_called(self) -> None:
        """Note what the program itself has set until init is called for the first time."""
        if self._at_init is None:
            with self._clock.charging("hooks"):  # these questions about paths are ours
                self._at_init = self._since.digests(self._since.assigned(), [self._root])

    def reads(self) -> EnvironReads:
        at_init = self._at_init or {}
        return EnvironReads(
            variables={name: digest_json([self._before.get(name)]) for name in self._names},
            at_init={name: at_init[name] for name in self._names if name in at_init},
            all_by=self._all_by,
        )

    def imported(self, module: ModuleType) -> None:
        """Hear of a module that was imported: of a settings library's, what it looks at among the variables that it copies."""
        if module.__name__ == "dotenv.variables":
            resolve = module.Variable.resolve

            def noting(variable: Any, env: Any) -> Any:
                self._note([variable.name], variable.name)
                return resolve(variable, env)

            module.Variable.resolve = noting  # type: ignore[attr-defined]
        elif module.__name__.startswith("pydantic_settings.") and "EnvSettingsSource" in vars(module):
            source = module.EnvSettingsSource
            if source.__module__ == module.__name__:
                load = source._load_env_vars
                source._load_env_vars = lambda settings: _Looked(load(settings), self._field_read, self._note_all)

    def _field_read(self, field: str) -> None:
        """Note a field of settings: variables whose names differ from it in case at most, and the usual spellings where unset."""
        self._note([field.upper(), field, *(name for name in self._before if name.lower() == field.lower())], field)

    def _note(self, names: Iterable[Any], reader: str) -> None:
        if reader and self._counts():
            for name in names:
                if isinstance(name, str) and not any(fnmatchcase(name, pattern) for pattern in NEUTRAL_NAMES):
                    self._names.setdefault(name)

    def _note_all(self, reader: str) -> None:
        if reader not in ("", *_SETTINGS_LIBRARIES) and self._counts():
            self._all_by = self._all_by or reader

    def _counts(self) -> bool:
        """Whether init may hang on what is read now."""
        if self._clock.phase != "handler":
            return True
        return self._at_init is None and any(map(_is_cached, own_frames(sys._getframe(1), self._root)))

    def _reader(self, frame: FrameType | None) -> str:
        """Return who reads: a place in the project, or a package. Empty where nobody's state depends on it."""
        if frame is None:
            return ""
        file = frame.f_code.co_filename
        if is_own(file, self._root):
            return f"{os.path.relpath(file, self._root)}:{frame.f_lineno}"
        if file.startswith((_OURS, "<")) or (file.startswith(_STANDARD) and not any(part in file for part in _INSTALLED)):
            return ""
        package = _package_of(file)
        return "" if package in NEUTRAL else package


class _Looked(dict[str, Any]):
    """Variables as a settings library copied them, telling of those that it looks at."""

    def __init__(self, variables: Any, note: Callable[[str], None], note_all: Callable[[str], None]) -> None:
        super().__init__(variables)
        self._note, self._note_all = note, note_all

    def get(self, key: str, default: Any = None) -> Any:
        self._note(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self._note(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self._note(str(key))
        return super().__contains__(key)

    def items(self) -> Any:
        self._note_all("a settings class with nested fields")
        return super().items()


def _asker(frame: FrameType | None) -> FrameType | None:
    """Return the frame for which the standard library, in whose frame it may be, reads."""
    while frame is not None and _reads_for_another(frame):
        frame = frame.f_back
    return frame


def _is_cached(frame: FrameType) -> bool:
    """Whether what a function gives is kept by functools, in a global of its module or in a class there."""
    values = list(frame.f_globals.values())
    members = [member for value in values if isinstance(value, type) for member in vars(value).values()]
    kept = [value.__wrapped__ for value in (*values, *members) if isinstance(value, functools._lru_cache_wrapper)]
    kept += [value.func for value in members if isinstance(value, functools.cached_property)]
    return any(getattr(function, "__code__", None) is frame.f_code for function in kept)


def _instruction(frame: FrameType | None) -> tuple[int, int] | None:
    return None if frame is None else (id(frame), frame.f_lasti)


def _reads_for_another(frame: FrameType) -> bool:
    """Whether a frame is of the standard library, in a call: what a module reads while it is imported, it reads for itself."""
    code = frame.f_code
    if code.co_filename.startswith("<"):
        return "importlib" not in code.co_filename
    ours = code.co_filename.startswith(_STANDARD) and not any(part in code.co_filename for part in _INSTALLED)
    return ours and code.co_name != "<module>" and not code.co_filename.startswith(_OWN_ACCOUNT)


def _package_of(file: str) -> str:
    """Return the top-level package that an installed file belongs to; of a file elsewhere, its name."""
    for part in _INSTALLED:
        if part in file:
            return file.rpartition(part)[2].partition(os.sep)[0].removesuffix(".py")
    return os.path.basename(file)
