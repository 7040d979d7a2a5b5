"""What a replayed init reads is what the plain one reads, and the data of what the template holds is not read from its files: reads of
safetensors files, torch.load, from_pretrained, and which files and errors stay the plain ones."""

import gc
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from replay_cases import MODEL, OTHER, Load, shown, spoil, trace, write_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path)


def test_answered_reads_are_the_plain_ones_and_the_files_data_is_not_read(model: Path) -> None:
    def load(event: dict[str, Any]) -> Any:
        with safe_open(model, framework="pt") as file:
            some = {name: file.get_tensor(name) for name in ("first.weight", "numbers")}
            parts = [
                file.get_slice("second.weight")[:],
                file.get_slice("second.weight")[2:4, 1],
                file.get_slice("numbers")[...],
            ]
        return {**some, "parts": parts, "all": load_file(model), "made": torch.ones(2) * event["scale"]}

    traced = trace(load, model.parent).matches()
    plain = shown(load(OTHER))
    spoil(model)
    assert shown(load(OTHER)) != plain
    assert shown(traced.run()) == plain
    assert traced.last.answered == 7
    assert traced.stored[0] == "model.safetensors#first.weight"


def test_what_a_replay_gave_goes_with_its_mapping_and_without_a_collection(model: Path) -> None:
    def load(event: dict[str, Any]) -> Any:
        return {name: tensor * event["scale"] if "bias" in name else tensor for name, tensor in load_file(model).items()}

    traced = trace(load, model.parent)
    gc.disable()
    try:
        state = traced.run()
        mappings = [weakref.ref(mapping) for mapping in traced.memory._mappings.values()]
        traced.memory = None  # type: ignore[assignment] # as the next call has one of its own
        traced.replays.clear()
        assert all(mapping() is None for mapping in mappings), "the tensors hold the memory, and nobody else does"
        storages = [torch.multiprocessing.reductions.StorageWeakRef(one.untyped_storage()) for one in state.values()]
        del state
        assert storages and all(storage.expired() for storage in storages)
    finally:
        gc.enable()


def test_a_read_by_a_reader_that_copies_is_the_plain_one(model: Path) -> None:
    def load(event: dict[str, Any]) -> Any:
        file = safe_open(str(model), "pt", backend="pread")
        return [file.get_tensor("numbers"), file.get_tensor("numbers"), file.get_slice("numbers")[1:], event["scale"]]

    traced = trace(load, model.parent).matches()
    assert traced.last.answered == 0


@pytest.mark.parametrize("change", ["time", "size", "gone from the provenance"])
def test_a_file_that_has_changed_is_read_the_ordinary_way(model: Path, change: str) -> None:
    def load(event: dict[str, Any]) -> Any:
        return load_file(model), event["scale"]

    traced = trace(load, model.parent)
    if change == "time":
        spoil(model)
        os.utime(model, ns=(1, 1))
    elif change == "size":
        save_file({"first.weight": torch.ones(3)}, model)
    else:
        traced.sources.clear()
    traced.matches()
    assert traced.last.answered == 0


def test_errors_are_the_plain_ones(model: Path) -> None:
    def load(event: dict[str, Any]) -> Any:
        with safe_open(model, framework="pt") as file:
            kept = file.get_slice("numbers")
            tensor = file.get_tensor("numbers")
            if event["scale"] == 7.0:
                file.get_tensor("nothing")
        if event["scale"] == 8.0:
            file.get_tensor("numbers")
        if event["scale"] == 9.0:
            kept[99]
        return tensor, kept[:]

    traced = trace(load, model.parent).matches()
    for scale in (7.0, 8.0, 9.0):
        errors = []
        for function in (load, traced.run):
            with pytest.raises(Exception) as raised:
                function({"scale": scale})
            errors.append((raised.type, str(raised.value)))
        assert errors[0] == errors[1]


def test_a_file_that_the_event_names_is_never_an_answer(model: Path) -> None:
    adapters = {}
    for name in ("ada", "bob", "eve"):
        folder = model.parent / "adapters" / name
        folder.mkdir(parents=True)
        adapters[name] = torch.randn(16, 16)
        save_file({"first.weight": adapters[name]}, folder / "adapter.safetensors")
        save_file({"first.weight": adapters[name]}, model.parent / f"plain_{name}.safetensors")

    def by_folder(event: dict[str, Any]) -> Any:
        return load_file(model), load_file(model.parent / "adapters" / event["user"] / "adapter.safetensors")

    def by_prefix(event: dict[str, Any]) -> Any:
        return load_file(model), load_file(f"{model.parent}/plain_{event['user']}.safetensors")

    def by_database(event: dict[str, Any]) -> Any:
        known = [f"plain_{name}.safetensors" for name in ("ada", "bob", "eve")]
        return load_file(model), load_file(model.parent / known[event["row"] + 0])

    events = [{"user": "ada", "row": 0}, {"user": "bob", "row": 1}, {"user": "eve", "row": 2}]
    for load in (by_folder, by_prefix, by_database):
        traced = trace(load, model.parent, *events[:2]).matches(events[2])
        assert traced.last.answered == 4
        template = (model.parent / "template.safetensors").read_bytes()
        assert not any(tensor.numpy().tobytes() in template for tensor in adapters.values())
        assert trace(load, model.parent, events[0]).answers == ()


def test_a_file_that_the_event_names_is_none_though_all_traced_events_name_the_same_or_it_is_compared(model: Path) -> None:
    places = [
        model.parent / name
        for name in ("ada.safetensors", "of/ada/it.safetensors", "of_ada.safetensors", "longada.safetensors")
    ]
    for path in places:
        path.parent.mkdir(exist_ok=True, parents=True)
        save_file({"first.weight": torch.randn(8, 8)}, path)

    def load(event: dict[str, Any]) -> Any:
        known = event["user"] in ("ada", "longada")
        return [load_file(path) for path in places if known and event["user"] in str(path)], load_file(model), event["scale"]

    for user, named in (("ada", 3), ("longada", 1)):
        events = [{"user": user, "scale": 1.0}, {"user": user, "scale": 2.0}]
        files = {answer.file for answer in trace(load, model.parent, *events).answers}
        assert f"project:{MODEL}" in files
        assert len([path for path in places if f"project:{path.relative_to(model.parent)}" not in files]) >= named


def test_of_two_models_that_the_event_chooses_between_neither_is_answered(model: Path) -> None:
    (model.parent / "wide").mkdir()
    other = model.parent / "wide" / MODEL
    save_file({"first.weight": torch.randn(32, 32)}, other)
    files = {"fast": model, "good": other}

    def load(event: dict[str, Any]) -> Any:
        return load_file(files[event["model"]])

    assert trace(load, model.parent, {"model": "fast"}, {"model": "good"}).answers == ()


def test_writes_reach_neither_the_bundle_nor_another_state(model: Path) -> None:
    def load(event: dict[str, Any]) -> Any:
        tensors = load_file(model)
        if event["scale"] > 4:
            tensors["first.weight"].add_(event["scale"])
        tensors["second.weight"].numpy()[0, 0] = event["scale"]
        return tensors, tensors["first.weight"].to(torch.float16)

    traced = trace(load, model.parent).matches().matches()
    one, other = traced.run(), traced.run({"scale": 2.0})
    one[0]["third.weight"].zero_()
    assert shown(other) == shown(load({"scale": 2.0}))


def test_reads_share_memory_where_the_plain_ones_do(model: Path) -> None:
    def load(event: dict[str, Any]) -> Any:
        with safe_open(model, "pt") as file, safe_open(model, "pt") as again:
            one, two, three = file.get_tensor("numbers"), file.get_tensor("numbers"), again.get_tensor("numbers")
            part = file.get_slice("numbers")[2:5]
            one[3] = int(event["scale"])
            return one, two, three, part, file.get_tensor("numbers")

    traced = trace(load, model.parent).matches()
    assert traced.run({"scale": 2.0})[4].tolist() == [0, 1, 2, 2, 4, 5]


def test_tied_weights_and_views_of_reads_stay_tied(model: Path) -> None:
    def load(event: dict[str, Any]) -> Any:
        tensors = load_file(model)
        one, two = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)
        one.weight = two.weight = torch.nn.Parameter(tensors["first.weight"])
        for module in (one, two):
            torch.nn.init.constant_(module.bias, event["scale"])
        return one, two, tensors["second.weight"].T, tensors["second.weight"][3:5]

    traced = trace(load, model.parent).matches()
    state = traced.run()
    assert state[0].weight is state[1].weight


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_flags_are_those_of_the_mode(model: Path, mode: Any) -> None:
    def load(event: dict[str, Any]) -> Any:
        with mode():
            return load_file(model), event["scale"]

    assert trace(load, model.parent).matches().last.answered == 4


def test_threads_are_answered_too(model: Path) -> None:
    def load(event: dict[str, Any]) -> Any:
        with safe_open(model, "pt") as file, ThreadPoolExecutor(3) as pool:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            loaded = dict(zip(slices, pool.map(lambda s: s[...].to(torch.float64), slices.values()), strict=True))
            started = threading.Thread(target=lambda: loaded.update(more=load_file(model)["first.weight"].to(torch.float64)))
            started.start()
            started.join()
            return loaded, event["scale"]

    traced = trace(load, model.parent).matches()
    assert traced.last.answered == 8


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8, bias=False)
        self.two.weight = self.one.weight
        self.register_buffer("part", torch.arange(10.0)[2:6])


@pytest.mark.parametrize("options", [{}, {"map_location": "cpu"}, {"mmap": True}, {"weights_only": True}])
def test_torch_load_is_answered_whole(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "net.pt"
    torch.save(Net().state_dict(), path)

    def load(event: dict[str, Any]) -> Any:
        state = torch.load(path, **options)
        with torch.device("meta"):
            net = Net()
        net.load_state_dict(state, assign=True)
        return net.requires_grad_(False), torch.load(path, "cpu"), event["scale"]

    traced = trace(load, tmp_path).matches()
    plain = shown(load(OTHER))
    data = path.read_bytes()
    weight = torch.load(path)["one.weight"].numpy().tobytes()
    status = path.stat()
    path.write_bytes(data.replace(weight, bytes(len(weight))))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert shown(load(OTHER)) != plain
    assert shown(traced.run()) == plain
    assert traced.last.answered == 6


def test_torch_load_of_more_than_tensors_is_the_plain_one(tmp_path: Path) -> None:
    path, old = tmp_path / "net.pt", tmp_path / "old.pt"
    torch.save(Net(), path)
    torch.save(Net().state_dict(), old, _use_new_zipfile_serialization=False)

    def load(event: dict[str, Any]) -> Any:
        with open(old, "rb") as file:
            by_file = torch.load(file)
        return torch.load(path, weights_only=False), torch.load(old), by_file, event["scale"]

    traced = trace(load, tmp_path).matches()
    assert traced.last.answered == 0


def test_nothing_of_it_is_left(model: Path) -> None:
    def load(event: dict[str, Any]) -> Any:
        return load_file(model)["first.weight"].to(torch.float16), event["scale"]

    traced = trace(load, model.parent)
    import safetensors.torch

    def patched() -> list[Any]:
        thread = threading.Thread._bootstrap_inner
        return [safetensors.safe_open, safetensors.torch.safe_open, torch.load, torch.from_numpy, thread]

    before = patched()
    own = {name: vars(torch.Tensor).get(name) for name in ("numpy", "__array__", "__dlpack__")}
    traced.run()
    with pytest.raises(KeyError):
        traced.run({})
    assert all(one is other for one, other in zip(before, patched(), strict=True))
    assert own == {name: vars(torch.Tensor).get(name) for name in own}
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None


def test_a_project_that_has_moved_is_answered(model: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    def at(root: Path) -> Load:
        return lambda event: (load_file(root / MODEL), event["scale"])

    traced = trace(at(model.parent), model.parent)
    assert {answer.file for answer in traced.answers} == {f"project:{MODEL}"}
    traced.root = tmp_path_factory.mktemp("moved")
    status = model.stat()
    os.rename(model, traced.root / MODEL)
    os.utime(traced.root / MODEL, ns=(status.st_atime_ns, status.st_mtime_ns))
    traced.load = at(traced.root)
    assert traced.matches().last.answered == 4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_from_pretrained_takes_all_of_its_weights_from_the_template(tmp_path: Path, dtype: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")

    def load(event: dict[str, Any]) -> Any:
        model = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "llama", dtype=getattr(torch, dtype)).eval()
        return model, event["scale"]

    traced = trace(load, tmp_path)
    plain = shown(load(OTHER)[0])
    spoil(tmp_path / "llama" / MODEL)
    state = traced.run()
    assert shown(state[0]) == plain
    assert traced.last.answered_bytes == sum(tensor.nbytes for tensor in load_file(tmp_path / "llama" / MODEL).values())
