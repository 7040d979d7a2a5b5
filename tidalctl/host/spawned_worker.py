"""The process of a worker that is no fork: it imports the function, makes its state ready, and waits for its one event."""

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

from tidalctl.host.failed_template import failed_template
from tidalctl.host.ready_template import ready_template
from tidalctl.host.wire import Gone, send
from tidalctl.host.worker import become_worker, serve_one


def main() -> None:
    become_worker(int(sys.argv[3]))
    bundle, orders = Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))
    os.set_inheritable(orders.fileno(), False)
    try:
        template, generators = ready_template(bundle, forked=False)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's module may raise anything
        with suppress(Gone):
            send(orders, failed_template(error))
        os._exit(1)
    serve_one(template, generators, orders, ahead=True)


if __name__ == "__main__":
    main()
