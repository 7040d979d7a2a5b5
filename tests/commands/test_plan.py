"""`tidalctl plan` as it is called: sizes and bandwidths as people write them, its JSON, its words and its errors."""

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import Chain, Done, forked

from tidalctl.artifacts.bundle.manifest import BundleWeight
from tidalctl.artifacts.bundle.start_times import StartTimes
from tidalctl.artifacts.errors import TidalError
from tidalctl.commands.plan import parse_bandwidth
from tidalctl.commands.size import parse_size
from tidalctl.plan.simulation import Improvement, StartPlan, simulate

NEAR = 1e-6  # seconds


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("1000000", 10**6), ("5gb", 5 * 10**9), (" 1.5 MB ", 1_500_000), ("500MiB", 500 * 2**20), ("1Ki", 1024), ("7B", 7)],
)
def test_a_size_is_read_as_it_is_meant(text: str, nbytes: int) -> None:
    assert parse_size("--resident", text) == nbytes
    assert parse_size("--resident", "0", zero=True) == parse_size("--resident", "0GB", zero=True) == 0


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1e9", "5XB", "5 GB/s", "1,5GB", "nan", "0", "0.0GB", "5GBB"])
def test_what_is_no_size_is_told_with_the_options_name(text: str) -> None:
    with pytest.raises(TidalError) as caught:
        parse_size("--resident", text)
    assert "--resident" in caught.value.message


@pytest.mark.parametrize(
    ("text", "found"), [("24GB/s", 24e9), ("24gb/S", 24e9), ("500MiB/s", 500 * 2.0**20), ("2.5 GB/s ", 2.5e9), ("1GB", 1e9)]
)
def test_a_bandwidth_is_a_size_a_second(text: str, found: float) -> None:
    assert parse_bandwidth(text) == found


@pytest.mark.parametrize("text", ["", "/s", "fast", "0GB/s", "0.4", "24GB/h", "24GB/s/s", "-1GB/s"])
def test_what_is_no_bandwidth_is_told(text: str) -> None:
    with pytest.raises(TidalError) as caught:
        parse_bandwidth(text)
    assert "--bandwidth" in caught.value.message


# -- the verb


def planned(bundle: Path, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = told(bundle, "--json", *options).report
    return found


def told(bundle: Path, *options: str) -> Done:
    return forked("plan", bundle, *options, cwd=bundle.parent)


def test_the_json_holds_the_times_the_link_every_arrival_and_what_would_help(decoder: Chain) -> None:
    found = planned(decoder.bundle, "--bandwidth", "1MB/s", "--resident", "10kB")
    assert found.keys() == {"schema", "bundle", "digest", "device", "link", "resident", "times", "plan", "improvements"}
    assert (found["schema"], found["device"], found["resident"]) == (1, "cpu", 10_000)
    assert found["digest"] == decoder.manifest["digest"]
    assert found["link"] == {"read": 1e6, "hash": found["link"]["hash"], "bandwidth": 1e6, "measured": False}
    times, plan = msgspec.convert(found["times"], StartTimes), msgspec.convert(found["plan"], StartPlan)
    assert 0 < times.begin_s < times.ready_s
    assert times.compute_s > 0
    weights = msgspec.convert(decoder.manifest["weights"], tuple[BundleWeight, ...])
    uses = json.loads((decoder.bundle / "provenance.json").read_bytes())["first_uses"]
    assert plan == simulate(weights, uses, times, 1e6, 10_000)
    assert plan.bytes >= sum(weight.nbytes for weight in weights if weight.first_use is not None)
    assert msgspec.convert(found["improvements"], tuple[Improvement, ...])


def test_over_a_slow_link_the_weights_are_the_critical_path_and_over_a_fast_one_they_are_not(decoder: Chain) -> None:
    slow = planned(decoder.bundle, "--bandwidth", "10kB/s")["plan"]
    assert slow["critical"]["weight"] in {weight["name"] for weight in decoder.manifest["weights"]}
    assert slow["ttft_s"] > slow["unhindered_s"]
    fast = planned(decoder.bundle, "--bandwidth", "100GB/s")["plan"]
    assert (fast["critical"], fast["waiting_s"], fast["resident_prefix"]) == (None, 0, 0)
    enough = planned(decoder.bundle, "--bandwidth", "10kB/s", "--resident", str(slow["resident_prefix"]))["plan"]
    assert enough["waiting_s"] <= NEAR


def test_a_person_is_told_the_first_token_the_critical_path_the_prefix_and_what_would_help(decoder: Chain) -> None:
    out = forked("plan", decoder.bundle, "--bandwidth", "10kB/s", cwd=decoder.folder, env={"COLUMNS": "60"}).ok().out
    for part in ("first token after", "critical path", "resident prefix", "Equation 1 of", "as given", "twice the bandwidth"):
        assert part in out
    assert "…" not in out, "nothing is cut on a narrow terminal"
    assert max(map(len, out.splitlines()[1:])) <= 60, "and nothing overflows it but the bundle's path"


def test_the_disk_is_measured_where_no_bandwidth_is_given(decoder: Chain) -> None:
    done = told(decoder.bundle, "--json")
    if "past the page cache" in done.err:
        pytest.skip("a file system without direct reads")
    found = done.report
    assert found["link"]["measured"]
    assert found["link"]["bandwidth"] == min(found["link"]["read"], found["link"]["hash"])
    assert 1e3 < found["link"]["read"] < 1e12
    assert "measured" in told(decoder.bundle).ok().out


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--bandwidth", "0.2"], "--bandwidth 0.2GB/s"),
        (["--bandwidth", "1GB/s", "--resident", "much"], "--resident"),
        (["--bandwidth", "1GB/s", "--device", "cuda"], "--device"),
    ],
)
def test_an_option_that_cannot_be_used_is_one_error(decoder: Chain, options: list[str], part: str) -> None:
    told(decoder.bundle, *options).one_error(part)


SPOILED: list[str | None] = [None, "", "[]", '{"start": {"begin_s": 1}}', "\xff"]
SPOILED += [
    json.dumps({"start": {"begin_s": 0, "ready_s": value, "compute_s": 1, "traced_compute_s": 1}}) for value in (-1, 1e999, "1")
]


@pytest.mark.parametrize("text", SPOILED)
def test_a_bundle_without_the_times_of_a_start_is_one_error(decoder: Chain, tmp_path: Path, text: str | None) -> None:
    bundle = Path(shutil.copytree(decoder.bundle, tmp_path / "app.bundle"))
    (bundle / "provenance.json").unlink()
    if text is not None:
        (bundle / "provenance.json").write_text(text, encoding="latin-1")
    told(bundle, "--bandwidth", "1GB/s").one_error("no times of a start")
