"""`tidalctl run` without the command-line framework, whose import would be part of every start.

Takes just the plain forms of the options that `commands/run.py` declares. Anything else (a mistake, --help, a new option) is
left to the framework, which has the better words. A test holds the two alike.
"""

from collections.abc import Sequence

from tidalctl.runtime.options import Io, Prewarm, Require, UseImage, Verify

FLAGS = {
    "--json": ("json", True),
    "--eager": ("eager", True),
    "--state": ("state", True),
}
VALUES = {
    "--event": "event",
    "--context": "context",
    "-e": "event",
    "--timeline": "timeline",
    "--report": "report",
    "--verify": "verify",
    "--readahead": "ahead",
    "--io": "io",
    "--prewarm": "prewarm",
    "--require": "require",
    "--keep": "keep",
    "--image": "image",
}


def parse(arguments: Sequence[str]) -> dict[str, object] | None:
    """The fields of RunOptions, or None where the framework should have a look."""
    found: dict[str, object] = {}
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if argument == "--":
            found["argv"] = tuple(rest)
        elif argument in FLAGS:
            field, flag = FLAGS[argument]
            found[field] = flag
        elif name in VALUES and (argument == name or (name.startswith("--") and equals)):
            given = value if equals else next(rest, None)
            if given is None or (VALUES[name] == "event" and "event" in found):
                return None
            found[VALUES[name]] = given
        elif argument.startswith("-") or "bundle" in found:
            return None
        else:
            found["bundle"] = argument
    if "ahead" in found:
        from tidalctl.commands.size import parse_size

        found["ahead"] = parse_size("--readahead", str(found["ahead"]))
    for field, choices in (("verify", Verify), ("prewarm", Prewarm), ("io", Io), ("require", Require), ("image", UseImage)):
        if field in found and found[field] not in [choice.value for choice in choices]:
            return None
    return found if "bundle" in found and "event" in found else None
