"""The snapshot's process: runs the function plainly, as `python app.py` would, and writes what its init gives to disk.

The state is written while the handler waits for it, before anything can change it; weights go from their memory to the file in
pieces, so that no second copy of them exists.
"""

import contextlib
import importlib.machinery
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tidalctl.ambient import GENERATORS, ambient_digests, changed, read_ambient
from tidalctl.artifacts.errors import TidalError
from tidalctl.artifacts.manifest import SKELETON
from tidalctl.artifacts.weights import DTYPES, Entry, Placement, plan_shards, write_shard
from tidalctl.compiler.snapshot import ShardWritten, SnapshotReport, SnapshotRequest
from tidalctl.context import Init, answer_inits_with
from tidalctl.function import enter_project, import_handler, is_stream, json_text, pieces

if TYPE_CHECKING:
    from tidalctl.compiler.module_state import ModuleState, Place


class Snapshotter:
    """Answers calls of init: the first one's state is written, a later event's is compared with it."""

    def __init__(self, request: SnapshotRequest) -> None:
        self._request = request
        self.report: dict[str, Any] = {"outputs": ()}
        self.error: OSError | None = None
        self._at_import: ModuleState | None = None
        self._early = ""
        self._event_index = 0
        self._seen_events: set[int] = set()

    def answer(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        from tidalctl.artifacts.skeleton import skeleton_digest
        from tidalctl.compiler.module_state import ModuleState

        if self._at_import is not None and (early := sorted(f"{m}.{n}" for m, v in self._at_import.kept().items() for n in v)):
            self._early = early[0]
        self._at_import = None
        first = bool(self._request.folder) and "init" not in self.report
        modules = ModuleState(self._request.root) if first else None
        before, directory = read_ambient(), os.getcwd()
        with _noting_imports(modules), _noting_seeds() as seeded:
            state = mark.function(*arguments, **keywords)
        if "skeleton" not in self.report:
            self.report["skeleton"] = skeleton_digest(state)
        if not self._request.folder or self._event_index in self._seen_events:
            return state
        self._seen_events.add(self._event_index)
        if modules is not None:
            self.report["init"] = mark.name
            if self._early:
                self.report["cause"] = f"{self._early} is set before {mark.name} is called, so that the state may depend on it"
            elif attribute := modules.changed_attribute():
                self.report["cause"] = f"{mark.name} sets {attribute}, a class attribute, which no snapshot holds"
            elif os.getcwd() != directory:
                self.report["cause"] = f"{mark.name} changes the working directory"
            if "cause" in self.report:
                return state
            left = changed(before, read_ambient())
            self.report["memo"] = hasattr(mark.function, "cache_info") or modules.holds(state)
            digests = ambient_digests(left)
            kept = {name: value for name, value in left.items() if digests[name] == self._request.ambient.get(name)}
            self.report["generators"] = self._drawn_from(before, kept, seeded)
            try:
                self._write(state, kept, modules.kept(), modules.shared())
            except OSError as error:
                self.error = error  # the function around this call may swallow it
                raise
        elif mark.name == self.report["init"] and not self.report.get("cause"):
            self._compare(state)
        return state

    def _drawn_from(self, before: dict[str, Any], kept: dict[str, Any], seeded: list[bool]) -> dict[str, str]:
        """Generators that init drew from as it found them, with digests of how that was: another start may find them otherwise.

        One that began otherwise in the trace and ended alike was seeded by init, and so was torch's where init called for it.
        """
        began = ambient_digests({name: before[name] for name in GENERATORS if name in before and name in kept})
        return {
            name: digest
            for name, digest in began.items()
            if digest == self._request.generators.get(name) and not (name == "torch.rng" and seeded)
        }

    def begin(self, index: int) -> None:
        self._event_index = index

    def imported(self) -> None:
        """The function's module is there. What it changes from now on and before it calls init, init may look at."""
        from tidalctl.compiler.module_state import ModuleState

        if "init" not in self.report:
            self._at_import = ModuleState(self._request.root)

    def _write(
        self, state: Any, ambient: dict[str, Any], new_globals: dict[str, dict[str, Any]], shared: dict[int, "Place"]
    ) -> None:
        import torch

        from tidalctl.artifacts.skeleton import SkeletonPickler, SkeletonUnpickler, shallow, why_not_picklable
        from tidalctl.artifacts.storages import storage_names

        folder = Path(self._request.folder)
        hooks = torch.utils.hooks.RemovableHandle.next_id  # the next hook must not take the key of a stored one
        skeleton = {"state": state, "globals": new_globals, "ambient": ambient, "hooks": hooks}
        found = storage_names(state)
        with open(folder / SKELETON, "wb") as file:
            pickler = SkeletonPickler(file, {address: names[0] for address, (names, _, _) in found.items()}, shared)
            try:
                with shallow():
                    pickler.dump(skeleton)
            except Exception as error:  # noqa: BLE001 - whatever a __reduce__ raises means that this can't be stored
                self.report["cause"] = _cause(state, new_globals, error, lambda value: why_not_picklable(value, shared))
                return
        if overlap := pickler.overlap():
            self.report["cause"] = f"state: {overlap}"
            return
        with open(folder / SKELETON, "rb") as file:
            unpickler = SkeletonUnpickler(file, pickler.storages.__getitem__, allowed=None)
            try:
                unpickler.load()
            except Exception as error:  # noqa: BLE001 - as above, for __setstate__
                self.report["cause"] = f"state: it can be pickled but not unpickled: {type(error).__name__}: {error}"
                return
        local = sorted(name for name in unpickler.seen if name.startswith("__main__:"))
        if local:
            self.report["cause"] = (
                f"state: it holds a {local[0].partition(':')[2]} defined in __main__, which a bundle can't import"
            )
            return
        self.report["globals"] = tuple(sorted(unpickler.seen))
        self.report["kept_globals"] = tuple(f"{module}.{name}" for module, values in new_globals.items() for name in values)
        self._write_weights(folder, found, pickler.storages)

    def _write_weights(self, folder: Path, found: dict[int, Any], storages: dict[str, Any]) -> None:
        from tidalctl.artifacts.storages import chunks_of, covers

        position = {name: index for index, name in enumerate(self._request.order)}
        ordered = sorted(storages, key=lambda name: position.get(name, len(position)))
        entries = []
        for name in ordered:
            storage = storages[name]
            tensor = found[storage._cdata][1] if storage._cdata in found else None
            dtype = "uint8" if tensor is None else str(tensor.dtype).removeprefix("torch.")
            if tensor is not None and dtype in DTYPES and covers(tensor, storage):
                entries.append(Entry(name=name, dtype=dtype, shape=tuple(tensor.shape), nbytes=storage.nbytes()))
            else:
                entries.append(Entry(name=name, dtype="uint8", shape=(storage.nbytes(),), nbytes=storage.nbytes()))
        total = sum(entry.nbytes for entry in entries)
        tell = _Progress(self._request.progress, total)
        shards = plan_shards(entries, self._request.shard_size)
        digests: dict[str, str] = {}
        written = []
        for shard in shards:
            whole_digest, own = write_shard(folder, shard, lambda p: chunks_of(storages[p.entry.name]), tell)
            digests |= own
            written.append(ShardWritten(file=shard.file, size=shard.size, sha256=whole_digest))
        placements: list[Placement] = [placement for shard in shards for placement in shard.placements]
        self.report |= {
            "placements": tuple(placements),
            "names": {names[0]: tuple(names) for names, _, _ in found.values()},
            "devices": {name: str(storage.device) for name, storage in storages.items()},
            "digests": digests,
            "shards": tuple(written),
        }

    def _compare(self, state: Any) -> None:
        """Another event's state: the same weights under the same names, or the init does look at the event."""
        from tidalctl.artifacts.storages import digest_of, storage_names

        digests = {names[0]: digest_of(storage) for names, _, storage in storage_names(state).values()}
        stored = self.report["digests"]
        if any(stored.get(name) != digest for name, digest in digests.items()):
            self.report["differs"] = self._event_index


@contextlib.contextmanager
def _noting_imports(modules: "ModuleState | None") -> Iterator[None]:
    """Tell the module state of each module of source that is imported meanwhile, when it has run."""
    loader = importlib.machinery.SourceFileLoader
    original = loader.exec_module

    def exec_module(self: importlib.machinery.SourceFileLoader, module: types.ModuleType) -> None:
        original(self, module)
        if modules is not None and modules.owns(module):
            modules.note_module(module.__name__)

    setattr(loader, "exec_module", exec_module)  # noqa: B010 - inherited, and put back as such
    try:
        yield
    finally:
        delattr(loader, "exec_module")


@contextlib.contextmanager
def _noting_seeds() -> Iterator[list[bool]]:
    """Note whether torch's generator is seeded meanwhile."""
    import torch

    noted: list[bool] = []
    places = [(torch, "manual_seed"), (torch.random, "manual_seed"), (torch, "set_rng_state"), (torch.random, "set_rng_state")]
    originals = [getattr(owner, name) for owner, name in places]

    def noting(original: Any) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            noted.append(True)
            return original(*arguments, **keywords)

        return call

    for (owner, name), original in zip(places, originals, strict=True):
        setattr(owner, name, noting(original))
    try:
        yield noted
    finally:
        for (owner, name), original in zip(places, originals, strict=True):
            setattr(owner, name, original)


class _Progress:
    """Tells the parent how many bytes of how many are written, at most a hundred times."""

    def __init__(self, descriptor: int, total: int) -> None:
        self._descriptor = descriptor
        self._total = total
        self._done = self._told = 0

    def __call__(self, size: int) -> None:
        self._done += size
        if self._descriptor >= 0 and self._done - self._told >= max(self._total // 100, 1):
            self._told = self._done
            os.write(self._descriptor, f"{self._done} {self._total}\n".encode())


def _cause(state: Any, new_globals: dict[str, Any], error: Exception, explain: Any) -> str:
    found: str = explain(state)
    if "second time" not in found:
        return found
    for module, values in new_globals.items():
        for name, value in values.items():
            inner: str = explain(value)
            if "second time" not in inner:
                return inner.replace("state", f"{module}.{name}", 1)
    return f"state: {type(error).__name__}: {error}"


def main(path: str) -> None:
    request = msgspec.json.decode(Path(path).read_bytes(), type=SnapshotRequest)
    os.unlink(path)
    code = 0
    try:
        _run(request)
    except TidalError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        print(f"error: {error.strerror}: {error.filename or request.folder}", file=sys.stderr)
        code = 2
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(request: SnapshotRequest) -> None:
    enter_project(Path(request.root), Path(request.root) / request.function.source, request.argv)
    snapshotter = Snapshotter(request)
    answer_inits_with(snapshotter.answer)  # before the import, which may call init itself
    handler = import_handler(request.function)
    snapshotter.imported()
    outputs = []
    for index, text in enumerate(request.events):
        snapshotter.begin(index)
        try:
            result = handler(msgspec.json.decode(text), None)
            value = list(pieces(result)) if is_stream(result) else result
        finally:
            if snapshotter.error is not None:
                raise snapshotter.error
        json_text(value)
        outputs.append(json_text(value))
        del result, value
    snapshotter.report["outputs"] = tuple(outputs)
    report = SnapshotReport(**snapshotter.report)
    Path(request.report).write_bytes(msgspec.json.encode(report))
