"""`tidalctl image`: make, show or remove the process image of a bundle."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tidalctl.artifacts.bundle import IMAGE_FOLDER
from tidalctl.artifacts.bundle.directory import open_bundle, remove
from tidalctl.artifacts.errors import CheckFailed, TidalError
from tidalctl.compiler.image_proof import ImageProof
from tidalctl.report.terminal import size_text
from tidalctl.runtime.options import UseImage


def image(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle, as compile wrote it.")],
    show: Annotated[bool, typer.Option("--show", help="Say what image there is, and whether a start here can use it.")] = False,
    remove_it: Annotated[bool, typer.Option("--remove", help="Remove the image.")] = False,
    ship: Annotated[
        bool, typer.Option("--ship", help="Let other users of the machine read it: it holds what imports have read.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make, show or remove the process image of a bundle.

    That is a process that has imported the function, on disk.

    CRIU 4.1 or later has to be there (on PATH, or named by TIDALCTL_CRIU), and root makes the image. A start restores it, as any
    user, where machine, packages and environment are those that it was made with; else it is an ordinary start, and says why.
    """
    if show and remove_it:
        raise TidalError("--show and --remove exclude each other", "give one of them")
    open_bundle(bundle)
    if remove_it:
        there = (bundle / IMAGE_FOLDER).is_dir()
        remove(bundle / IMAGE_FOLDER)
        _tell({"bundle": str(bundle), "removed": there}, "image removed" if there else "there was no image", as_json=as_json)
    elif show:
        _show(bundle, as_json=as_json)
    else:
        size = _made(bundle, ship=ship)
        _tell({"bundle": str(bundle), "image_bytes": size, "ship": ship}, f"image of {size_text(size)} made", as_json=as_json)


def make_for_compile(bundle: Path, wanted: UseImage, prove: Callable[[], ImageProof]) -> int | None:
    """Make the image of a bundle that was compiled just now, as `--image` says. Returns its bytes, or None where there is none.

    An image that the proof finds to answer otherwise than the bundle is removed.
    """
    if wanted is UseImage.OFF:
        return None
    from tidalctl.image.manifest import note_start

    try:
        size = _made(bundle, ship=False)
        proof = prove()
        if proof.difference is not None:
            remove(bundle / IMAGE_FOLDER)
            raise CheckFailed(
                f"no image: the proof of it: {proof.difference}", "a start from the bundle needs none: --image off"
            )
        note_start(bundle, proof.ready_s)
    except CheckFailed as error:
        if wanted is UseImage.REQUIRE:
            raise
        typer.echo(f"  {error.message}", err=True)
        return None
    typer.echo(f"  image     {size_text(size)}: a start on this machine has its imports done", err=True)
    return size


def _made(bundle: Path, *, ship: bool) -> int:
    """Make the image. Returns its bytes, or raises CheckFailed."""
    from tidalctl.image.dump import NotDumped, make_image

    try:
        return sum(size for size, _ in make_image(bundle, ship=ship).files.values())
    except NotDumped as refused:
        hint = "a start from the bundle needs none; docs/troubleshooting.md says what to change"
        raise CheckFailed(f"no image: {refused.reason}", hint) from None


def _show(bundle: Path, *, as_json: bool) -> None:
    from tidalctl.image.launcher import usable_here
    from tidalctl.image.manifest import NoImage, read_manifest

    try:
        manifest = read_manifest(bundle)
    except NoImage as error:
        raise CheckFailed(f"no image: {error}", f"make one: tidalctl image {bundle}") from None
    reason = usable_here(bundle, manifest)
    size = sum(size for size, _ in manifest.files.values())
    fields = {
        "bundle": str(bundle),
        "image_bytes": size,
        "usable": reason is None,
        "cause": reason.code if reason else None,
        "text": reason.text if reason else None,
        "machine": manifest.machine,
        "reads": manifest.reads,
        "files": len(manifest.stamps),
    }
    if reason is None or as_json:
        _tell(fields, f"image of {size_text(size)}: a start here uses it", as_json=as_json)
    if reason is not None:
        hint = "put that right, or make it anew here: tidalctl image " + str(bundle)
        raise CheckFailed(f"image of {size_text(size)}: a start here can't use it: {reason}", hint)


def _tell(fields: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"schema": 1, **fields}))
    else:
        typer.echo(text)
