"""Arrivals of a replay: three formats of files, what a seed draws, cuts and thins, and which map serves which function."""

import math
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidalctl.artifacts.errors import TidalError
from tidalctl.bench.replay.arrivals import Arrival, Arrivals, read_arrivals
from tidalctl.bench.replay.drawn import Choice, chosen_arrivals, first_seconds, generate, thin
from tidalctl.bench.replay.mapping import Mapping, assign, parse_mapping

LLM = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:05.0319600,3180,8
2023-11-16 18:17:04.4799600,110,27
"""
MINUTES = """HashOwner,HashApp,HashFunction,Trigger,1,2,3
aa,bb,0123456789abcdef,queue,0,3,1
aa,bb,0123456799abcdef,timer,2,0,0
"""
SECONDS = "function,at_s\nb,2.5\na,0\nb,1e-1\n"
counts = st.integers(1, 20)
seeds = st.integers(0, 10**6)


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "arrivals.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_rows_with_timestamps_count_from_the_first_and_are_dealt_to_functions(tmp_path: Path) -> None:
    found = read_arrivals(written(tmp_path, LLM), 3, 1)
    assert [arrival.at_s for arrival in found.arrivals] == [0.0, 0.5, 1.052]
    assert found.functions == ("f0", "f1", "f2") and found.seconds == 1.052
    assert {arrival.function for arrival in found.arrivals} <= set(found.functions)
    aware = LLM.replace("18:17:03.9799600", "19:17:03.979960+01:00")
    assert read_arrivals(written(tmp_path, "\ufeff" + aware), 3, 1) == found


def test_rows_of_minutes_are_spread_within_them(tmp_path: Path) -> None:
    found = read_arrivals(written(tmp_path, MINUTES), 1, 1)
    assert found.functions == ("012345678", "012345679") and found.seconds == 180  # as long as tells them apart
    minutes = Counter((arrival.function, int(arrival.at_s // 60) + 1) for arrival in found.arrivals)
    assert minutes == {("012345678", 2): 3, ("012345678", 3): 1, ("012345679", 1): 2}
    assert read_arrivals(written(tmp_path, MINUTES), 1, 1) == found != read_arrivals(written(tmp_path, MINUTES), 1, 2)


def test_rows_with_seconds_have_functions_of_their_own(tmp_path: Path) -> None:
    found = read_arrivals(written(tmp_path, SECONDS), 1, 1)
    assert found.arrivals == (Arrival(0.0, "a"), Arrival(0.1, "b"), Arrival(2.5, "b"))
    assert found.functions == ("a", "b") and found.seconds == 2.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("TIMESTAMP,a\n", "has no requests"),
        ("time,tokens\n1,2\n", "the columns time, tokens"),
        (LLM + "yesterday,1,1\n", "line 5: 'yesterday' is no time"),
        ("a,TIMESTAMP\n1\n", "line 2: there is no TIMESTAMP"),
        (MINUTES + "aa,bb,cc,queue,1,x,1\n", "line 4: 'x' is no number of requests"),
        (MINUTES + "aa,bb,cc,queue,1,-1,1\n", "line 4: '-1' is no number of requests"),
        (MINUTES + "aa,bb,cc,queue,1\n", "line 4: there is no minute 2"),
        (MINUTES + "aa,bb,cc,queue,1,1,99999999999\n", "more than 5,000,000"),
        ("HashFunction,Trigger\na,queue\n", "no columns of minutes"),
        ("HashFunction,1\na,0\n", "has no requests"),
        ("at_s,function\nnan,a\n", "line 2: 'nan' is no time"),
        ("at_s,function\n-1,a\n", "line 2: '-1' is no time"),
        ("at_s,function\n1,\n", "line 2: the function has no name"),
        (b"\xff\xfe\x00", "is not CSV"),
    ],
)
def test_a_file_that_is_no_recording_is_told_with_its_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(TidalError) as caught:
        read_arrivals(written(tmp_path, text), 1, 1)
    assert said in caught.value.message and caught.value.hint and caught.value.exit_code == 2


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(TidalError, match="can't be read") as caught:
            read_arrivals(path, 1, 1)
        assert caught.value.hint


@given(counts, st.floats(0.05, 5), st.floats(10, 300), st.floats(1, 6), seeds)
def test_drawn_arrivals_are_sorted_within_their_time_and_the_seeds(
    functions: int, rate: float, seconds: float, burst: float, seed: int
) -> None:
    try:
        drawn = generate(functions, rate, seconds, burst, seed)
    except TidalError as error:
        assert "no request" in error.message and error.hint
        return
    times = [arrival.at_s for arrival in drawn.arrivals]
    assert times == sorted(times) and times[0] >= 0 and times[-1] < seconds == drawn.seconds
    assert len(drawn.functions) == functions and {arrival.function for arrival in drawn.arrivals} <= set(drawn.functions)
    assert drawn == generate(functions, rate, seconds, burst, seed)


@pytest.mark.parametrize("burst", [1, 4])
def test_drawn_arrivals_have_the_rate_the_bursts_and_zipfs_shares(burst: float) -> None:
    drawn = generate(4, 2.0, 50_000, burst, 7)
    assert drawn.rate == pytest.approx(2.0, rel=0.03)
    shares = Counter(arrival.function for arrival in drawn.arrivals)
    for rank in range(1, 5):
        wanted = (1 / rank) / sum(1 / n for n in range(1, 5))
        assert shares[f"f{rank - 1}"] / len(drawn.arrivals) == pytest.approx(wanted, rel=0.06)
    gaps = [after.at_s - before.at_s for before, after in zip(drawn.arrivals, drawn.arrivals[1:], strict=False)]
    spread = math.sqrt(sum((gap - 0.5) ** 2 for gap in gaps) / len(gaps)) / 0.5
    assert (0.95 < spread < 1.05) if burst == 1 else spread > 1.5  # of Poisson's law it is 1


def recording(seed: int, count: int, seconds: float) -> Arrivals:
    dice = random.Random(seed)
    times = sorted(dice.uniform(0, seconds) for _ in range(count))
    arrivals = tuple(Arrival(at, dice.choice("ab")) for at in times)
    return Arrivals(source="some", functions=("a", "b"), seconds=seconds, arrivals=arrivals)


@given(st.integers(1, 300), st.floats(1, 1000), st.floats(0.01, 1), st.floats(0.01, 1), seeds)
def test_thinning_keeps_some_in_order_and_less_of_them_at_a_lower_rate(
    count: int, seconds: float, one: float, other: float, seed: int
) -> None:
    trace = recording(seed, count, seconds)
    kept: dict[float, list[Arrival]] = {}
    for share in (one, other):
        try:
            kept[share] = list(thin(trace, trace.rate * share, seed).arrivals)
        except TidalError as error:
            assert "leaves no request" in error.message
            kept[share] = []
        left = iter(trace.arrivals)
        assert all(arrival in left for arrival in kept[share])
    assert set(kept[min(one, other)]) <= set(kept[max(one, other)])


def test_thinning_comes_to_the_rate_and_refuses_a_higher_one() -> None:
    trace = recording(1, 20_000, 1000)
    assert thin(trace, 5, 1).rate == pytest.approx(5, rel=0.05)
    assert thin(trace, 5, 1) != thin(trace, 5, 2)
    assert thin(trace, trace.rate, 1) == trace
    with pytest.raises(TidalError, match="has 20 requests a second"):
        thin(trace, 21, 1)


@given(st.integers(1, 100), st.floats(1, 100), st.floats(0.1, 200), seeds)
def test_a_cut_keeps_the_first_seconds(count: int, seconds: float, first: float, seed: int) -> None:
    trace = recording(seed, count, seconds)
    try:
        cut = first_seconds(trace, first)
    except TidalError as error:
        assert trace.arrivals[0].at_s >= first and error.hint
        return
    assert list(cut.arrivals) == [arrival for arrival in trace.arrivals if arrival.at_s < first]
    assert cut.seconds == min(seconds, first)


def choice(**changed: object) -> Choice:
    fields = {"path": None, "functions": None, "rate": None, "seconds": None, "burst": None, "seed": 1}
    return Choice(**{**fields, **changed})  # type: ignore[arg-type]


def test_a_choice_draws_or_reads_and_refuses_what_does_not_go_together(tmp_path: Path) -> None:
    llm = written(tmp_path, LLM)
    assert len(chosen_arrivals(choice(path=llm), 2).functions) == 2
    assert len(chosen_arrivals(choice(path=llm, functions=5, seconds=1.0), 2).arrivals) == 2
    assert chosen_arrivals(choice(rate=1.0, seconds=60.0), 2) == generate(2, 1.0, 60.0, 1.0, 1)
    for wrong in (choice(), choice(rate=1.0), choice(path=llm, burst=2.0), choice(rate=1e6, seconds=1e6)):
        with pytest.raises(TidalError) as caught:
            chosen_arrivals(wrong, 2)
        assert caught.value.hint
    minutes = written(tmp_path, MINUTES)
    assert len(chosen_arrivals(choice(path=minutes, functions=2), 1).functions) == 2
    with pytest.raises(TidalError, match="names its 2 functions itself"):
        chosen_arrivals(choice(path=minutes, functions=3), 1)


def test_functions_take_the_map_that_names_them_or_those_for_any_in_turn() -> None:
    maps = [parse_mapping(text) for text in ("*=a.bundle:{}", 'f1=b.bundle:{"x": "y=1:2"}', "*=c.bundle:event.json")]
    assert maps[1] == Mapping("f1", "b.bundle", '{"x": "y=1:2"}')
    assert assign(["f0", "f1", "f2", "f3"], maps) == {"f0": 0, "f1": 1, "f2": 2, "f3": 0}


@pytest.mark.parametrize("text", ["a.bundle:{}", "f0=a.bundle", "f0=:{}", "=a.bundle:{}", "f0=a.bundle:", ""])
def test_a_map_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(TidalError, match="is not FUNCTION=BUNDLE:EVENT") as caught:
        parse_mapping(text)
    assert "for example" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("names", "said"),
    [(["f0"], "no --map serves f1"), (["*", "g1"], "no request is for g1"), (["*", "f1", "f1"], "f1 was mapped before")],
)
def test_maps_that_leave_a_function_out_or_serve_none_are_refused(names: list[str], said: str) -> None:
    with pytest.raises(TidalError, match=said):
        assign(["f0", "f1"], [Mapping(name, "a.bundle", "{}") for name in names])
