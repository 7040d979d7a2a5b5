"""How a command ends: errors told in one place, and the exit code."""

import sys
from collections.abc import Callable


def exit_code_of(work: Callable[[], int]) -> int:
    """Do the work, and tell what went wrong. Return its code, that of a TidalError, 130 where it was interrupted, or 141.

    141 is where nobody reads the output, as of a process that SIGPIPE ended: nothing failed, and not all was done.
    """
    from tidalctl.artifacts.errors import TidalError, print_error

    try:
        code = work()
        _flush()
    except TidalError as error:
        try:
            _flush()
        except (OSError, TidalError):
            sys.stdout = None  # type: ignore[assignment] # what failed is said all the same
        print_error(error)
        code = error.exit_code
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        sys.stdout = None  # type: ignore[assignment] # whoever read it is gone; a second complaint at exit helps nobody
        code = 141
    except OSError as error:
        print(f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        print(
            "hint: free some space or check the permissions; nothing has its final name yet, and what was printed may not be whole",
            file=sys.stderr,
        )
        code = 2
    return code


def _flush() -> None:
    """Find out while there is somebody to tell. A process may have no such stream, and the function may have closed or changed it."""
    try:
        sys.stdout.flush()
    except (AttributeError, ValueError):
        return
    except BrokenPipeError:
        raise
    except OSError as error:
        from tidalctl.artifacts.errors import output_full

        sys.stdout = None  # type: ignore[assignment] # or Python would try once more at exit, and complain
        raise output_full(error) from None
