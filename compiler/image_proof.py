"""The proof of a process image: a start from it gives what an ordinary start from its bundle gives."""

from pathlib import Path
from typing import Any, NamedTuple

from tidalctl.artifacts.trace.records import Header
from tidalctl.compiler.handler_runs import HandlerRuns
from tidalctl.compiler.snapshot.processes import run_from_bundle
from tidalctl.function.output_comparison import first_difference, same_output


class ImageProof(NamedTuple):
    """A start from an image: in what it differs from an ordinary one, and after how many seconds the state was made; or None."""

    difference: str | None
    ready_s: float | None


def prove_image(bundle: Path, header: Header, runs: HandlerRuns, *, reproducible: bool) -> ImageProof:
    """Answer the first traced event from a bundle's image, and from the bundle.

    Outputs are compared where the function is `reproducible`, and weights where the bundle gave them. Under `--once` nothing is run.
    """
    if header.once:
        return ImageProof(None, None)
    event = header.events[0]
    runs.bundle += 2
    ours, ordinary = (run_from_bundle(bundle, header, event, "--image", image) for image in ("require", "off"))
    return ImageProof(_difference(ours, ordinary, reproducible=reproducible), ours.get("ready_s"))


def _difference(ours: dict[str, Any], ordinary: dict[str, Any], *, reproducible: bool) -> str | None:
    if failed := ours.get("failed") or ordinary.get("failed"):
        return str(failed)
    if ours["strategy"] != ordinary["strategy"]:
        return f"it makes the state by {ours['strategy']}, not by {ordinary['strategy']}"
    if ours["restored"] and ours.get("state") != ordinary.get("state"):
        return "the state's weights differ"
    if reproducible and not same_output(ours["output"], ordinary["output"]):
        return first_difference(ours["output"], ordinary["output"])
    return None
