"""The choices of `run`'s options, declared once: for all parsers of the command line, `load_bundle` and the engine."""

import enum


class Verify(enum.StrEnum):
    """When weights are checked: as they arrive, whole files before the start, or not at all."""

    STREAM = "stream"
    FULL = "full"
    OFF = "off"


class Io(enum.StrEnum):
    """How weights for a device are read: past the page cache where it can't keep them, always past it, or through it."""

    AUTO = "auto"
    DIRECT = "direct"
    BUFFERED = "buffered"


class Prewarm(enum.StrEnum):
    """Which kernels are launched ahead: as many as cost nothing, all of the list first, or none."""

    AUTO = "auto"
    LIST = "list"
    OFF = "off"


class UseImage(enum.StrEnum):
    """Whether a start is made from the bundle's process image: where it can be, never, or in any case."""

    AUTO = "auto"
    OFF = "off"
    REQUIRE = "require"


class Require(enum.StrEnum):
    """The strategy by which a start must make its state from the bundle: exactly this one."""

    SNAPSHOT = "snapshot"
    SCRIPT = "script"
    REPLAY = "replay"
