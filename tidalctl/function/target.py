"""The user's function: found by name, imported as `python app.py` would, and called.

This stands below tracer, compiler and runtime, which all run the function and must do it alike.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tidalctl.artifacts.errors import TidalError
from tidalctl.artifacts.records import Function
from tidalctl.function.init_mark import as_lines, init
from tidalctl.function.near_names import near_names

Handler = Callable[[Any, Any], Any]


def locate(target: str, inits: Sequence[str] = (), static: bool = False, shape: str = "") -> tuple[Function, Path]:
    """Find `path/to/app.py:handler` or `package.module:handler` without importing it. Returns it and its project's folder.

    What its source shows to be of another shape is taken as that, or must be of the one that is named (see shapes/), which also says
    what its init is, where none is named.

    Raises TidalError, with near names, where there is no such file or module. The attribute is looked up by `import_handler`.
    """
    place, _, attribute = target.partition(":")
    for name in inits:
        if not all(name.partition(":")[::2]):
            module = Path(place).stem if place.endswith(".py") else place
            given = name.strip(":") or "load"
            raise TidalError(f"--init {name!r} is not module:function", f"for example: --init {module}:{given}")
    if inits and all(as_lines(name.partition(":")[2]) for name in inits):
        static = True  # the import of a module has no event
    if place.endswith(".py") or "/" in place:
        path = Path(place)
        if not path.is_file():
            raise TidalError(f"no file {place}", _near_files(path))
        if not path.stem.isidentifier():
            raise TidalError(f"{place} has no importable name", "name the file with letters, digits and underscores")
        path = Path(os.path.abspath(path))  # without `..`: places in the project are told by how paths begin
        module, root = path.stem, path.parent
    else:
        path, root = _locate_module(place)
        module = place
    source = path.relative_to(root).as_posix()
    named = tuple(_init_module(name, root) for name in inits)
    function = Function(module=module, handler=attribute, source=source, inits=named, static=static)
    function = _in_its_shape(function, path, shape)
    if static and not function.inits:
        raise TidalError(
            "--static is about the function that --init names, and there is none",
            f"name it: --init {module}:load --static; or write @tidalctl.init(static=True)",
        )
    return function, root


def _init_module(name: str, root: Path) -> str:
    """Return what `--init` names with its module by name: a file, as TARGET may be one, is a module of the project."""
    place, colon, attribute = name.partition(":")
    if not place.endswith(".py") and "/" not in place:
        return name
    path = Path(os.path.abspath(place))
    if not path.is_file():
        raise TidalError(f"--init {name}: no file {place}", _near_files(Path(place)))
    if not path.is_relative_to(root):
        raise TidalError(f"--init {name}: {place} is outside of the project", f"name it as it is imported: module:{attribute}")
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__") + colon + attribute


def _in_its_shape(function: Function, path: Path, wanted: str) -> Function:
    """Return a function with its handler's name and its shape. Raises TidalError where the source shows none that is wanted."""
    from tidalctl.function.shapes import find_shape

    found = find_shape(path.read_bytes(), function.module, function.handler, wanted)
    if found is None:
        if wanted:
            name = f"{function.module}:{function.handler}" if function.handler else path.name
            raise TidalError(f"{name} is not of the shape {wanted}", "what each shape consists of: docs/shapes.md")
        return msgspec.structs.replace(function, handler=function.handler or "handler")
    return msgspec.structs.replace(
        function, handler=found.name, shape=found.shape, inits=function.inits or ((found.init,) if found.init else ())
    )


def _locate_module(place: str) -> tuple[Path, Path]:
    """Return the file of a module, and the project's folder.

    A dotted name is looked for from the working directory, as `python -m` does, and on sys.path after it.
    """
    parts = place.split(".")
    if not all(part.isidentifier() for part in parts):
        raise TidalError(
            f"{place!r} is neither a file nor a module", "name it as path/to/app.py:handler or package.module:handler"
        )
    for entry in [os.getcwd(), *sys.path]:
        base = Path(os.path.abspath(entry or "."))
        for candidate in (base.joinpath(*parts).with_suffix(".py"), base.joinpath(*parts, "__init__.py")):
            if candidate.is_file():
                return candidate, base
    raise TidalError(f"no module {place}", _near_files(Path.cwd() / f"{parts[0]}.py"))


def _near_files(path: Path) -> str:
    folder = path.absolute().parent
    while not folder.is_dir():
        folder = folder.parent
    names = sorted(p.name for p in folder.glob("*.py"))
    near = near_names(path.name, names) or names[:3]
    shown = ", ".join(str(Path(os.path.relpath(folder)) / name) for name in near)
    return f"did you mean: {shown}" if near else "name it as path/to/app.py:handler or package.module:handler"


def enter_project(root: Path, script: Path, argv: Iterable[str]) -> None:
    """Make sys.path and sys.argv what `python root/app.py …` would make them."""
    if not sys.flags.safe_path and sys.path:
        sys.path.pop(0)  # our own script's folder, or the working directory of `python -m`
    sys.path.insert(0, str(root))
    sys.argv[:] = [str(script), *argv]


def import_handler(function: Function) -> Handler:
    """Import the function's module and return its handler, with `--init` applied.

    Raises TidalError where the handler or the init is not there; whatever the module raises passes through.
    """
    if not function.inits:
        return _imported_handler(function)
    from tidalctl.function.source_marks import MarkingFinder  # for functions that nobody may edit

    with MarkingFinder(function.inits, static=function.static):
        handler = _imported_handler(function)
        for name in function.inits:
            _mark_init(name, function.static)
    return handler


def _imported_handler(function: Function) -> Handler:
    try:
        module = importlib.import_module(function.module)
    except ImportError as error:
        if "no known parent package" not in str(error):
            raise
        raise TidalError(
            f"{function.source} is a module of a package: {error}",
            f"from the folder above the package, name the module: tidalctl trace package.{function.module}:{function.handler}",
        ) from None
    handler = _attribute(module, function.handler, f"{function.module}:{function.handler}")
    if function.shape:
        from tidalctl.function.shapes import shape_named

        return shape_named(function.shape).handler(module, function.handler)
    if not callable(handler):
        raise TidalError(
            f"{function.module}:{function.handler} is not a function", "a handler is called as handler(event, context)"
        )
    return handler


def _attribute(module: Any, name: str, shown: str) -> Any:
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            public = {k: v for k, v in vars(module).items() if not k.startswith("_")}
            functions = sorted(k for k, v in public.items() if callable(v) and not isinstance(v, type))
            near = near_names(part, functions) or functions[:5]
            raise TidalError(f"no {shown}", f"did you mean: {', '.join(near)}" if near else f"define {part} in it")
        found = getattr(found, part)
    return found


def _is_marked(found: Any) -> bool:
    """Whether a function, the functions that it wraps, or a class's `__init__` is marked."""
    found = vars(found).get("__init__") if isinstance(found, type) else found
    while found is not None:
        if hasattr(found, "__tidalctl_init__"):
            return True
        found = getattr(found, "__wrapped__", None)
    return False


def _function(found: Any, module: str, name: str) -> Any:
    """Return what can be called by a function's name: an object that is no function, a partial say, has none of its own."""
    if hasattr(found, "__qualname__"):
        return found

    def call(*arguments: Any, **keywords: Any) -> Any:
        return found(*arguments, **keywords)

    call.__module__, call.__qualname__ = module, name
    return call


def _mark_init(name: str, static: bool) -> None:
    """Make sure that init is there and marked. One that no source defines is marked wherever an imported module holds it."""
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise TidalError(
            f"--init {name}: no module {module_name}", "name it as module:function, for example app:load"
        ) from None
    if as_lines(attribute):  # statements, which are answered where the module runs
        return
    found = _attribute(module, attribute, f"--init {name}")
    if _is_marked(found):
        return
    if not callable(found):
        raise TidalError(f"--init {name} is not a function", "name the function that builds the state")
    marked = init(_function(found, module_name, attribute), static=static)
    for other in list(sys.modules.values()):
        for key, value in list(getattr(other, "__dict__", {}).items()):
            if value is found:
                setattr(other, key, marked)


def refuse_unknown_fields(vary: Sequence[str], events: Iterable[dict[str, Any]]) -> None:
    """Raise TidalError where `--vary` names a field that none of the events has."""
    fields = sorted({field for event in events for field in event})
    for name in vary:
        if name not in fields:
            hint = f"the traced events have: {', '.join(fields)}" if fields else "the traced events have no fields"
            raise TidalError(f"--vary {name}: no traced event has this field", hint)
