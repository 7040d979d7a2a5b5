"""Which files are the project's own: also where it lies at the top of the file system, and where Python lies in it."""

import os
import sys

from tidalctl.artifacts.project import installed, is_own
from tidalctl.artifacts.trace.tape import place_of
from tidalctl.function.working_environment import Surroundings


def test_a_project_at_the_top_of_the_file_system_owns_its_files_and_not_pythons() -> None:
    assert is_own("/app.py", "/")
    assert is_own("/package/app.py", "/")
    assert not is_own(os.__file__, "/")
    assert not is_own(f"{sys.prefix}/bin/x.py", "/")
    assert place_of("/weights/a.pt", "/") == "project:weights/a.pt"
    assert Surroundings().place(["/"]).startswith("project:")


def test_an_environment_below_the_project_is_not_the_projects() -> None:
    assert is_own("/p/app.py", "/p")
    assert not is_own("/p2/app.py", "/p")
    assert not is_own("/p/.venv/lib/python3.11/site-packages/torch/nn.py", "/p")
    assert not is_own("/p/venv/lib/python3/dist-packages/numpy.py", "/p")
    assert not is_own("", "/p")
    assert not is_own("<frozen os>", "/p")


def test_a_project_in_the_environments_own_folder_owns_its_files() -> None:
    for folder in installed():
        assert is_own(f"{folder}/app.py", folder) == ("site-packages" not in folder and "dist-packages" not in folder)
