"""An image that can't serve a start is none: the start is an ordinary one with its cause, and nothing wrong is executed."""

import json
import os
import random
import shutil
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Chain, chained, flip_bit, python, tidalctl
from sample_artifacts import write_bundle
from support.criu import WITH_CRIU, needs_criu
from support.imaged import APP, imaged_in

from tidalctl.artifacts.cause import Cause
from tidalctl.host.process_properties import environment_mismatch
from tidalctl.image import machine
from tidalctl.image.conditions import image_mismatch, untrusted_image, usable_criu
from tidalctl.image.criu import VARIABLE, criu_version, find_criu
from tidalctl.image.launcher import NotRestored, run_image
from tidalctl.image.manifest import ImageManifest, NoImage, bundle_digest, read_manifest, text_digest, write_manifest


@pytest.fixture(scope="module")
def imaged(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return imaged_in(tmp_path_factory.getbasetemp())


@pytest.fixture
def copied(imaged: Chain, tmp_path: Path) -> Path:
    """The bundle in another folder, its image beside it."""
    return Path(shutil.copytree(imaged.bundle, tmp_path / "copied.bundle"))


def manifest(**fields: Any) -> ImageManifest:
    usual: dict[str, Any] = {
        "path": "",
        "bundle": "", "pid": 100, "pipe": 7, "files": {}, "reads": [], "environ": {},
        "machine": machine.describe_machine(), "stamps": {}, "user": -1, "touched": {}, "groups": [],
    }  # fmt: skip
    return ImageManifest(**{**usual, **fields})


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder that passes for a bundle with an image."""
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "image").mkdir()
    return tmp_path


MISMATCHES: list[tuple[dict[str, Any], Cause | None]] = [
    ({}, None),
    ({"bundle": "other"}, Cause.IMAGE_OF_OTHER_BUNDLE),
    ({"path": "/elsewhere"}, Cause.IMAGE_OF_OTHER_BUNDLE),
    ({"machine": {**machine.describe_machine(), "the kernel": "5.0"}}, Cause.IMAGE_MACHINE_DIFFERS),
    ({"machine": {**machine.describe_machine(), "the number of cores": "900"}}, Cause.IMAGE_MACHINE_DIFFERS),
    ({"machine": {**machine.describe_machine(), "the processor's instruction set": "x"}}, Cause.IMAGE_MACHINE_DIFFERS),
    ({"reads": ["GIVEN"]}, Cause.IMAGE_ENVIRONMENT_DIFFERS),
    ({"reads": ["GIVEN"], "environ": {"GIVEN": text_digest("here")}}, None),
    ({"environ": {"OMP_NUM_THREADS": text_digest("7")}}, Cause.IMAGE_ENVIRONMENT_DIFFERS),
    ({"user": os.getuid()}, None),
    ({"user": os.getuid() + 1}, Cause.IMAGE_USER_DIFFERS),
    ({"stamps": {sys.executable: machine.stamp(sys.executable)}}, None),
    ({"stamps": {sys.executable: [1, 2]}}, Cause.IMAGE_FILE_DIFFERS),
    ({"stamps": {"/nowhere": [1, 2]}}, Cause.IMAGE_FILE_DIFFERS),
    ({"stamps": {"/nowhere": []}}, None),
]


@pytest.mark.parametrize(("fields", "cause"), MISMATCHES)
def test_each_condition_is_compared(bundle: Path, fields: dict[str, Any], cause: Cause | None) -> None:
    made = manifest(**{"path": str(bundle), "bundle": bundle_digest(bundle), **fields})
    found = image_mismatch(bundle, made, {"GIVEN": "here"})
    assert (Cause.by_code(found[0]) if found else None) is cause
    if found:
        assert "{" not in Cause.by_code(found[0]).of(**found[1]).text


def test_an_image_that_others_may_write_is_not_executed(bundle: Path) -> None:
    made, file = manifest(files={"pages-1.img": [4, ""]}), bundle / "image" / "pages-1.img"
    assert (untrusted_image(bundle, made) or [""])[0] == Cause.IMAGE_SPOILED.code
    file.write_bytes(b"1234")
    assert untrusted_image(bundle, made) is None
    for path in (file, bundle / "image"):
        mode = path.stat().st_mode
        path.chmod(mode | stat.S_IWOTH)
        assert untrusted_image(bundle, made) == (Cause.IMAGE_WRITABLE.code, {"path": str(path)})
        path.chmod(mode)
    file.write_bytes(b"123")
    assert untrusted_image(bundle, made) == (Cause.IMAGE_SPOILED.code, {"file": "pages-1.img"})


def test_a_manifest_is_read_as_it_was_written_or_not_at_all(bundle: Path) -> None:
    written = manifest(reads=["A"], stamps={"/a": [1, 2]})
    with pytest.raises(NoImage) as missing:
        read_manifest(bundle)
    assert "there is no image/image.json" in str(missing.value)
    write_manifest(bundle / "image", written)
    assert read_manifest(bundle) == written
    text = (bundle / "image" / "image.json").read_text()
    for name, value in (
        ("files", None),
        ("reads", [5]),
        ("stamps", {"a\0b": []}),
        ("machine", ["x"]),
        ("pid", 1),
        ("pid", "x"),
        ("files", {"a": 3}),
    ):
        write_manifest(bundle / "image", written._replace(**{name: value}))
        with pytest.raises(NoImage):
            read_manifest(bundle)
    for spoiled in (
        "",
        "{",
        "[]",
        '{"image": 3, "digest": ""}',
        text.replace("100", "101"),
        text[:-9],
        text.replace("schema", "scheme"),
    ):
        (bundle / "image" / "image.json").write_text(spoiled)
        with pytest.raises(NoImage):
            read_manifest(bundle)


def program(folder: Path, text: str, name: str = "criu") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return folder / name


def test_criu_is_found_by_its_name_or_its_variable(tmp_path: Path) -> None:
    one = program(tmp_path / "one", "echo Version: 4.2.1")
    other = program(tmp_path / "other", "echo Version: 3.17")
    assert find_criu({"PATH": f"{one.parent}:{other.parent}"}) == str(one)
    assert find_criu({"PATH": str(one.parent), VARIABLE: str(other)}) == str(other)
    assert find_criu({VARIABLE: str(tmp_path / "nowhere"), "PATH": str(one.parent)}) is None
    assert (criu_version(str(one)), criu_version(str(other))) == ((4, 2, 1), (3, 17))
    assert criu_version(str(program(tmp_path, "echo no"))) is None
    one.chmod(0o777)
    assert usable_criu({VARIABLE: str(one)}) == (Cause.IMAGE_WRITABLE.code, {"path": str(one)})
    assert usable_criu({VARIABLE: "/nowhere"}) == (Cause.IMAGE_NO_CRIU.code, {"variable": VARIABLE})


def test_a_bundle_gets_no_image_where_there_is_no_criu(imaged: Chain, tmp_path: Path) -> None:
    old = program(tmp_path, "echo Version: 3.17")
    for path, cause in (("/nowhere", Cause.IMAGE_NO_CRIU), (str(old), Cause.IMAGE_OLD_CRIU)):
        words = ("compile", imaged.trace, "-o", tmp_path / f"{cause.code}.bundle", "--force")
        if cause is Cause.IMAGE_NO_CRIU:
            told = tidalctl(*words, "--json", cwd=tmp_path, env={VARIABLE: path}).ok()
            assert told.report["image_bytes"] is None and f"no image: {Cause.IMAGE_NO_CRIU.of(variable=VARIABLE)}" in told.err
        tidalctl("image", imaged.bundle, cwd=tmp_path, env={VARIABLE: path}).one_error(cause.code, code=1)


@needs_criu
@pytest.mark.parametrize(
    ("mode", "cause"),
    [
        ("socket", Cause.IMAGE_HOLDS),
        pytest.param("thread", Cause.THREADS_NOT_FORKED, marks=pytest.mark.slow),
        pytest.param("raise", Cause.TEMPLATE_FAILED, marks=pytest.mark.slow),
        ("directory", Cause.IMAGE_PROCESS_CHANGED),
        pytest.param("ignore", Cause.IMAGE_PROCESS_CHANGED, marks=pytest.mark.slow),
        ("tiles", Cause.IMAGE_COMPUTED),
    ],
)
def test_what_no_image_holds_is_named(imaged: Chain, copied: Path, mode: str, cause: Cause) -> None:
    if mode == "tiles" and "amx_tile" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no matrix tiles")
    before = sorted(os.listdir(copied / "image"))
    done = tidalctl("image", copied, cwd=imaged.folder, env={**imaged.env, "APP_MODE": mode})
    done.one_error(cause.code, code=1)
    assert sorted(os.listdir(copied / "image")) == before, "the image that was there is left"
    assert sorted(path.name for path in copied.iterdir()) == sorted(path.name for path in imaged.bundle.iterdir())


@needs_criu
@pytest.mark.slow
def test_a_secret_that_imports_read_is_not_put_into_an_image(tmp_path: Path) -> None:
    made = chained(tmp_path, APP.replace("APP_MODE", "APP_TOKEN"), {"n": 1})
    tidalctl("image", made.bundle, cwd=tmp_path, env=WITH_CRIU).one_error(Cause.IMAGE_SECRET_READ.code, "APP_TOKEN", code=1)


@needs_criu
def test_an_image_of_another_user_is_his_where_imports_ask_for_him(imaged: Chain, copied: Path) -> None:
    tidalctl("image", copied, cwd=imaged.folder, env={**imaged.env, "APP_MODE": "user"}).ok()
    assert read_manifest(copied).user == os.getuid()
    assert read_manifest(imaged.bundle).user == -1


def start(chain: Chain, bundle: Path, *options: str, **env: str) -> dict[str, Any]:
    """Return the report of a start, with what it said."""
    words = ("run", bundle, "--event", '{"n": 2}', "--json", *options)
    done = tidalctl(*words, cwd=chain.folder, env={**chain.env, **env}).ok()
    return {**done.report, "said": done.err}


@needs_criu
def test_a_start_without_the_image_says_why(imaged: Chain, copied: Path) -> None:
    expected = imaged.plain({"n": 2})
    report = start(imaged, copied)
    assert (report["output"], report["start"]) == (expected, "process")
    assert report["image_cause"] == Cause.IMAGE_OF_OTHER_BUNDLE.code
    report = start(imaged, imaged.bundle, OMP_NUM_THREADS="1")
    assert (report["output"], report["start"]) == (expected, "process")
    assert report["image_cause"] == Cause.IMAGE_ENVIRONMENT_DIFFERS.code and "OMP_NUM_THREADS" in report["image_fallback"]
    assert f"note: started without the image: {report['image_fallback']} ({report['image_cause']})" in report["said"]
    words = ("run", imaged.bundle, "-e", "{}", "--image", "require")
    tidalctl(*words, cwd=imaged.folder, env={**imaged.env, "OMP_NUM_THREADS": "1"}).one_error("OMP_NUM_THREADS", code=1)


@needs_criu
def test_criu_that_fails_is_an_ordinary_start(imaged: Chain, tmp_path: Path) -> None:
    failing = program(tmp_path, "echo '(00.1) Error (criu/x.c:3): it is broken' >&2; exit 1")
    report = start(imaged, imaged.bundle, **{VARIABLE: str(failing)})
    assert (report["output"], report["image_cause"]) == (imaged.plain({"n": 2}), Cause.IMAGE_NOT_RESTORED.code)
    assert "it is broken" in report["image_fallback"]
    report = start(imaged, imaged.bundle, **{VARIABLE: "/nowhere"})
    assert (report["output"], report["image_cause"]) == (imaged.plain({"n": 2}), Cause.IMAGE_NO_CRIU.code)


@needs_criu
def test_show_says_whether_a_start_here_uses_it(imaged: Chain, copied: Path) -> None:
    told = tidalctl("image", imaged.bundle, "--show", "--json", cwd=imaged.folder, env=imaged.env).ok().report
    assert told["usable"] and told["image_bytes"] > 10**7
    unusable = tidalctl("image", imaged.bundle, "--show", cwd=imaged.folder, env={**imaged.env, "LANG": "xx"})
    unusable.one_error("can't use it", "LANG", code=1)
    assert "removed" in tidalctl("image", copied, "--remove", cwd=imaged.folder).ok().out
    assert "no image" in tidalctl("image", copied, "--remove", cwd=imaged.folder).ok().out
    tidalctl("image", copied, "--show", cwd=imaged.folder).one_error("no image", code=1)
    tidalctl("run", copied, "-e", "{}", "--image", "require", cwd=imaged.folder).one_error("no image", "tidalctl image", code=1)


def outcome(bundle: Path) -> str:
    """Return, of a start from the image in a process of its own, the cause for which there was none, or its exit code."""
    told, tell = os.pipe()
    if not (child := os.fork()):
        os.dup2(os.open("/dev/null", os.O_RDWR), 1)
        os.dup2(1, 2)
        os.environ.update(WITH_CRIU)
        code = "failed"
        try:
            fields = {"bundle": str(bundle), "event": '{"n": 2}', "json": True}
            code = str(run_image(fields, time.monotonic_ns(), time.monotonic_ns()))
        except NotRestored as error:
            code = error.refusal[0]
        except NoImage:
            code = "none"
        finally:
            os.write(tell, code.encode())
            os._exit(0)
    os.close(tell)
    os.waitpid(child, 0)
    with os.fdopen(told) as file:
        return file.read()


@needs_criu
@pytest.mark.parametrize("count", [8, pytest.param(300, marks=pytest.mark.slow)])
def test_a_spoiled_image_is_never_executed(imaged: Chain, copied: Path, count: int) -> None:
    """Cut, flipped, or mixed of two: each is known before the first byte is."""
    other = Path(shutil.copytree(imaged.bundle, copied.with_name("other.bundle")))
    tidalctl("image", other, cwd=imaged.folder, env=imaged.env).ok()
    stamps = {name: value for name, value in read_manifest(imaged.bundle).stamps.items() if "copied.bundle" not in name}
    draw, image = random.Random(5), imaged.bundle / "image"
    names = sorted(read_manifest(imaged.bundle).files)
    saved = copied / "saved"
    assert outcome(imaged.bundle) == "0" and stamps
    for number in range(count):
        file = image / draw.choice(names)
        if file.stat().st_size == 0:
            continue
        shutil.copy2(file, saved)
        kind: Callable[[], object] = draw.choice(
            [
                lambda file=file: os.truncate(file, draw.randrange(file.stat().st_size)),
                lambda file=file: flip_bit(file, draw.randrange(file.stat().st_size), draw.randrange(8)),
                lambda file=file: (
                    shutil.copy2(other / "image" / file.name, file)
                    if (other / "image" / file.name).exists()
                    else flip_bit(file, 0)
                ),
            ]
        )
        kind()
        same = file.read_bytes() == saved.read_bytes()
        assert outcome(imaged.bundle) == ("0" if same else "image-spoiled"), (number, file.name)
        shutil.copy2(saved, file)
    assert outcome(imaged.bundle) == "0"
    assert json.loads((image / "image.json").read_text())["digest"]


def test_the_launcher_imports_little() -> None:
    script = (
        "import sys, tidalctl.image.launcher; print(sorted({'torch', 'msgspec', 'typer', 'numpy', 'asyncio'} & {*sys.modules}))"
    )
    assert python(script, cwd=Path("/")).ok().out == "[]\n"


EAGER = """
import os

SEEN = @SEEN@


def handler(event, context):
    return SEEN
"""


@pytest.mark.parametrize(
    ("seen", "cause"),
    [
        ("os.environ.get('GIVEN')", None),
        pytest.param("dict(os.environ).get('GIVEN')", Cause.IMAGE_ALL_VARIABLES_READ, marks=pytest.mark.slow),
    ],
)
@needs_criu
@pytest.mark.slow
def test_what_an_eager_functions_imports_read_is_compared_too(tmp_path: Path, seen: str, cause: Cause | None) -> None:
    made = chained(tmp_path, EAGER.replace("@SEEN@", seen), {"n": 2}, GIVEN="traced")
    made.env.update(WITH_CRIU)
    done = tidalctl("image", made.bundle, cwd=tmp_path, env=made.env)
    if cause is not None:
        done.one_error(cause.code, code=1)
        return
    done.ok()
    report = start(made, made.bundle)
    assert (report["output"], report["start"]) == ("traced", "image")
    report = start(made, made.bundle, GIVEN="other")
    assert (report["output"], report["image_cause"]) == ("other", Cause.IMAGE_ENVIRONMENT_DIFFERS.code)


def test_variables_that_imports_read_are_compared_whatever_the_strategy(tmp_path: Path) -> None:
    eager = write_bundle(tmp_path / "one", strategy="eager", environ_reads=("GIVEN",))
    assert eager.import_variables == {"GIVEN"}
    for manifest, other in ((eager, {"GIVEN": "x"}), (write_bundle(tmp_path / "two", environ_all=True), {"ANY": "x"})):
        found = environment_mismatch(manifest, {}, other)
        assert found is not None and next(iter(other)) in found.text
        assert environment_mismatch(manifest, other, {**other, "PWD": "/"}) is None
