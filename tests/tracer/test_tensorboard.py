"""The raw profile that `trace --tensorboard` keeps opens in the tools that it is meant for."""

import gzip
import json

import pytest
from conftest import Chain


def test_a_kept_profile_opens_in_torch_tb_profilers_own_loader(decoder: Chain) -> None:
    pytest.importorskip("torch_tb_profiler")
    from torch_tb_profiler import io
    from torch_tb_profiler.profiler.loader import RunLoader

    cache = io.Cache()
    with cache:
        loaded = RunLoader("start", str(decoder.folder / "profile"), cache).load()
    (profile,) = loaded.profiles.values()
    assert any("aten::" in str(row) for row in profile.operation_table_by_name["data"])


def test_a_kept_profile_marks_the_first_piece(decoder: Chain) -> None:
    (profile,) = (decoder.folder / "profile").glob("*.pt.trace.json.gz")
    names = [event.get("name") for event in json.loads(gzip.decompress(profile.read_bytes()))["traceEvents"]]
    assert "tidalctl: first piece" in names
    assert any(str(name).startswith("aten::") for name in names)
