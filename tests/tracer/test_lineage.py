"""Where tensors come from, whichever loader read them, and how they came to be."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tidalctl.artifacts.trace.records import Source, Weight
from tidalctl.artifacts.trace.tape import DOUBT, DRAWN
from tidalctl.function.init_mark import Init
from tidalctl.lineage.loaders import LoaderWatch
from tidalctl.lineage.tape import Tape
from tidalctl.tracer.init.call import record_init


def recorded(load: Callable[[Any], Any], event: dict[str, Any] | None = None, number: int = 0) -> dict[str, Weight]:
    """The weights of what `load` gives, by their first names."""
    tape, event = Tape(number), event or {}
    with LoaderWatch(lambda path: None) as watch:
        watch.tape = tape
        made = record_init(Init(load, False), (event,), {}, event, tape)
    return {weight.names[0]: weight for weight, _ in made.weights(0)}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    tensors = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.ones(4)}
    save_file(tensors, tmp_path / "w.safetensors")
    torch.save({"layer": tensors}, tmp_path / "w.pt")
    numpy.save(tmp_path / "w.npy", tensors["a"].numpy())
    return tmp_path


def through_safe_open(folder: Path) -> Any:
    with safe_open(folder / "w.safetensors", framework="pt") as file:
        return {"w": file.get_tensor("a")}


def in_a_thread(folder: Path) -> Any:
    with ThreadPoolExecutor(2) as pool:
        return {"w": pool.submit(lambda: load_file(folder / "w.safetensors")["a"]).result()}


LOADERS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "safe_open": (through_safe_open, "w.safetensors", "a"),
    "load_file": (lambda folder: {"w": load_file(folder / "w.safetensors")["a"]}, "w.safetensors", "a"),
    "a slice": (lambda f: {"w": safe_open(f / "w.safetensors", framework="pt").get_slice("a")[1:2]}, "w.safetensors", "a"),
    "torch.load": (lambda folder: {"w": torch.load(folder / "w.pt")["layer"]["a"]}, "w.pt", "layer.a"),
    "torch.load, mapped": (lambda folder: {"w": torch.load(folder / "w.pt", mmap=True)["layer"]["a"]}, "w.pt", "layer.a"),
    "numpy.memmap": (lambda folder: {"w": torch.from_numpy(numpy.load(folder / "w.npy", mmap_mode="c"))}, "w.npy", "@0"),
    "a thread": (in_a_thread, "w.safetensors", "a"),
}


@pytest.mark.parametrize("name", LOADERS)
def test_a_source_is_found_whichever_loader_read_it(files: Path, name: str) -> None:
    load, file, key = LOADERS[name]
    weight = recorded(lambda event: load(files))["w"]
    (source,) = weight.sources
    assert (Path(source.file).name, source.key) == (file, key)
    assert not weight.identity.startswith(DOUBT)


def test_a_source_is_found_in_a_gguf_file(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    file, kind = tmp_path / "w.gguf", gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_tensor("blk.0", gguf.quantize(numpy.ones((2, 32), numpy.float32), kind), raw_dtype=kind)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        write()

    def load(event: dict[str, Any]) -> Any:
        (tensor,) = gguf.GGUFReader(file).tensors
        return {"w": torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type))}

    weight = recorded(load)["w"]
    assert (weight.sources, weight.operators) == ((Source(file=str(file), key="blk.0"),), ("gguf.dequantize",))
    assert not weight.identity.startswith(DOUBT)


def test_what_nobody_saw_made_is_unknown_and_doubtful() -> None:
    weight = recorded(lambda event: {"w": torch.from_numpy(numpy.ones(3)) * 2})["w"]
    assert [source.file for source in weight.sources] == ["unknown"]
    assert weight.identity.startswith(DOUBT)


def test_one_way_of_making_gives_one_identity_and_another_way_another(files: Path) -> None:
    def load(event: dict[str, Any]) -> Any:
        read = load_file(files / "w.safetensors")
        return {"same": read["a"] + 1, "other": read["a"] * event["x"], "cast": read["a"].to(torch.float16)}

    one, two = recorded(load, {"x": 2.0}), recorded(load, {"x": 3.0}, 1)
    assert one["same"].identity == two["same"].identity
    assert one["cast"].identity == two["cast"].identity
    assert one["other"].identity != two["other"].identity


def test_the_content_of_a_source_is_part_of_the_lineage(files: Path) -> None:
    before = recorded(lambda event: {"w": load_file(files / "w.safetensors")["a"] + 1})["w"]
    save_file({"a": torch.zeros(3, 4), "b": torch.ones(4)}, files / "w.safetensors")
    after = recorded(lambda event: {"w": load_file(files / "w.safetensors")["a"] + 1})["w"]
    assert before.operators == after.operators and before.identity != after.identity


def test_a_whole_copy_is_what_was_copied_and_overwritten_memory_is_no_ancestor(files: Path) -> None:
    def load(event: dict[str, Any]) -> Any:
        kept = load_file(files / "w.safetensors")["a"]
        target = torch.randn(3, 4)
        target.copy_(kept)
        return {"kept": kept, "copy": target}

    made = recorded(load)
    assert made["copy"].identity == made["kept"].identity
    assert [source.key for source in made["copy"].sources] == ["a"]


def test_numbers_drawn_without_a_seed_are_told_from_those_with_one() -> None:
    def load(event: dict[str, Any]) -> Any:
        free = torch.randn(3)
        torch.manual_seed(1)
        return {"free": free, "seeded": torch.randn(3)}

    made = recorded(load)
    assert made["free"].identity.startswith(DRAWN)
    assert not made["seeded"].identity.startswith(DOUBT)


def test_a_nested_tensor_in_init_is_no_hindrance_to_the_lineage_of_others() -> None:
    """What comes out of one is known by its content alone."""

    def load(event: Any) -> Any:
        nested = torch.nested.nested_tensor([torch.full((2,), float(event["x"])), torch.ones(3)]) * 2
        return {"weight": torch.ones(2), "padded": torch.nested.to_padded_tensor(nested, 0.0), "nested": nested}

    found, other = recorded(load, {"x": 1}), recorded(load, {"x": 2})
    assert sorted(found) == ["padded", "weight"]
    assert found["padded"].identity.startswith(DOUBT) and not found["weight"].identity.startswith(DOUBT)
    assert found["padded"].identity != other["padded"].identity
