"""The entry point. Errors are caught here, once."""

import sys
import time

ENTERED = time.monotonic_ns()


def main() -> None:
    """Run one command and leave with its exit code: 0 fine, 1 a check or the user's function failed, 2 usage, 130 interrupted.

    141 where nobody reads the output any more, as of a process that SIGPIPE ended: nothing failed, and not all was done.
    """
    from tidalctl.artifacts.errors import TidalError, print_error

    _print_any_character()
    try:
        code = _dispatch(sys.argv[1:])
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
    if {
        "torch",
        "tidalctl.runtime.imports.shared_libraries",
    } & sys.modules.keys():  # its libraries may be being loaded at this moment
        from tidalctl.runtime.process.exit import leave

        leave(code)
    sys.exit(code)


def _print_any_character() -> None:
    """What an encoding lacks is printed as JSON escapes it, so that JSON stays JSON; errors' own stream escapes of itself."""
    if sys.stdout is None or sys.stdout.encoding.lower() in ("utf-8", "utf8"):
        return
    import codecs
    import json

    def escaped(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        return json.dumps(error.object[error.start : error.end])[1:-1], error.end

    codecs.register_error("tidalctl", escaped)
    sys.stdout.reconfigure(errors="tidalctl")  # type: ignore[union-attr]


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


def _dispatch(arguments: list[str]) -> int:
    if arguments[:1] == ["run"]:
        from tidalctl.commands.run_fast import parse

        fields = parse(arguments[1:])
        if fields is not None:
            from tidalctl.runtime.launch import start

            return start(fields)
    from tidalctl.cli import main as framework

    return framework(arguments)


if __name__ == "__main__":
    main()
