"""What is imported from the code pack is what Python would have imported, and nothing tells it from that."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import write_project
from pack_cases import Packed, pack_library, rewrite

from tidalctl.artifacts.bundle.manifest import PACK, PROVENANCE

# has inspect look through all modules, and tells where it then takes the library's to lie
WHEREABOUTS = """
import inspect
inspect.getmodule((lambda: 0).__code__, "/nowhere.py")
told["modules"] = [inspect.getmodule(value.__code__).__name__ for value in (sys.modules["solo"].where, sys.modules["shelf.lines"].fail)]
told["files"] = sorted((file, name) for file, name in inspect.modulesbyfile.items() if name in NAMES)
told["names"] = sorted((name, file) for name, file in inspect._filesbymodname.items() if name in NAMES)
"""
ALL = ["shelf", "shelf.deep", "shelf.deep.below", "shelf.late", "shelf.lines", "shelf.plain", "solo"]
IMPORT_ALL = f"for name in {ALL}: importlib.import_module(name)\n"

# told of each module, with and without the pack
LOOK = """
import importlib.resources, importlib.util, inspect, pickle, pkgutil, re, traceback


def without_addresses(value):
    return re.sub("0x[0-9a-f]+", "", repr(value))


def look(name):
    module = sys.modules[name]
    spec = module.__spec__
    functions = [value for _, value in inspect.getmembers(module, inspect.isfunction)]
    return {
        "file": module.__file__, "cached": module.__cached__, "path": getattr(module, "__path__", None),
        "package": module.__package__, "loader": [type(spec.loader).__name__, sorted(vars(spec.loader).items())],
        "same": spec.loader is module.__loader__, "spec": without_addresses(spec), "origin": spec.origin, "state": spec.loader_state,
        "source": inspect.getsource(module) if spec.origin and inspect.getsource(module) else "",
        "files": [function.__code__.co_filename for function in functions],
        "functions": [inspect.getsource(function) for function in functions], "names": sorted(vars(module)),
        "again": without_addresses(importlib.util.find_spec(name)), "own source": spec.loader.get_source(name),
        "code": spec.loader.get_code(name).co_filename,
    }


def look_at_all():
    told.update({name: look(name) for name in NAMES})
    import shelf.lines, solo
    told["pickled"] = pickle.loads(pickle.dumps(shelf.lines.Line("a"))) == shelf.lines.Line("a")
    told["data"] = importlib.resources.files("shelf").joinpath("data.txt").read_text()
    told["walked"] = [module.name for module in pkgutil.walk_packages(shelf.__path__, "shelf.")]
    try:
        shelf.lines.fail(1)
    except ValueError:
        told["traceback"] = traceback.format_exc()
    told["reloaded"] = importlib.reload(solo) is solo and look("solo")
    told["line numbers"] = [shelf.lines.fail.__code__.co_firstlineno, list(shelf.lines.fail.__code__.co_lines())[:3]]
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """Nobody may change it: `packed` is a copy."""
    return pack_library(tmp_path_factory.mktemp("library"))


@pytest.fixture
def packed(library: Packed, tmp_path: Path) -> Packed:
    """The library and its pack in another place, with the times that they had."""
    copied = Packed(tmp_path / "site-packages", tmp_path / "app.bundle")
    shutil.copytree(library.library, copied.library)
    shutil.copytree(library.bundle, copied.bundle)
    return copied


ASIDE = IMPORT_ALL.replace("for name in ", "for name in pack.modules.clear() or ")  # nothing is served then


def told_with_and_without(packed: Packed, script: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a script tells that finds all of the library imported: from the pack, and then the ordinary way."""
    ours = packed.tell(IMPORT_ALL + f"NAMES = {ALL}" + script)
    assert ours["served"] == ALL
    plain = packed.tell(ASIDE + f"NAMES = {ALL}" + script)
    assert plain["served"] == []
    return ours["told"], plain["told"]


def test_a_packed_module_tells_of_itself_what_it_tells_without_the_pack(packed: Packed) -> None:
    ours, plain = told_with_and_without(packed, LOOK + "\nlook_at_all()\n")
    assert ours == plain


@pytest.mark.parametrize(("linked", "twice"), [("library", len(ALL)), ("solo.py", 1)])
def test_inspect_takes_modules_to_lie_where_it_would_find_them(packed: Packed, linked: str, twice: int) -> None:
    if linked == "library":
        (packed.library.parent / "link").symlink_to(packed.library)
        packed = Packed(packed.library.parent / "link", packed.bundle)
    else:
        (packed.library / linked).symlink_to((packed.library / linked).rename(packed.library.parent / "elsewhere.py"))
    ours, plain = told_with_and_without(packed, WHEREABOUTS)
    assert ours == plain
    assert len(plain["files"]) == len(ALL) + twice


@pytest.mark.parametrize(("now", "keep_time"), [("x", True), ("xx", False)], ids=["by its size", "by its time"])
def test_a_changed_source_is_imported_the_ordinary_way_and_counted(packed: Packed, now: str, keep_time: bool) -> None:
    for name in ("solo", "shelf/deep/below"):
        rewrite(packed.library / f"{name}.py", (packed.library / f"{name}.py").read_text().replace("lo", now), keep_time)
    told = packed.tell(IMPORT_ALL + "told.update({name: sys.modules[name].NAME for name in ('solo', 'shelf.deep.below')})")
    assert told["changed"] == ["shelf.deep.below", "solo"]
    assert told["served"] == sorted({*ALL} - {"solo", "shelf.deep.below"})
    assert told["told"] == {"solo": f"so{now}", "shelf.deep.below": f"be{now}w"}


OTHER = "NAME = 'the other'\n"


@pytest.mark.parametrize(
    "places",
    [
        {"front/solo.py": "solo", "front/shelf/__init__.py": "shelf"},
        {"front/solo/__init__.py": "solo", "site-packages/shelf/deep/below/__init__.py": "shelf.deep.below"},
        {
            "site-packages/solo/__init__.py": "solo",
            "site-packages/shelf/lines/__init__.py": "shelf.lines",
            "site-packages/shelf/plain/__init__.py": "shelf.plain",
        },
    ],
    ids=list,
)
def test_what_comes_to_stand_before_a_module_is_imported_in_its_place(packed: Packed, places: dict[str, str]) -> None:
    front = packed.library.parent / "front"
    front.mkdir()
    write_project(packed.library.parent, dict.fromkeys(places, OTHER) | {"site-packages/shelf/new.py": OTHER})
    names = [*places.values(), *(["shelf.new"] if "shelf" not in places.values() else [])]
    told = packed.tell(f"told.update({{name: importlib.import_module(name).NAME for name in {names}}})", front)
    assert told["told"] == dict.fromkeys(names, "the other")
    assert not {*told["served"]} & {*names}
    assert "shelf" in {*told["served"], *names}, "a folder with other files in it is looked through by Python, and still served"


def test_a_native_module_that_comes_to_stand_before_is_the_one_that_is_loaded(packed: Packed) -> None:
    suffix = next(iter(__import__("importlib.machinery").machinery.EXTENSION_SUFFIXES))
    (packed.library / f"shelf/lines{suffix}").write_bytes(b"no library")
    assert "ImportError" in packed.process("import shelf.lines").err


HOOK = """
class Hook:
    seen = []

    def find_spec(self, name, path=None, target=None):
        self.seen.append(name)


sys.meta_path.insert(0, Hook())
last = type("Last", (), {"find_spec": lambda self, name, path=None, target=None: told.setdefault("last", []).append(name)})()
sys.meta_path.append(last)
"""


def test_other_finders_are_asked_for_what_they_were_asked(packed: Packed) -> None:
    script = HOOK + IMPORT_ALL + "try: import nowhere\nexcept ImportError: pass\ntold['seen'] = Hook.seen"
    ours = packed.tell(script)
    plain = packed.tell(script.replace(IMPORT_ALL, ASIDE))
    assert ours["told"] == plain["told"]
    assert len(ours["served"]) == len(ALL)


PATCHES = {
    "the loader": """
from importlib.machinery import SourceFileLoader
original = SourceFileLoader.get_code
SourceFileLoader.get_code = lambda self, name: (told.setdefault("seen", []).append(name), original(self, name))[1]
""",
    "a hook for folders": """
from importlib.machinery import FileFinder, SourceFileLoader


class Loader(SourceFileLoader):
    def exec_module(self, module):
        told.setdefault("seen", []).append(module.__name__)
        super().exec_module(module)


sys.path_hooks.insert(0, FileFinder.path_hook((Loader, [".py"])))
sys.path_importer_cache.clear()
""",
}


@pytest.mark.parametrize("patch", PATCHES)
def test_a_patched_import_system_sees_every_import(packed: Packed, patch: str) -> None:
    told = packed.tell(PATCHES[patch] + IMPORT_ALL)
    assert sorted({*told["told"]["seen"]} & {*ALL}) == ALL
    assert told["served"] == []


def test_an_import_system_that_was_patched_before_us_is_left_alone(packed: Packed) -> None:
    front = packed.library.parent / "front"
    front.mkdir()
    (front / "sitecustomize.py").write_text("import importlib, sys\ntold = {}\n" + PATCHES["the loader"])
    script = IMPORT_ALL + "import sitecustomize\ntold['seen'] = sorted({*sitecustomize.told['seen']} & {*ALL})"
    script += "\ntold['cause'] = pack.unusable.code"
    told = packed.tell(f"ALL = {ALL}\n" + script, flags={"PYTHONPATH": str(front)})
    assert (told["told"]["seen"], told["told"]["cause"], told["served"]) == (ALL, "import-system-patched", [])


def test_looking_for_a_module_does_not_import_it(packed: Packed) -> None:
    script = """
import importlib.util
spec = importlib.util.find_spec("solo")
told["looked"] = [sorted(pack.served), "solo" in sys.modules]
told["code"] = spec.loader.get_code("solo").co_filename == spec.origin
import solo
told["attributes"] = sorted(vars(solo.__spec__.loader))
"""
    told = packed.tell(script)
    assert told["told"] == {"looked": [[], False], "code": True, "attributes": ["name", "path"]}
    assert told["served"] == ["solo"]


# -- the pack itself is not what it was


def test_a_corrupt_segment_is_an_error_before_its_code_runs(packed: Packed) -> None:
    data = bytearray((packed.bundle / PACK).read_bytes())
    data[data.rindex(b"2" * 99)] ^= 1
    (packed.bundle / PACK).write_bytes(data)
    script = """
import bulky_one
try:
    import bulky_two
except TidalError as error:
    told["error"] = [type(error).__name__, error.message]
try:
    pack.check()
except TidalError as error:
    told["check"] = type(error).__name__
"""
    done = packed.process(script).ok()
    told = json.loads(done.out.splitlines()[-1])["told"]
    assert done.out.splitlines()[:-1] == ["bulky_one runs"]
    assert told["error"][0] == told["check"] == "Corrupt"
    assert "code.pack" in told["error"][1]


def test_bytecode_that_is_none_is_an_error_even_unchecked(packed: Packed) -> None:
    script = """
import marshal, msgspec
pack._segments = [marshal.dumps(["no", "code"]) + bytes(2**21)] * len(pack._read)
for event in pack._read: event.wait()
pack._segments = [marshal.dumps(["no", "code"]) + bytes(2**21)] * len(pack._read)
try:
    import solo
except TidalError as error:
    told["error"] = type(error).__name__
"""
    assert packed.tell(script)["told"] == {"error": "Corrupt"}


def test_another_interpreter_s_pack_is_put_aside_and_said(packed: Packed) -> None:
    told = packed.tell(IMPORT_ALL + "told['unusable'] = str(pack.unusable)", flags={"PYTHONOPTIMIZE": "1"})
    assert (told["served"], told["told"]) == (
        [],
        {"unusable": "the code pack was made under optimization level 0 (other-optimization)"},
    )


@pytest.mark.parametrize("content", ["", '{"module_times": {"solo.py": "x"}}'])
def test_without_a_provenance_sources_are_told_by_their_content(packed: Packed, content: str) -> None:
    served = packed.tell(IMPORT_ALL)["served"]
    (packed.bundle / PROVENANCE).write_text(content)
    assert packed.tell(IMPORT_ALL) == {"told": {}, "served": served, "changed": []}


def test_a_forked_child_without_a_reader_imports_the_ordinary_way(packed: Packed) -> None:
    script = """
import os, threading
pack._read = [threading.Event() for _ in pack._read]  # nothing has been read yet, and in the child nothing will be
child = os.fork()
if not child:
    import solo
    os._exit(7 if solo.NAME == "solo" else 1)
told["child"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""
    assert packed.tell(script)["told"] == {"child": 7}


def test_after_the_first_token_the_bytes_are_gone_and_imports_go_on(packed: Packed) -> None:
    script = (
        """
import importlib.util, shelf
spec = importlib.util.find_spec("solo")
pack.drop()
told["bytes"] = sum(segment is not None for segment in [*pack._segments, *pack._decoded])
spec.loader.exec_module(importlib.util.module_from_spec(spec))
"""
        + IMPORT_ALL
    )
    told = packed.tell(script)
    assert told["told"] == {"bytes": 0}
    assert told["served"] == ["shelf", "shelf.lines"]


# -- late imports


def test_late_modules_are_imported_while_there_is_time(packed: Packed) -> None:
    told: dict[str, Any] = packed.tell("finder.import_ahead('late', lambda: True); told['there'] = 'shelf.late' in sys.modules")
    assert told["told"]["there"]
    assert "solo" not in told["served"]
    assert packed.tell("finder.import_ahead('late', lambda: False)")["served"] == []


def test_a_late_module_that_fails_is_the_handler_s_affair(packed: Packed) -> None:
    rewrite(packed.library / "shelf/late.py", "raise SystemExit(3)\n")
    told = packed.tell("finder.import_ahead('late', lambda: True); told['there'] = 'shelf.late' in sys.modules")
    assert told["told"] == {"there": False}
