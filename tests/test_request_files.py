"""What init reads of a request's files besides their tensors, and where no opening tells of it, is as traced or not answered."""

import argparse
import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from random_bench import Bench
from random_world import make_world
from test_random_programs import W, adapters, program


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    world = make_world(tmp_path_factory.mktemp("world"))
    with Bench(world) as made:
        yield made


def torch_files(bench: Bench, **stored: Any) -> None:
    for name, value in stored.items():
        torch.save(value, Path(bench.world, "adapters", name, "more.pt"))


MORE = "more = torch.load('adapters/' + event['adapter'] + '/more.pt')\n"


@pytest.mark.parametrize(
    ("use", "spoil"),
    [
        ("more['alpha']", {"alpha": 3}),
        ("more['alpha']", {"alpha": 2.0}),
        ("len(more)", {"another": ""}),
        ("len(more['names'])", {"names": ["q"]}),
        ("len(str(more['by'][3]))", {"by": {3: "longer"}}),
        ("1 + (list(more)[0] == 't')", {"alpha": None}),
        ("1 + more['t'].requires_grad", {"t": torch.ones(4, 8, requires_grad=True)}),
        ("1 + more['t'].is_contiguous()", {"t": torch.ones(8, 4).t()}),
    ],
)
def test_what_lies_beside_the_tensors_of_a_torch_file_is_as_traced_or_the_start_steps_down(
    bench: Bench, use: str, spoil: dict[str, Any]
) -> None:
    """Both traced files hold the same numbers, texts and keys, and so does one that no trace saw."""
    alike = {"alpha": 2, "names": ["q", "v"], "by": {3: "x"}, "t": torch.ones(4, 8)}
    other = {key: value for key, value in (alike | spoil).items() if value is not None}
    torch_files(bench, a=alike, b=alike | {"t": torch.ones(4, 8) * 3}, c=alike | {"t": -torch.ones(4, 8)}, d=other)
    verdict = bench.check(
        program(f"{MORE}return {{'w': {W} + more['t'].detach() * ({use})}}", adapters("a", "b"), adapters("c", "d"))
    )
    assert verdict.outcome == "sliced", verdict.reason
    assert verdict.served == 1 and len(verdict.refusals) == 1
    assert "besides its tensors is none of the traced ones" in verdict.refusals[0]


def test_tensors_that_share_memory_in_a_torch_file_share_it_as_traced_or_are_not_answered(bench: Bench) -> None:
    def pair(number: float, shared: bool) -> dict[str, torch.Tensor]:
        one = torch.full((4, 8), number)
        return {"t": one, "u": one if shared else one.clone()}

    torch_files(bench, a=pair(1, True), b=pair(2, True), c=pair(3, True), d=pair(4, False))
    body = f"{MORE}more['t'].add_(1)\nreturn {{'w': {W} + more['u']}}"
    verdict = bench.check(program(body, adapters("a", "b"), adapters("c", "d")))
    assert verdict.outcome == "fallback" or (verdict.served, len(verdict.refusals)) == (1, 1)


def test_a_torch_file_that_only_full_unpickling_reads_makes_no_script(bench: Bench) -> None:
    stored = {"t": torch.ones(4, 8), "options": argparse.Namespace(alpha=2)}
    torch_files(bench, a=stored, b=stored)
    opened = MORE.replace(".pt')", ".pt', weights_only=False)")
    body = f"{opened}return {{'w': {W} + more['t'] * more['options'].alpha}}"
    verdict = bench.check(program(body, adapters("a", "b"), adapters("c")))
    assert "weights_only=True" in verdict.reason


def test_tensors_lie_in_a_safetensors_file_in_the_traced_order_or_the_start_steps_down(bench: Bench) -> None:
    """load_file gives them in the order in which they lie."""
    for number, (name, order) in enumerate((("a", "xyz"), ("b", "xyz"), ("c", "xyz"), ("d", "zxy"))):
        spans = {key: [32 * place, 32 * place + 32] for place, key in enumerate(order)}
        header = {key: {"dtype": "F32", "shape": [8], "data_offsets": span} for key, span in spans.items()}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 16 + 8)
        data = b"".join(torch.full((8,), number + place + 0.5).numpy().tobytes() for place in range(3))
        Path(bench.world, "adapters", name, "order.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    loop = "for tensor in load_file(f\"adapters/{event['adapter']}/order.safetensors\").values():\n    w = w * tensor + 1"
    verdict = bench.check(program(f"w = {W}\n{loop}\nreturn {{'w': w}}", adapters("a", "b"), adapters("c", "d")))
    assert (verdict.outcome, verdict.served, verdict.refused) == ("sliced", 1, 1), verdict
    assert "the order of its tensors" in verdict.refusals[0]


@pytest.mark.parametrize("suffix", ["bin", "pt", "pth", "safetensors"])
def test_a_file_that_no_loader_of_tensors_read_is_as_traced_in_all_of_it_whatever_its_name(bench: Bench, suffix: str) -> None:
    for name, size in (("a", 8), ("b", 8), ("c", 8), ("d", 16)):
        Path(bench.world, "adapters", name, f"pad.{suffix}").write_bytes(b"p" * size)
    body = (
        f"pad = np.memmap(Path('adapters', event['adapter'], 'pad.{suffix}'), dtype='uint8', mode='r').size\n"
        f"return {{'w': {W} * pad * event['scale']}}"
    )
    verdict = bench.check(program(body, adapters("a", "b", scale=[0.5, 1.7]), adapters("c", "d", scale=0.1)))
    assert (verdict.outcome, verdict.served, len(verdict.refusals)) == ("sliced", 1, 1), verdict
    assert "is none of the traced ones" in verdict.refusals[0]


# -- paths


FORMS: dict[str, tuple[str, list[str], str, str]] = {
    "os.path.join drops what stands before an absolute part": ("os.path.join('flat', t + '.pt')", ["a", "b"], "c", "/c"),
    "Path / drops what stands before an absolute part": ("Path('flat') / f'{t}.pt'", ["a", "b"], "c", "/c"),
    "a relative text where the traced ones are absolute": (
        "os.path.join('flat', t + '.pt')", ["{world}/flat/a", "{world}/flat/b"], "{world}/flat/c", "flat/c",
    ),
    "with_suffix drops a suffix": ("Path('flat', t).with_suffix('.pt')", ["a", "b"], "c", "c.5"),
    "splitext drops a suffix": ("'flat/' + os.path.splitext(t)[0] + '.pt'", ["a", "b"], "c", "c.5"),
    "basename drops folders": ("'flat/' + os.path.basename(t) + '.pt'", ["a", "b"], "c", "deep/c"),
    "Path drops a slash at the end": ("f\"{Path('flat', t)}.pt\"", ["a", "b"], "c", "c/"),
    "Path drops a dot": ("f\"{Path('flat', t)}.pt\"", ["a", "b"], "c", "c/."),
    "an empty text makes no folder": ("f\"{Path('flat', t, 'one')}.pt\"", ["deep", "far"], "link", ""),
    "normpath looks at no link": ("os.path.normpath('flat/' + t + '.pt')", ["a", "b"], "c", "link/../c"),
    "normpath looks at no link in folders": (
        "os.path.normpath('flat/' + t + '.pt')", ["deep/c", "far/c"], "deep/one", "link/../c",
    ),
    "expanduser": ("os.path.expanduser(t) + '/one.pt'", ["flat", "far"], "deep", "~"),
    "expandvars": ("os.path.expandvars(t) + '/one.pt'", ["flat", "far"], "deep", "$HOME"),
    "a pattern": ("next(Path('flat').glob(t + '.pt'))", ["a", "b"], "c", "[c]"),
    "a text that is filled up": ("'flat/' + t.zfill(3) + '.pt'", ["00a", "00b"], "00c", "c"),
    "a text that is cut": ("f'flat/{t:.1}.pt'", ["a", "b"], "c", "c.5"),
}  # fmt: skip


@pytest.fixture(scope="module")
def flat(bench: Bench) -> Bench:
    """One tensor in each of many files: whatever a text may be taken for, there is a file, and each holds another number."""
    world = Path(bench.world)
    (world / "flat").mkdir()
    (world / "elsewhere" / "inner").mkdir(parents=True)
    (world / "flat" / "link").symlink_to(world / "elsewhere" / "inner")
    names = "a b c c.5 00a 00b 00c [c] deep/c far/c deep/one far/one one link/../c link/one link/c c/ c/."
    for place, name in enumerate([*(f"flat/{name}" for name in names.split()), "deep/one", "far/one", "~/one", "$HOME/one"]):
        folder, _, name = name.rpartition("/")
        (world / folder).mkdir(parents=True, exist_ok=True)
        with open(f"{world}/{folder}/{name}.pt", "wb") as file:  # by its name torch writes no file that is called .pt
            torch.save({"t": torch.full((4, 8), float(place))}, file)
    return bench


@pytest.mark.parametrize("name", FORMS)
def test_a_text_that_may_make_another_path_than_it_says_is_right_or_refused(
    flat: Bench, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path, traced, good, other = FORMS[name]
    monkeypatch.setenv("HOME", f"{flat.world}/flat")
    body = f"t = event['adapter']\nreturn {{'w': {W} + torch.load({path})['t']}}"
    events = [adapters(*(text.format(world=flat.world) for text in texts)) for texts in (traced, [good, other])]
    verdict = flat.check(program(body, *events))
    if verdict.outcome == "sliced":
        assert verdict.refused + verdict.raised == 2 - verdict.served and verdict.served <= 1
        assert verdict.served == 1 or "none of the traced ones" in str(verdict.refusals)
    else:
        assert verdict.reason


# -- where no opening tells of it


BEYOND = {
    "sqlite3": "import sqlite3\nn = sqlite3.connect(f'flat/{t}.db').execute('select n from t').fetchone()[0]",
    "another process": "import subprocess\nn = int(subprocess.check_output(['wc', '-c', f'flat/{t}.txt']).split()[0])",
    "a shell": "n = os.system(f'exit $(cat flat/{t}.txt | wc -c)') >> 8",
    "os.stat": "n = os.stat(f'flat/{t}.txt').st_size",
    "os.stat of a path": "n = Path('flat', f'{t}.txt').stat().st_size",
    "os.stat for a size": "n = os.path.getsize(f'flat/{t}.txt')",
    "os.stat for times": "n = os.path.getmtime(f'flat/{t}.txt') - 1_000_000",
    "Python": "import runpy\nn = runpy.run_path(f'flat/{t}.py')['n']",
}


@pytest.mark.parametrize("name", BEYOND)
def test_what_the_event_names_for_somebody_whom_no_one_follows_makes_no_script(flat: Bench, name: str) -> None:
    """All traced events get the same number out of it, and one that no trace saw another."""

    folder = Path(flat.world, "flat")
    for text, number in (("a", 2), ("b", 2), ("c", 3)):
        (folder / f"{text}.txt").write_text("x" * number)
        (folder / f"{text}.py").write_text(f"n = {number}")
        os.utime(folder / f"{text}.txt", (1_000_000 + number, 1_000_000 + number))
        (folder / f"{text}.db").unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(folder / f"{text}.db", isolation_level=None)) as base:
            base.execute("create table t as select ? as n", (number,))
    body = f"t = event['adapter']\n{BEYOND[name]}\nreturn {{'w': {W} * n * event['scale']}}"
    verdict = flat.check(program(body, adapters("a", "b", scale=[0.5, 1.7]), adapters("c", scale=0.1)))
    assert verdict.outcome == "fallback"
    assert "flat/a." in verdict.reason
    assert verdict.reason.endswith(f"which hangs on the event, to {name.partition(' of')[0].partition(' for')[0]}")


def test_paths_that_do_not_hang_on_the_event_may_go_anywhere_and_so_may_the_question_whether_one_is_there(flat: Bench) -> None:
    """The event's text stands in the names by chance."""
    body = (
        "import subprocess\nn = int(subprocess.check_output(['wc', '-c', 'flat/anybody.txt']).split()[0])\n"
        "n += os.path.getsize('flat/anybody.txt') + os.path.isfile(f\"flat/{event['adapter']}.pt\")\n"
        f"return {{'w': {W} * n * event['scale']}}"
    )
    Path(flat.world, "flat", "anybody.txt").write_text("three")
    verdict = flat.check(program(body, adapters("a", "b", scale=[0.5, 1.7]), adapters("c", scale=0.1)))
    assert (verdict.outcome, verdict.served) == ("sliced", 1), verdict


def test_settings_that_are_parsed_from_a_text_are_no_question_for_a_files_size(flat: Bench) -> None:
    body = (
        "settings = json.loads(Path('adapters', event['adapter'], 'adapter.json').read_text())\n"
        f"return {{'w': {W} * settings['gain']}}"
    )
    verdict = flat.check(program(body, adapters("a", "b"), adapters("c")))
    assert verdict.outcome == "sliced", verdict.reason
