"""The entry point. Errors are caught here, once."""

import sys
import time

ENTERED = time.monotonic_ns()


def main() -> None:
    """Run one command and leave with its exit code: 0 fine, 1 a check or the user's function failed, 2 usage; see exit_code."""
    from tidalctl.runtime.process.exit_code import exit_code_of

    if sys.stdout is not None and sys.stdout.encoding.lower() not in ("utf-8", "utf8"):
        from tidalctl.runtime.process.any_character import print_any_character

        print_any_character()
    code = exit_code_of(lambda: _dispatch(sys.argv[1:]))
    if {
        "torch",
        "tidalctl.runtime.imports.shared_libraries",
    } & sys.modules.keys():  # its libraries may be being loaded at this moment
        from tidalctl.runtime.process.exit import leave

        leave(code)
    sys.exit(code)


def _dispatch(arguments: list[str]) -> int:
    if arguments[:1] == ["run"]:
        from tidalctl.commands.run_fast import parse

        fields = parse(arguments[1:])
        if fields is not None:
            if "keep" in fields:
                from tidalctl.commands.kept import run_kept

                return run_kept(fields)
            from tidalctl.commands.best_start import best_start

            return best_start(fields)
    from tidalctl.cli import main as framework

    return framework(arguments)


if __name__ == "__main__":
    main()
