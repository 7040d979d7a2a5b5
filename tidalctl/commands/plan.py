"""`tidalctl plan`: what a start from a bundle will take, before it is made."""

import json as json_
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from tidalctl.artifacts.bundle.directory import open_bundle
from tidalctl.artifacts.bundle.manifest import PROVENANCE, Manifest
from tidalctl.artifacts.bundle.start_times import Seconds, StartTimes
from tidalctl.artifacts.errors import TidalError
from tidalctl.commands.size import parse_size
from tidalctl.plan.simulation import Link, StartPlan, improvements, simulate
from tidalctl.report.terminal import console, print_indented, print_table, printable, seconds_text, size_text

SCHEMA = 1


def plan(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle, as compile wrote it.", show_default=False)],
    bandwidth: Annotated[
        str, typer.Option("--bandwidth", help="Of the link that weights come over: 24GB/s, or measure the bundle's disk.")
    ] = "measure",
    resident: Annotated[
        str, typer.Option("--resident", help="How much of the weights, in access order, is there already: 2GB.")
    ] = "0",
    device: Annotated[str, typer.Option("--device", help="Where the weights go. Only cpu has been measured yet.")] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="Print the plan, every group's arrival in it, as JSON.")] = False,
) -> None:
    """Predict the time to the first token of a start.

    And say what would shorten it. Nothing is started. The times before and between the uses of weights are those of compile's
    proof, over warm files; what is simulated is weights that are not in memory, and come over the link in the order of their first
    use.
    """
    manifest = open_bundle(bundle)
    if device != "cpu":
        raise TidalError(f"--device {device}: no start on it has been measured", "plan for the cpu, or measure on the device")
    if manifest.strategy == "eager":
        raise TidalError(
            f"{bundle}: its state is made anew each time (eager), so that no start streams weights",
            "what compile said of it: tidalctl inspect " + str(bundle),
        )
    times, uses = _times(bundle)
    measured = bandwidth == "measure"
    link = _link(bundle, manifest, None if measured else parse_bandwidth(bandwidth))
    prefix = parse_size("--resident", resident, "2GB", zero=True)
    found = simulate(manifest.weights, uses, times, link.bandwidth, prefix)
    better = improvements(manifest.weights, uses, times, link, prefix, _image_s(bundle))
    if json:
        document = {
            "schema": SCHEMA,
            "bundle": str(bundle),
            "digest": manifest.digest,
            "device": device,
            "link": {**msgspec.to_builtins(link), "bandwidth": link.bandwidth, "measured": measured},
            "resident": prefix,
            "times": msgspec.to_builtins(times),
            "plan": msgspec.to_builtins(found),
            "improvements": msgspec.to_builtins(better),
        }
        typer.echo(json_.dumps(document, ensure_ascii=False))
    else:
        lines = _lines(link, "measured" if measured else "as given", prefix, times, found)
        screen = console()
        print_indented(screen, f"{bundle}: {lines[0]}")
        for line in lines[1:]:
            print_indented(screen, f"  {line}")
        rows = [[one.what, seconds_text(one.ttft_s), f"{found.ttft_s / one.ttft_s:.2f} times"] for one in better if one.ttft_s]
        print_table(screen, "what would help", ["with~", "first token after>", "sooner>"], rows)


def _image_s(bundle: Path) -> float | None:
    """Return how long a start from the bundle's image took until it had its state; None where there is no image, or no proof of it."""
    from tidalctl.image.manifest import NoImage, read_manifest

    try:
        return read_manifest(bundle).ready_s
    except (NoImage, PermissionError):
        return None


def parse_bandwidth(text: str) -> float:
    """A bandwidth such as 24GB/s or 500MiB/s, in bytes a second. Raises TidalError."""
    amount = text.strip()
    amount = amount[:-2] if amount.lower().endswith("/s") else amount
    if amount.replace(".", "", 1).isdecimal():
        raise TidalError(f"--bandwidth {text!r} has no unit", f"for example: --bandwidth {amount}GB/s")
    found = parse_size("--bandwidth", amount, "24GB/s")
    if found < 1:
        raise TidalError(f"--bandwidth {text!r} is less than a byte a second", "for example: --bandwidth 24GB/s")
    return float(found)


def _times(bundle: Path) -> tuple[StartTimes, dict[str, float]]:
    """Return the times of compile's start, and the first uses of weights."""
    try:
        body = msgspec.json.decode((bundle / PROVENANCE).read_bytes())
        return msgspec.convert(body["start"], StartTimes), msgspec.convert(body["first_uses"], dict[str, Seconds])
    except (OSError, ValueError, KeyError, TypeError):
        raise TidalError(
            f"{bundle} holds no times of a start: it lost its {PROVENANCE}, or its state is made otherwise than from a snapshot",
            "tidalctl inspect tells its strategy; of a snapshot, compile it again",
        ) from None


def _link(bundle: Path, manifest: Manifest, given: float | None) -> Link:
    """The link that was given, or the disk that the bundle lies on, and the hashes that check what it brings."""
    from tidalctl.bench.link import check_bandwidth, read_bandwidth

    files = list(dict.fromkeys(weight.file for weight in manifest.weights))
    if not files:
        raise TidalError(f"{bundle} holds no weights", "there is nothing to plan")
    largest = bundle / max(files, key=lambda name: manifest.files[name].size)
    return Link(read=read_bandwidth(largest) if given is None else given, hash=check_bandwidth(largest))


def _lines(link: Link, how: str, resident: int, times: StartTimes, found: StartPlan) -> list[str]:
    """The plan in words for a person; the first line's subject is the bundle."""
    slower = f", checked at {size_text(link.hash)}/s" if link.hash < link.read else ""
    critical = found.critical
    if critical is None:
        path = "imports and compute: every weight arrives before it is used"
    else:
        behind = seconds_text(found.ttft_s - critical.arrives_s)
        path = f"the first {size_text(critical.bytes_before)}, up to {printable(critical.weight)}, then {behind} of compute"
    return [
        f"{size_text(found.bytes)} of weights at {size_text(link.read)}/s ({how}{slower}), {size_text(resident)} resident",
        f"first token after  {seconds_text(found.ttft_s)}",
        f"  until the handler computes  {seconds_text(times.ready_s)}   its compute  {seconds_text(times.compute_s)}",
        f"  waiting for weights  {seconds_text(found.waiting_s)}",
        f"critical path      {path}",
        f"resident prefix that makes loading vanish  {size_text(found.resident_prefix)}; "
        f"in a process that has imported everything  {size_text(found.resident_prefix_warm)} "
        f"(by Equation 1 of TIDAL's paper: {size_text(found.resident_prefix_tidal)})",
    ]
