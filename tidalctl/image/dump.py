"""Makes the process image of a bundle: has a process import its function, dumps it, and writes down what a start will compare."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tidalctl.artifacts.bundle import IMAGE_FOLDER
from tidalctl.artifacts.bundle.directory import (
    clear_stale_partials,
    open_bundle,
    partial_name,
    publish,
    remove,
    sync_tree,
)
from tidalctl.artifacts.bundle.manifest import Manifest
from tidalctl.artifacts.bundle.weight_groups import plan_groups
from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.host.import_environment import read_while_loading
from tidalctl.host.wire import Gone, receive
from tidalctl.image.conditions import usable_criu
from tidalctl.image.criu import OLDEST, criu_version, dump_command, last_error
from tidalctl.image.machine import describe_machine, stamp
from tidalctl.image.manifest import ImageManifest, bundle_digest, text_digest, write_manifest
from tidalctl.image.touched_pages import touched_parts
from tidalctl.runtime.imports.read_ahead import libraries_touched

ALLOWED = ("PATH", "HOME", "TMPDIR")  # that the dumped process has, besides what imports read and libraries look at


class NotDumped(Exception):
    """No image can be made of this bundle here. `reason` says why."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason
        super().__init__(reason.text)


def make_image(bundle: Path, *, ship: bool = False) -> ImageManifest:
    """Make the image of a bundle, in place of one that it has. With `ship` others than this user may read it.

    Raises NotDumped, or TidalError where there is no bundle.
    """
    manifest = open_bundle(bundle)
    criu = _criu()
    target = bundle / IMAGE_FOLDER
    beside = bundle.absolute().with_name(f"{bundle.absolute().name}.image")
    clear_stale_partials(beside)
    partial = partial_name(beside)
    partial.mkdir(mode=0o700)
    try:
        reads = manifest.import_variables
        environ = {
            name: value for name, value in os.environ.items() if name in reads or name in ALLOWED or read_while_loading(name)
        }
        with _waiting_process(bundle.resolve(), environ) as (process, told, pipe):
            image = _manifest(bundle, manifest, process.pid, told, pipe, environ)
            _dump(dump_command(criu, process.pid, str(partial.absolute())))
        image = image._replace(files={path.name: [path.stat().st_size, _blake3(path)] for path in sorted(partial.iterdir())})
        write_manifest(partial, image)
        for path in partial.iterdir():
            path.chmod(0o644 if ship else 0o600)
        partial.chmod(0o755 if ship else 0o700)
        sync_tree(partial)
        publish(partial, target)
    finally:
        remove(partial)
    return image


def _criu() -> str:
    criu = usable_criu(os.environ)
    if not isinstance(criu, str):
        code, fields = criu
        raise NotDumped(Cause.by_code(code).of(**fields))
    version = criu_version(criu)
    if version is None or version < OLDEST:
        said = ".".join(map(str, version)) if version else "of no version that it tells"
        raise NotDumped(Cause.IMAGE_OLD_CRIU.of(path=criu, version=said, oldest=".".join(map(str, OLDEST))))
    return criu


@contextmanager
def _waiting_process(bundle: Path, environ: Mapping[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any], int]]:
    """Have a process import the function and wait. Yields it, what it has told, and the inode of the pipe that it waits on."""
    orders, give_orders = os.pipe()
    mine, theirs = socket.socketpair()
    with mine, theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tidalctl.image.dumped_process", str(bundle), str(orders), str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(orders, theirs.fileno()),
            start_new_session=True,
            cwd="/",
            env=dict(environ),
        )
        theirs.close()
        try:
            try:
                told, _ = receive(mine)
            except Gone:
                raise NotDumped(Cause.TEMPLATE_FAILED.of(error=f"its process ended ({process.wait()})")) from None
            if "code" in told:
                raise NotDumped(Reason(told["code"], told["text"]))
            mine.recv(1)  # nothing: it has closed its end, and waits for orders
            yield process, told, os.fstat(orders).st_ino
        finally:
            os.close(orders)
            os.close(give_orders)
            process.send_signal(signal.SIGKILL)
            process.wait()


def _manifest(
    bundle: Path, manifest: Manifest, pid: int, told: Mapping[str, Any], pipe: int, environ: Mapping[str, str]
) -> ImageManifest:
    held = _open_files(pid, pipe)
    return ImageManifest(
        path=os.path.realpath(bundle),
        bundle=bundle_digest(bundle),
        pid=pid,
        pipe=pipe,
        files={},
        reads=told["reads"],
        environ={name: text_digest(value) for name, value in sorted(environ.items())},
        machine=describe_machine(),
        stamps={path: stamp(path) for path in sorted({*_mapped_files(pid), *held, *told["files"]})},
        user=os.getuid() if told["asked"] else -1,
        touched=_touched(bundle, manifest, pid),
        groups=[
            [group.file, group.begin, group.end, [(weight.offset, weight.nbytes, weight.xxh3) for weight in group.weights]]
            for group in plan_groups(manifest.weights)
        ],
    )


def _touched(bundle: Path, manifest: Manifest, pid: int) -> dict[str, list[tuple[int, int]]]:
    """Return what a start touches of mapped files: what process `pid` has touched, and the traced process while it computed."""
    weights = {os.path.realpath(bundle / weight.file) for weight in manifest.weights}
    parts: dict[str, list[tuple[int, int]]] = touched_parts(pid, weights)
    for path, traced in libraries_touched(bundle, manifest):
        if traced is not None and str(path) in parts:
            parts[str(path)] = [*parts[str(path)], *((offset, length) for offset, length in traced)]
    return parts


def _mapped_files(pid: int) -> set[str]:
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as file:
        names = {line.rstrip("\n").split(maxsplit=5)[5] for line in file if line.count("/") and len(line.split(maxsplit=5)) > 5}
    return {name for name in names if name.startswith("/")}


def _open_files(pid: int, pipe: int) -> set[str]:
    """Return the files that a process has open. Raises NotDumped where it has something open that no image holds."""
    files = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        link = os.readlink(f"/proc/{pid}/fd/{descriptor}")
        mode = os.stat(f"/proc/{pid}/fd/{descriptor}").st_mode
        if stat.S_ISREG(mode):
            files.add(link)
        elif link not in (f"pipe:[{pipe}]", "/dev/null", "/dev/urandom") and not stat.S_ISDIR(mode):
            raise NotDumped(Cause.IMAGE_HOLDS.of(what=link))
    return files


def _dump(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise NotDumped(Cause.IMAGE_NOT_DUMPED.of(error=last_error(done.stderr)))


def _blake3(path: Path) -> str:
    from blake3 import blake3

    return str(blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest())
