"""The errors a person can do something about. They are caught once, at the top of the command line."""

import sys

COMPILE_AGAIN = "compile the bundle again"  # the hint where the files of a bundle are not what compile wrote


class TidalError(Exception):
    """A message, a hint that says what to do next, and the process's exit code (2: usage or a bad artifact)."""

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class FunctionError(TidalError):
    """The user's function raised; its traceback has been shown."""

    exit_code = 1


class CheckFailed(TidalError):
    """The check that was asked for ran, and found a difference."""

    exit_code = 1


class TooFewSamples(TidalError):
    """What was asked for was measured, but too few times to say it."""

    exit_code = 3


class StateNotUsed(TidalError):
    """The start had to use the bundle's state (`--require`), and would run init instead. `code` is that of the cause."""

    exit_code = 1

    def __init__(self, message: str, hint: str, code: str) -> None:
        super().__init__(message, hint)
        self.code = code


class ArtifactError(TidalError):
    """A trace or a bundle that can't be used. Each way in which a file can lie is a class of its own below."""


class NotAnArtifact(ArtifactError):
    """The file is something else altogether."""


class Truncated(ArtifactError):
    """The file ends before it should."""


class Corrupt(ArtifactError):
    """The bytes are not the ones that were written."""


class OlderSchema(ArtifactError):
    """Made by an older tidalctl, in a schema that this one reads no more."""


class NewerSchema(ArtifactError):
    """Written by a later tidalctl than this one."""


class PathEscapes(ArtifactError):
    """A path in the artifact leads out of it."""


class WrongFingerprint(ArtifactError):
    """Made for another Python, platform or device, so that nothing in it may be loaded here."""


def print_error(error: TidalError) -> None:
    """Print the message and the hint on standard error."""
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)


def output_full(error: OSError) -> TidalError:
    """What there is to say where the command's own output can't be written."""
    return TidalError(f"standard output can't be written: {error.strerror or error}", "what was printed there is not whole")
