"""What a bundle needs besides itself, in words: files that the traced function opened and that the bundle does not hold."""

from tidalctl.artifacts.bundle.manifest import NeededFile
from tidalctl.report.terminal import count_text

NAMED = 5  # files of one kind in a line


def needs_text(needs: tuple[NeededFile, ...], strategy: str) -> str:
    """Return one line; empty where nothing is needed. `strategy` tells whether every start runs init."""
    always: list[str] = []
    by_init: list[str] = []
    for needed in needs:
        if not needed.optional:
            (by_init if needed.phase == "init" and strategy in ("snapshot", "script") else always).append(file_text(needed))
    parts = [*filter(None, [_names(always)])]
    if by_init := [name for name in by_init if name not in always]:
        parts.append(f"where init runs: {_names(by_init)}")
    if optional := sum(needed.optional for needed in needs):
        parts.append(f"{count_text(optional, 'file')} that it may do without or find elsewhere")
    return "; ".join(parts)


def file_text(needed: NeededFile) -> str:
    return needed.file.removeprefix("project:")


def _names(names: list[str]) -> str:
    names = list(dict.fromkeys(names))
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
