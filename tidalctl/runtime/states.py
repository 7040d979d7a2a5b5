"""The states that a bundle gives: restored from a skeleton over its weights, or made by init with its reads answered.

Each is a fresh one over a fresh private mapping, as the plain init gives a fresh one each time, but where init is one of functools'
caches, which gives again what it gave. Nothing here holds on to a state, or to its mapping, that the handler has dropped.
"""

import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tidalctl.artifacts.bundle.manifest import HeldState, Manifest, skeleton_file
from tidalctl.function.init_mark import Init
from tidalctl.runtime.kernels.prewarm import Prewarm
from tidalctl.runtime.process.timeline import Timeline
from tidalctl.runtime.weights.weight_stream import WeightStream


class States:
    """`replayed_files` gives sizes and times of the files that a replay answers for, and where the project lies now. `import_late`
    imports what the handler will, in the gap before the first weights are in. `project` says where the function finds its project.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        weights: WeightStream,
        prewarm: Prewarm,
        timeline: Timeline,
        replayed_files: Callable[[], tuple[Mapping[str, Any], Path]],
        import_late: Callable[[], None],
        project: Callable[[], str],
    ) -> None:
        self.restored = 0  # skeletons read, those made ready included
        self.used_bytes = 0  # of the bundle's weights, that a state was made of
        self._path, self._manifest, self._timeline = path, manifest, timeline
        self._weights, self._prewarm = weights, prewarm
        self._replayed_files, self._import_late, self._project = replayed_files, import_late, project
        # states by number, of inits that give the same one in all calls, the latest last; below 0 the inits of calls that ran
        self._first: dict[int, Any] = {}
        self._calls = 0
        self._ahead: dict[str, Any] | None = None  # the main state's next skeleton, where one was made ready
        self._replayed = False  # by an earlier call

    def replayed(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Return what init gives, with its reads answered from the bundle."""
        from tidalctl.runtime.replay import EntryMemory, Replay

        with self._timeline.span("map"):
            first = {} if self._replayed else dict(self._weights.mappings(again=False))
            self._replayed, files = True, self._weights.device.files
            memory = EntryMemory(
                self._manifest.weights,
                lambda name: first.pop(name, None) or files[name].map_privately(),
                self._weights.need,
            )
            sources, home = self._replayed_files()
        with self._timeline.span("init"):
            replay = Replay(self._manifest.answers, sources, str(home), memory)
            try:
                return replay.run(mark.function, arguments, keywords)
            finally:
                self.used_bytes = max(self.used_bytes, min(replay.answered_bytes, self._weights.bytes))

    def restore(self, held: HeldState, function: Any = None, script: types.ModuleType | None = None, event: Any = None) -> Any:
        """Return what a state's skeleton holds: anew, or the first one again where each call of init gives the same.

        `function` is init's, which may be a cache. `script` makes the part of the main state that depends on the event. Raises what
        unpickle does.
        """
        number, same = held.number, held.guard.later_calls == "same"
        if same and number in self._first:
            self._first[number] = self._first.pop(number)  # the one that was asked for last is dropped last
            return self._first[number]
        from tidalctl.runtime.restore import settle

        ahead = None
        if number == 0:
            ahead, self._ahead = self._ahead, None
        with self._weights.kept_if_made():
            state = settle(ahead or self._unpickled(number, script, event), self._timeline)
        if self._manifest.further:
            self._weights.prefer_asked()
        self.used_bytes = self._weights.asked_bytes if self._manifest.further else self._weights.bytes
        if self._weights.on_device:
            self._prewarm.beside(lambda: not self._weights.done)
        self._import_late()
        self._prewarm.in_gap(lambda: not self._weights.may_begin)
        self._weights.close_gate(state)
        if same:
            self._first[number] = state
            self._drop_oldest(held.init, function)
        return state

    def ran(self, init: str, function: Any) -> None:
        """Note a call of a cached init that ran, so that its cache has its result."""
        self._calls -= 1
        self._first[self._calls] = init
        self._drop_oldest(init, function)

    def _drop_oldest(self, init: str, function: Any) -> None:
        """Keep as many states of an init as its cache would, those that were asked for last."""
        parameters: dict[str, Any] = getattr(function, "cache_parameters", dict)()
        kept = parameters.get("maxsize")
        alike = {held.number for held in self._manifest.held if held.init == init}
        mine = [number for number, state in self._first.items() if number in alike or (number < 0 and state == init)]
        gone = mine[:-kept] if kept else []
        for number in gone:
            del self._first[number]
        if any(number < 0 for number in gone) and not any(number < 0 for number in mine[len(gone) :]):
            function.cache_clear()  # which has nothing but results that would be gone

    def make_ready(self, *, before_first: bool = False) -> None:
        """Put the next state of a snapshot together before init is asked for it.

        Only where there has been one and it is another, unless `before_first` asks for the first.
        """
        if (before_first and not self.restored) or (
            self.restored and self._manifest.guard.later_calls == "fresh" and self._ahead is None
        ):
            self._ahead = self._unpickled(0)

    def _unpickled(self, number: int, script: types.ModuleType | None = None, event: Any = None) -> dict[str, Any]:
        from tidalctl.runtime.restore import unpickle

        with self._timeline.span("map"):
            # the first state has the reader's mapping; a later one must not see what the handler wrote to the first
            mappings = self._weights.mappings(again=bool(self.restored))
        self.restored += 1
        skeleton = self._path / skeleton_file(number)
        return unpickle(skeleton, self._manifest, mappings, self._timeline, script, event, self._weights, self._project())
