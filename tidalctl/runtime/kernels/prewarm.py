"""Prewarming: the kernels of the traced call are launched before the handler's first call, on scratch data.

The first launch of a kernel costs more than the next: its code is entered in the page table or loaded onto a device, plans are made,
threads are started. On the CPU that is done where the start would stand still otherwise, between the state's being made and the first
weight's being there; on CUDA by a thread of its own, on a side stream, until the last weight is in.
"""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tidalctl.artifacts.bundle.manifest import PREWARM
from tidalctl.artifacts.records import KernelSignature
from tidalctl.runtime.process.timeline import Timeline

if TYPE_CHECKING:
    from tidalctl.runtime.weights.graph_capture import CaptureWatch

CPU, CUDA = "cpu", "cuda"
# Bytes of scratch memory; a signature with a larger operand is left out. On the CPU the time of a launch grows with its operands, and
# what the first launch costs beyond it does not: a large one would only make the handler late.
LARGEST = {CPU: 32 * 2**20, CUDA: 256 * 2**20}
# That a device must have for it: scratch memory, a result, libraries' workspaces, and the handler beside them.
ROOM = 8 * LARGEST[CUDA]


class KernelList(msgspec.Struct, frozen=True):
    """A bundle's prewarm list, in the order of first launches."""

    kernels: tuple[KernelSignature, ...] = ()


class PrewarmReport(msgspec.Struct, frozen=True):
    """What became of the list. What is neither launched, left out nor failed, the start did not come to.

    `known`: signatures of all launches of the traced calls. `left_out`: not to be launched, by their operator or their size. `failed`:
    launches that raised, with what they raised. `seconds`: of the threads that launched.
    """

    mode: str
    known: int = 0
    launched: int = 0
    left_out: int = 0
    failed: int = 0
    seconds: float = 0.0
    errors: tuple[str, ...] = ()

    @property
    def coverage(self) -> float | None:
        """Of the signatures that the traced calls launched, the share that had been launched before. None for an empty list."""
        return self.launched / self.known if self.known else None


class Prewarm:
    """A bundle's list and one process's way through it, once. Never raises: what goes wrong is in the report.

    Modes: "auto", only while there is nothing better to do; "list", all of the list, before the handler goes on; "off".
    """

    def __init__(self, bundle: Path, mode: str, timeline: Timeline) -> None:
        self.mode = mode
        self._file = bundle / PREWARM
        self._timeline = timeline
        self._kernels: tuple[KernelSignature, ...] | None = None
        self._lock = threading.Lock()
        self._counts = {"launched": 0, "left_out": 0, "failed": 0}
        self._errors: list[str] = []
        self._seconds = 0.0
        self._gone: set[str] = set()  # devices whose turn has been
        self._thread: threading.Thread | None = None
        self._ends = False

    def beside(self, wanted: Callable[[], bool]) -> None:
        """Begin to launch what runs on CUDA, in a thread, while that is `wanted`. Nothing where the list has nothing of the kind."""
        if self._begins(CUDA):
            from tidalctl.runtime.weights.graph_capture import CaptureWatch

            watch = CaptureWatch(self._finish)
            watch.begin()  # here, since a capture may come before the thread does anything
            arguments = (CUDA, self._unless_off(wanted), watch)
            self._thread = threading.Thread(target=self._on_side_stream, args=arguments, name="prewarm", daemon=True)
            self._thread.start()

    def _finish(self) -> None:
        """Return when nothing is launched any more."""
        self._ends = True
        if self._thread is not None:
            self._thread.join()

    def in_gap(self, wanted: Callable[[], bool]) -> None:
        """Launch what runs on the CPU, in this thread, one signature after the other, while that is `wanted`."""
        wanted = self._unless_off(wanted)
        if wanted() and self._begins(CPU):
            with self._timeline.span("prewarm"):
                self._launch_all(CPU, wanted)
        if self.mode == "list" and self._thread is not None:
            with self._timeline.span("prewarm"):
                self._thread.join()

    def ahead(self) -> None:
        """Launch all of the CPU's list in this thread: in a process that waits for an event."""
        self.mode = "list"
        self.in_gap(lambda: True)

    def report(self) -> PrewarmReport:
        """As it is now."""
        known = len(self._known())
        with self._lock:
            counts, errors = dict(self._counts), tuple(self._errors)
        return PrewarmReport(mode=self.mode, known=known, seconds=round(self._seconds, 6), errors=errors, **counts)

    def _unless_off(self, wanted: Callable[[], bool]) -> Callable[[], bool]:
        return (lambda: True) if self.mode == "list" else wanted

    def _begins(self, device: str) -> bool:
        """Whether it is this device's turn, which comes once."""
        if self.mode == "off" or device in self._gone:
            return False
        self._gone.add(device)
        return device == CPU or any(f"@{device}" in text for kernel in self._known() for text in kernel.operands)

    def _known(self) -> tuple[KernelSignature, ...]:
        if self._kernels is None:
            try:
                self._kernels = msgspec.json.decode(self._file.read_bytes(), type=KernelList).kernels
            except (OSError, ValueError) as error:  # a list that can't be read costs the time that it would have saved
                self._kernels = ()
                self._errors.append(f"{PREWARM}: {error}")
        return self._kernels

    def _on_side_stream(self, device: str, wanted: Callable[[], bool], watch: "CaptureWatch") -> None:
        import torch

        try:
            stream = torch.cuda.Stream()
            free, _ = torch.cuda.mem_get_info()
            if free < ROOM:  # the handler's own need of it goes first
                self._note(f"{device}: {free / 1e9:.2f} GB of memory are free, too few to launch ahead")
                return
            with self._timeline.span("prewarm"), torch.cuda.stream(stream):
                self._launch_all(device, lambda: wanted() and not self._ends)
                stream.synchronize()  # scratch memory is in use until then
        except RuntimeError as error:  # no memory or no device; whoever computes meets it too, and says so
            self._count("failed", f"{device}: {error}")
        finally:
            watch.end()

    def _launch_all(self, device: str, wanted: Callable[[], bool]) -> None:
        from tidalctl.runtime.kernels.scratch_operands import Scratch, unseen

        began = time.perf_counter()
        scratch = Scratch(device, LARGEST[device])
        with unseen(device):
            for signature, launch in self._launches(device):
                if not wanted():
                    break
                try:
                    launch(scratch)
                except Exception as error:  # noqa: BLE001 - an operator may raise anything on zeros; the handler's call is another
                    self._count("failed", f"{signature.operator}: {error}")
                else:
                    self._count("launched")
        self._seconds += time.perf_counter() - began

    def _launches(self, device: str) -> Iterator[tuple[KernelSignature, Callable[[Any], None]]]:
        """What may be launched on a device, in the list's order. What may not be launched anywhere counts as the CPU's."""
        from tidalctl.runtime.kernels.scratch_operands import Launch, Unfit

        for signature in self._known():
            try:
                launch = Launch(signature)
                if launch.device not in (CPU, CUDA):
                    raise Unfit(f"it runs on {launch.device}")
                if launch.nbytes > LARGEST[launch.device]:
                    raise Unfit("a large operand")
            except Unfit:
                if device == CPU:
                    self._count("left_out")
                continue
            if launch.device == device:
                yield signature, launch.run

    def _count(self, what: str, error: str = "") -> None:
        with self._lock:
            self._counts[what] += 1
        if error:
            self._note(error)

    def _note(self, error: str) -> None:
        with self._lock:
            self._errors.append(error.splitlines()[0])
