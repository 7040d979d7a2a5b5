"""`tidalctl plan`: what a start from a bundle will take, before it is made."""

import json as json_
import os
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from tidalctl.artifacts.bundle import open_bundle
from tidalctl.artifacts.errors import TidalError
from tidalctl.artifacts.manifest import PROVENANCE, Manifest
from tidalctl.commands.size import parse_size
from tidalctl.compiler.plan import Improvement, StartPlan, StartTimes, improvements, simulate
from tidalctl.terminal import console, print_table, seconds_text, size_text

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
    """Predict the time to the first token from the trace's own times, and say what would shorten it.

    Nothing is started. The times before and between the uses of weights are those of compile's proof, over warm files; what is
    simulated is weights that are not in memory, and come over the link in the order of their first use.
    """
    manifest = open_bundle(bundle)
    if device != "cpu":
        raise TidalError(f"--device {device}: no start on it has been measured", "plan for the cpu, or measure on the device")
    times = _times(bundle)
    link = _link(bundle, manifest, bandwidth)
    prefix = parse_size("--resident", resident, "2GB", zero=True)
    found = simulate(manifest.weights, times, link["bandwidth"], prefix)
    better = improvements(manifest.weights, times, link["bandwidth"], prefix)
    if json:
        document = {
            "schema": SCHEMA,
            "bundle": str(bundle),
            "digest": manifest.digest,
            "device": device,
            "link": link,
            "resident": prefix,
            "times": msgspec.to_builtins(times),
            "plan": msgspec.to_builtins(found),
            "improvements": msgspec.to_builtins(better),
        }
        typer.echo(json_.dumps(document, ensure_ascii=False))
    else:
        _render(bundle, link, prefix, times, found, better)


def _times(bundle: Path) -> StartTimes:
    try:
        body = json_.loads((bundle / PROVENANCE).read_bytes())
        return msgspec.convert(body["start"], StartTimes)
    except (OSError, ValueError, KeyError, TypeError):
        raise TidalError(
            f"{bundle} holds no times of a start: its state is made anew each time, or it lost its {PROVENANCE}",
            "compile it again; tidalctl inspect tells its strategy",
        ) from None


def _link(bundle: Path, manifest: Manifest, bandwidth: str) -> dict[str, Any]:
    """What weights come over, in bytes a second: the slower of the link and the hashes that check them."""
    from tidalctl.bench.link import hash_bandwidth, read_bandwidth

    if bandwidth == "measure":
        files = list(dict.fromkeys(weight.file for weight in manifest.weights))
        if not files:
            raise TidalError(f"{bundle} holds no weights", "there is nothing to plan")
        read = read_bandwidth(bundle / max(files, key=lambda name: manifest.files[name].size))
    else:
        read = float(parse_size("--bandwidth", bandwidth.removesuffix("/s"), "24GB/s"))
    checked = hash_bandwidth() * max((os.cpu_count() or 2) - 1, 1)
    return {"read": read, "measured": bandwidth == "measure", "hash": checked, "bandwidth": min(read, checked)}


def _render(
    bundle: Path, link: dict[str, Any], resident: int, times: StartTimes, found: StartPlan, better: tuple[Improvement, ...]
) -> None:
    how = "measured" if link["measured"] else "as given"
    slower = f", checked at {size_text(link['hash'])}/s" if link["hash"] < link["read"] else ""
    lines = [
        f"{bundle}: {size_text(found.bytes)} of weights at {size_text(link['read'])}/s ({how}{slower}), {size_text(resident)} resident",
        f"  first token after  {seconds_text(found.ttft_s)}",
        f"    until the handler computes  {seconds_text(times.ready_s)}   its compute  {seconds_text(times.compute_s)}",
        f"    waiting for weights  {seconds_text(found.waiting_s)}",
    ]
    if found.critical is not None:
        behind = found.ttft_s - found.critical.arrives_s
        lines.append(
            f"  critical path      the first {size_text(found.critical.bytes_before)}, up to {found.critical.weight}, "
            f"then {seconds_text(behind)} of compute"
        )
    else:
        lines.append("  critical path      imports and compute: every weight arrives before it is used")
    lines += [
        f"  resident prefix that makes loading vanish  {size_text(found.resident_prefix)}; "
        f"in a process that has imported everything  {size_text(found.resident_prefix_warm)} "
        f"(TIDAL's form: {size_text(found.resident_prefix_tidal)})",
    ]
    typer.echo("\n".join(lines))
    rows = [[one.what, seconds_text(one.ttft_s), f"{found.ttft_s / one.ttft_s:.2f} times"] for one in better if one.ttft_s]
    print_table(console(), "what would help", ["with", "first token after", "sooner"], rows)
