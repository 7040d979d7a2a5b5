"""A compile that is killed at any moment leaves the old bundle or the new one, and what it leaves beside it is cleared."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Chain, tidalctl

from tidalctl.artifacts.bundle.directory import check_file, open_bundle


def assert_whole(bundle: Path) -> str:
    """Every file of the bundle is there with its digest; gives the bundle's own."""
    manifest = open_bundle(bundle)
    for name in manifest.files:
        check_file(bundle, manifest, name)
    return manifest.digest


def kill_at_random(chain: Chain, folder: Path, moments: int, group: Callable[..., "subprocess.Popen[str]"]) -> None:
    bundle = folder / "app.bundle"
    shutil.copytree(chain.bundle, bundle)
    old = assert_whole(bundle)
    began = time.monotonic()
    # another layout, so that old and new can be told apart
    tidalctl("compile", chain.trace, "-o", folder / "new.bundle", "--shard-size", "50KB", cwd=chain.folder).ok()
    whole_s = time.monotonic() - began
    new = assert_whole(folder / "new.bundle")
    assert new != old
    moment = random.Random(0)
    seen = []
    for _ in range(moments):
        process = group("compile", chain.trace, "-o", bundle, "--force", "--shard-size", "50KB", cwd=chain.folder)
        time.sleep(moment.uniform(0, whole_s * 1.1))
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        digest = assert_whole(bundle)
        assert digest in (old, new)
        seen.append(digest == new)
        if digest == new:  # begin again from the old one
            shutil.rmtree(bundle)
            shutil.copytree(chain.bundle, bundle)
    tidalctl("compile", chain.trace, "-o", bundle, "--force", cwd=chain.folder).ok()
    assert_whole(bundle)
    assert not list(folder.glob(".*.partial")), "what killed compiles left is cleared by the next"
    assert not all(seen)


@pytest.mark.slow
def test_a_killed_compile_leaves_the_old_bundle_or_the_new(
    decoder: Chain, tmp_path: Path, group: Callable[..., "subprocess.Popen[str]"]
) -> None:
    kill_at_random(decoder, tmp_path, 3, group)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fifty_killed_compiles_leave_the_old_bundle_or_the_new(
    decoder: Chain, tmp_path: Path, group: Callable[..., "subprocess.Popen[str]"]
) -> None:
    kill_at_random(decoder, tmp_path, 50, group)
