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


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fifty_killed_compiles_leave_the_old_bundle_or_the_new(
    decoder: Chain, tmp_path: Path, group: Callable[..., "subprocess.Popen[str]"]
) -> None:
    bundle = tmp_path / "app.bundle"
    shutil.copytree(decoder.bundle, bundle)
    old = assert_whole(bundle)
    began = time.monotonic()
    # another layout, so that old and new can be told apart
    tidalctl("compile", decoder.trace, "-o", tmp_path / "new.bundle", "--shard-size", "50KB", cwd=decoder.folder).ok()
    whole_s = time.monotonic() - began
    new = assert_whole(tmp_path / "new.bundle")
    assert new != old
    moment = random.Random(0)
    seen = []
    for _ in range(50):
        process = group("compile", decoder.trace, "-o", bundle, "--force", "--shard-size", "50KB", cwd=decoder.folder)
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
            shutil.copytree(decoder.bundle, bundle)
    tidalctl("compile", decoder.trace, "-o", bundle, "--force", cwd=decoder.folder).ok()
    assert_whole(bundle)
    assert not list(tmp_path.glob(".*.partial")), "what killed compiles left is cleared by the next"
    assert not all(seen)
