"""A template process: has workers answer events, each its own. It answers none itself.

It imports the bundle's function, holds its state, and is forked for each event. What can't be forked is imported by each worker, and
this process, begun again without it, starts those ahead.
"""

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

from tidalctl.artifacts.bundle.directory import open_bundle
from tidalctl.host.failed_template import failed_template
from tidalctl.host.import_reads import read_at_import, stamp
from tidalctl.host.process_properties import die_with_parent, set_dumpable
from tidalctl.host.wire import Gone, send
from tidalctl.host.worker_source import ForkedWorkers, SpawnedWorkers, WorkerSource
from tidalctl.host.workers import Workers

SPAWNED = "--spawned"  # and the code and the text of the cause


def main() -> None:
    die_with_parent(int(sys.argv[3]))
    set_dumpable(False)
    environ, arguments = dict(os.environ), sys.argv[1:4]
    bundle, orders = Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))
    os.set_inheritable(orders.fileno(), False)
    cause = None
    try:
        manifest = open_bundle(bundle)
        read = {path: stamp(path) for path in read_at_import(bundle, manifest)}  # before it is
        if sys.argv[4:5] == [SPAWNED]:
            cause = {"code": sys.argv[5], "text": sys.argv[6]}
            source: WorkerSource = SpawnedWorkers(bundle, manifest)
        else:
            source = _forked(bundle, orders, environ, arguments)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's module may raise anything
        with suppress(Gone):
            send(orders, failed_template(error))
        os._exit(1)
    workers = Workers(source, environ, orders)
    send(orders, {"ready": True, "spawned": cause, "read": read})
    try:
        workers.serve()
    finally:
        workers.end()
        os._exit(0)


def _forked(bundle: Path, orders: socket.socket, environ: dict[str, str], arguments: list[str]) -> WorkerSource:
    """Return forks of this process, or begin it again, with what it was begun with, where there can't be any."""
    from tidalctl.host.ready_template import NotForked, ready_template
    from tidalctl.host.worker import become_worker, serve_one

    try:
        template, generators = ready_template(bundle, forked=True)
    except NotForked as refused:
        os.set_inheritable(orders.fileno(), True)
        again = [*arguments, SPAWNED, refused.reason.code, refused.reason.text]
        os.execve(sys.executable, [sys.executable, "-P", "-m", "tidalctl.host.template_process", *again], environ)

    template_process = os.getpid()

    def serve(theirs: socket.socket, ahead: bool) -> None:
        become_worker(template_process)
        serve_one(template, generators, theirs, ahead=ahead)

    return ForkedWorkers(template.manifest, serve)


if __name__ == "__main__":
    main()
