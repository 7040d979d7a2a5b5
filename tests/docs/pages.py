"""README and the pages of docs/, taken apart: blocks of code, links, tables of options, names in code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *(ROOT / "examples" / name / "README.md" for name in ("adapters", "deploy")),
    *sorted((ROOT / "docs").glob("*.md")),
)
COMMANDS = ("sh", "bash", "console", "shell")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line at which the text begins."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The name of the file that a block of Python is: `# name.py` stands in its first line."""
        found = re.match(r"# (\S+\.py)\n", self.text) if self.language == "python" else None
        return found[1] if found else None


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    """Fenced blocks in the order of the page."""
    language, begin, lines = "", 0, list[str]()
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.startswith("```") and not begin:
            language, begin, lines = line[3:].strip(), number + 1, []
        elif line.startswith("```"):
            yield Block(language, "\n".join(lines) + "\n", begin)
            begin = 0
        elif begin:
            lines.append(line)
    assert not begin, f"{name_of(page)}: the block at line {begin - 1} never ends"


def indented(page: Path) -> Iterator[Block]:
    """Blocks that are code by their indentation, outside of fenced ones."""
    begin, lines, fenced, before = 0, list[str](), False, ""
    for number, line in enumerate([*page.read_text().splitlines(), ""], 1):
        if line.startswith("```"):
            fenced = not fenced
        code = line.startswith("    ") and not fenced
        if code and (begin or not before.strip()):
            begin = begin or number
            lines.append(line[4:])
        elif begin:
            yield Block("", "\n".join(lines) + "\n", begin)
            begin, lines = 0, []
        before = line


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def anchors(page: Path) -> set[str]:
    """Names of the page's headings as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def code_spans(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))
