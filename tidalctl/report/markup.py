"""HTML by hand: text made harmless, numbers as people read them, and the document around a page."""

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tidalctl.report.phases import phase_of
from tidalctl.report.pieces import Part
from tidalctl.report.terminal import seconds_text

ASSETS = Path(__file__).parent


def safe(text: object) -> str:
    """Any text as HTML. What can't be seen (controls, marks that turn the reading direction, lone surrogates) becomes U+FFFD."""
    seen = "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in str(text))
    return html.escape(seen)


def figure(seconds: float) -> str:
    """A time in a table: to the millisecond, and exactly as measured in the markup."""
    text = f"{seconds:.3f} s" if abs(seconds) >= 0.0005 or not seconds else f"{seconds * 1e6:.0f} µs"
    return f'<data value="{seconds!r}">{text}</data>'


def share(part: float, whole: float) -> str:
    """A share in whole per cent; what is there and rounds to nothing says so."""
    rate = part / whole if whole > 0 else 0.0
    return f"{rate:.0%}" if rate >= 0.005 or not rate else "<1%"


def percent(value: float, whole: float) -> str:
    """A place or a width in CSS."""
    return f"{100 * value / whole:.4f}".rstrip("0").rstrip(".") + "%"


def tick_step(longest: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that gives at most eight ticks."""
    size = 1e-6
    while True:
        for factor in (1, 2, 5):
            if longest / (factor * size) <= 8:
                return factor * size
        size *= 10


def axis(window: float) -> tuple[str, str]:
    """Lines for behind the bars, and the numbers below them."""
    step = tick_step(window)
    ticks = [(round(n * step, 9), percent(n * step, window)) for n in range(int(window / step + 1e-9) + 1)]
    lines = "".join(f'<span class="grid" style="left:{at}"></span>' for _, at in ticks)
    numbers = "".join(
        f'<span style="left:{at}">{tick:g}{" s" if n == len(ticks) - 1 else ""}</span>' for n, (tick, at) in enumerate(ticks)
    )
    return lines, f'<div class="axis" aria-hidden="true">{numbers}</div>'


def stacked(lengths: dict[Part, float], window: float) -> str:
    """A bar of parts, one after the other. A name that does not fit is hidden; the key below the bar has it."""
    total, found = sum(lengths.values()), []
    for (kind, name), seconds in lengths.items():
        tip = f"{name}: {seconds_text(seconds)}, {share(seconds, total)}"
        found.append(
            f'<i class="{kind}" style="width:{percent(seconds, window)}" title="{safe(tip)}">'
            f"<b>{safe(name)} <em>{seconds_text(seconds)}</em></b></i>"
        )
    return f'<div class="stack">{"".join(found)}</div>'


def key(lengths: dict[Part, float]) -> str:
    """The parts of a bar with their colours, seconds and shares."""
    total = sum(lengths.values())
    items = "".join(
        f'<li data-kind="{kind}"><i class="{kind}"></i>{safe(name)} <b>{seconds_text(seconds)}</b> '
        f"<small>{safe(share(seconds, total))}</small></li>"
        for (kind, name), seconds in lengths.items()
    )
    return f'<ul class="key">{items}</ul>'


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 1) -> str:
    """A table whose cells are HTML already. The columns from `numbers` on are set to the right; the first one names its row."""

    def cell(tag: str, index: int, content: str, scope: str = "") -> str:
        right = ' class="n"' if index >= numbers else ""
        return f"<{tag}{scope}{right}>{content}</{tag}>"

    top = "".join(cell("th", n, text, ' scope="col"') for n, text in enumerate(head))
    body = "\n".join(
        "<tr>"
        + "".join(cell("td" if n else "th", n, text, "" if n else ' scope="row"') for n, text in enumerate(row))
        + "</tr>"
        for row in rows
    )
    inner = f"<caption>{caption}</caption>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody>"
    return f'<div class="wide"><table>{inner}</table></div>'


def tiles(found: Iterable[tuple[str, str, str]]) -> str:
    """Big numbers with what they are: (number, name, class)."""
    inner = "".join(f'<div class="{style}"><dd>{number}</dd><dt>{name}</dt></div>' for number, name, style in found)
    return f'<dl class="tiles">{inner}</dl>'


def facts(found: Iterable[tuple[str, str]]) -> str:
    return '<dl class="facts">' + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in found) + "</dl>"


def notes(found: Iterable[str]) -> str:
    return "".join(f'<p class="note">{safe(text)}</p>' for text in found)


def machine_line(machine: Mapping[str, Any]) -> str:
    """What `describe_machine` found, in one line; what is missing is left out."""
    memory = machine.get("memory_bytes")
    found = (
        " ".join([str(machine.get("cpu", "")), *(vector.upper() for vector in machine.get("vectors", ())[-1:])]).strip(),
        f"{machine['cores']} cores" if "cores" in machine else "",
        f"{memory / 2**30:.0f} GiB" if memory else "",
        f"Python {machine['python']}" if machine.get("python") else "",
        f"torch {machine['torch']}" if machine.get("torch") else "",
        f"Linux {machine['kernel']}" if machine.get("kernel") else "",
        str(machine.get("date", ""))[:10],
    )
    return " · ".join(part for part in found if part)


def swatch(name: str) -> str:
    """A phase's label beside its colour, and its name in the JSON report where that is another."""
    phase = phase_of(name)
    also = f" <small>{safe(name)}</small>" if phase.label != name else ""
    return f'<i class="{phase.kind}"></i>{safe(phase.label)}{also}'


def document(title: str, body: str) -> str:
    """A whole page. It may load nothing at all, and run no script but ours."""
    style, script = ((ASSETS / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{known}'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="tidalctl">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""
