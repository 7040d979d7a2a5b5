"""Which operator a kernel of a device's belongs to: the innermost range around its launch."""

from hypothesis import given
from hypothesis import strategies as st

from tidalctl.tracer.handler.kernels import Spans

TIMES = st.integers(0, 60)
NESTED = st.lists(st.tuples(TIMES, TIMES).map(lambda pair: (min(pair), max(pair))), max_size=12)


@given(ranges=NESTED, time=TIMES)
def test_the_range_around_a_time_is_the_one_that_began_last(ranges: list[tuple[int, int]], time: int) -> None:
    spans = [(begin, end, number) for number, (begin, end) in enumerate(ranges)]
    around = [span for span in spans if span[0] <= time <= span[1]]
    assert Spans(spans).at(time) == (max(around)[2] if around else None)
