"""Whatever happened to a bundle's bytes, reading it gives what was written or a typed ArtifactError, and nothing else."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from sample_artifacts import MUTATIONS, WEIGHTS, change, fixed, mutations, outcome, paths, sha256_of, values, write_bundle

from tidalctl.artifacts.bundle import MANIFEST
from tidalctl.artifacts.bundle.directory import check_file, open_bundle
from tidalctl.artifacts.bundle.manifest import SCHEMA, BundleFile, Manifest, decode_manifest, encode_manifest, seal
from tidalctl.artifacts.bundle.weights_file import check_header, plan_shards
from tidalctl.artifacts.errors import ArtifactError, Corrupt, NewerSchema, OlderSchema, PathEscapes, Truncated
from tidalctl.artifacts.records import canonical_json, digest_json


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "app.bundle")
    return tmp_path / "app.bundle"


def _manifest_of(data: bytes) -> Any:
    return outcome(lambda: decode_manifest(data, Path("manifest.json")))


def test_a_bundle_opens_as_it_was_written(tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path / "app.bundle")
    assert open_bundle(tmp_path / "app.bundle") == manifest
    for name in manifest.files:
        check_file(tmp_path / "app.bundle", manifest, name)


def test_a_manifest_cut_anywhere_is_refused(bundle: Path) -> None:
    data, manifest = (bundle / MANIFEST).read_bytes(), open_bundle(bundle)
    for length in range(len(data)):
        found = _manifest_of(data[:length])
        assert found in (Truncated, Corrupt) or (length == len(data) - 1 and found == manifest)


def test_a_damaged_manifest_is_refused_or_read_right(bundle: Path) -> None:
    data, manifest = (bundle / MANIFEST).read_bytes(), open_bundle(bundle)
    refused = 0
    for damaged in mutations(data, MUTATIONS):
        found = _manifest_of(damaged)
        assert isinstance(found, type) or found == manifest
        refused += isinstance(found, type)
    assert refused > MUTATIONS * 0.8


@fixed
@given(data=st.data())
def test_a_manifest_with_a_forged_field_is_refused_or_says_just_that(tmp_path: Path, data: st.DataObject) -> None:
    """The digest is made right again: types, paths and bounds are all that stands between a forged value and a run."""
    body = _forge(data)
    bundle = tmp_path / "forged.bundle"
    if not bundle.exists():
        write_bundle(bundle)
    (bundle / MANIFEST).write_bytes(json.dumps(body).encode("utf-8", "replace"))
    found = outcome(lambda: open_bundle(bundle))
    if not isinstance(found, type):
        root = bundle.resolve()
        assert all((bundle / name).resolve().is_relative_to(root) for name in (*found.files, *found.readahead))
        assert all(w.offset >= 0 and w.offset + w.nbytes <= found.files[w.file].size for w in found.weights)


def _forge(data: st.DataObject) -> Any:
    path = data.draw(st.sampled_from(paths(SEALED)))
    return _sealed(change(SEALED, path, data.draw(values.filter(_is_json)), data.draw(st.booleans())))


def _sealed(body: dict[str, Any]) -> dict[str, Any]:
    body.pop("digest", None)
    return {**body, "digest": digest_json(body)}


def _is_json(value: Any) -> bool:
    try:
        canonical_json(value)
    except (TypeError, ValueError):
        return False
    return True


def _sample_manifest() -> Manifest:
    with tempfile.TemporaryDirectory() as folder:
        return write_bundle(Path(folder) / "app.bundle")


MANIFEST_SAMPLE = _sample_manifest()
SEALED = msgspec.to_builtins(MANIFEST_SAMPLE)


@pytest.mark.parametrize(
    "name",
    ["../evil.py", "code/../../evil.py", "/etc/passwd", "code\\evil.py", "code//evil.py", "./evil.py", ".", "", "a\0b", "a/"],
)
def test_a_path_that_escapes_is_refused_wherever_it_stands(bundle: Path, name: str) -> None:
    manifest = open_bundle(bundle)
    stored = BundleFile(size=0, sha256=sha256_of(b""))
    function = msgspec.structs.replace(manifest.function, source=name)
    for changed in ({"files": {**manifest.files, name: stored}}, {"readahead": (name,)}, {"function": function}):
        forged = seal(msgspec.structs.replace(manifest, **changed))
        with pytest.raises(PathEscapes):
            decode_manifest(encode_manifest(forged), bundle)


def test_a_link_that_leads_out_of_a_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    content = (bundle / "code/app.py").read_bytes()
    (tmp_path / "outside.py").write_bytes(content)
    (bundle / "code/app.py").unlink()
    (bundle / "code/app.py").symlink_to(tmp_path / "outside.py")
    with pytest.raises(PathEscapes):
        open_bundle(bundle)
    (bundle / "code/app.py").unlink()
    (bundle / "code").rmdir()
    (tmp_path / "code").mkdir()
    (tmp_path / "code/app.py").write_bytes(content)
    (bundle / "code").symlink_to(tmp_path / "code")
    with pytest.raises(PathEscapes):
        open_bundle(bundle)


@pytest.mark.parametrize(("schema", "error"), [(SCHEMA + 1, NewerSchema), (SCHEMA - 1, OlderSchema)])
def test_a_bundle_of_another_schema_is_refused_as_such(bundle: Path, schema: int, error: type[ArtifactError]) -> None:
    body = {**SEALED, "schema": schema, "unheard": "of"}
    with pytest.raises(error, match=f"schema {schema}"):
        decode_manifest(json.dumps(body).encode(), bundle)


def test_a_file_that_changed_shrank_or_left_is_refused(bundle: Path) -> None:
    manifest = open_bundle(bundle)
    file = bundle / "code/app.py"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"#")
    with pytest.raises(Corrupt):
        check_file(bundle, open_bundle(bundle), "code/app.py")
    for wrong, kind in ((content[:-1], Truncated), (content + b"#", Corrupt)):
        file.write_bytes(wrong)
        with pytest.raises(kind):
            open_bundle(bundle)
    file.unlink()
    with pytest.raises(Truncated, match="is missing"):
        open_bundle(bundle)
    forged = msgspec.structs.replace(
        manifest, files={**manifest.files, "code/app.py": BundleFile(size=0, sha256=sha256_of(b""))}
    )
    (bundle / MANIFEST).write_bytes(encode_manifest(seal(forged)))
    for pipe in (file, bundle / MANIFEST):  # is refused without waiting
        pipe.unlink(missing_ok=True)
        os.mkfifo(pipe)
        with pytest.raises(ArtifactError):
            open_bundle(bundle)
    (bundle / MANIFEST).unlink()
    (bundle / MANIFEST).mkdir()
    with pytest.raises(ArtifactError):
        open_bundle(bundle)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"strategy": "telepathy"}, id="an unknown strategy"),
        pytest.param({"strategy": "snapshot"}, id="a snapshot without a skeleton"),
        pytest.param({"files": {}}, id="weights in no file"),
        pytest.param({"weights": MANIFEST_SAMPLE.weights * 2}, id="two weights of one name"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(bundle: Path, changed: dict[str, Any]) -> None:
    forged = seal(msgspec.structs.replace(open_bundle(bundle), **changed))
    with pytest.raises(Corrupt):
        decode_manifest(encode_manifest(forged), bundle)


@pytest.mark.parametrize("field", ["offset", "nbytes"])
def test_a_weight_out_of_its_files_bounds_is_refused(bundle: Path, field: str) -> None:
    manifest = open_bundle(bundle)
    for value in (-1, 2**40, 2**70):
        forged = msgspec.structs.replace(manifest.weights[0], **{field: value})
        body = _sealed(msgspec.to_builtins(msgspec.structs.replace(manifest, weights=(forged,))))
        with pytest.raises(Corrupt):
            decode_manifest(json.dumps(body).encode(), bundle)


# Weights files


def _header_of(path: Path) -> Any:
    return outcome(lambda: check_header(path))


def test_a_weights_file_cut_anywhere_is_refused(bundle: Path) -> None:
    file = bundle / "weights.safetensors"
    data = file.read_bytes()
    for length in range(len(data)):
        file.write_bytes(data[:length])
        assert _header_of(file) in (Truncated, Corrupt)


def test_a_damaged_weights_header_is_refused_or_describes_a_whole_file(bundle: Path) -> None:
    """What the header alone can't tell (a renamed tensor, another dtype of the same size) the file's sha256 tells."""
    file, manifest = bundle / "weights.safetensors", open_bundle(bundle)
    data = file.read_bytes()
    head = 8 + int.from_bytes(data[:8], "little")
    refused = 0
    for damaged in mutations(data[:head], MUTATIONS):
        file.write_bytes(damaged + data[head:])
        found = _header_of(file)
        refused += isinstance(found, type)
        if not isinstance(found, type):
            _assert_whole(found, len(data) - head)
        if damaged != data[:head]:
            with pytest.raises(Corrupt):
                check_file(bundle, manifest, file.name)
    assert refused > MUTATIONS * 0.4


def _assert_whole(header: dict[str, Any], nbytes: int) -> None:
    """Every byte belongs to one tensor."""
    spans = sorted(tuple(value["data_offsets"]) for key, value in header.items() if key != "__metadata__")
    position = 0
    for begin, end in spans:
        assert begin == position
        position = end
    assert position == nbytes


@fixed
@given(data=st.data())
def test_a_forged_weights_header_is_refused_or_what_the_stock_reader_takes(tmp_path: Path, data: st.DataObject) -> None:
    (shard,) = plan_shards(WEIGHTS, None)
    header = json.loads(shard.header[8:])
    path = data.draw(st.sampled_from(paths(header)))
    body = change(header, path, data.draw(values.filter(_is_json)), data.draw(st.booleans()))
    text = json.dumps(body).encode()
    file = tmp_path / "forged.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(shard.size - len(shard.header)))
    if not isinstance(_header_of(file), type):
        with safe_open(file, framework="numpy") as opened:
            opened.keys()


@pytest.mark.parametrize("offsets", [[], [0], [0, 1, 2], ["0", "1"], [0.0, 80.0], [False, True], [-8, 0], [0, 2**70], None, {}])
def test_noise_and_offsets_that_are_no_pair_of_counts_are_refused(tmp_path: Path, offsets: Any) -> None:
    text = json.dumps({"weight": {"dtype": "U8", "shape": [80], "data_offsets": offsets}}).encode()
    file = tmp_path / "odd.safetensors"
    for head, length in ((text, len(text)), (os.urandom(100), 100), (text, 2**64 - 1), (b"", 0)):
        file.write_bytes(length.to_bytes(8, "little") + head + bytes(80))
        assert _header_of(file) in (Corrupt, Truncated)
