"""What two runs of a function gave, compared: equal where the JSON is, to the last digit of each number."""

import json
from typing import Any

MAX_SHOWN = 80  # characters of a value


def same_output(one: Any, other: Any) -> bool:
    """Whether two outputs are the same JSON. A NaN, which json.dumps lets a handler give, is equal to another."""
    return _canonical(one) == _canonical(other)


def first_difference(ours: Any, plain: Any, path: str = "output") -> str:
    """Where two outputs that differ part, and what stands there in each."""
    if isinstance(ours, dict) and isinstance(plain, dict) and ours.keys() == plain.keys():
        pairs = [(f"{path}[{key!r}]", ours[key], plain[key]) for key in sorted(ours)]
    elif isinstance(ours, list) and isinstance(plain, list) and len(ours) == len(plain):
        pairs = [(f"{path}[{index}]", *pair) for index, pair in enumerate(zip(ours, plain, strict=True))]
    else:
        return f"{path} is {_shown(ours)} from the bundle, {_shown(plain)} from the plain function"
    different = ((where, one, other) for where, one, other in pairs if not same_output(one, other))
    where, one, other = next(different)
    return first_difference(one, other, where)


def _shown(value: Any) -> str:
    text = _canonical(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
