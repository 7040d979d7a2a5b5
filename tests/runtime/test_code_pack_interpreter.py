"""Bytecode is used by the interpreter that it was made for, and by no other."""

import importlib.util
import sys

from tidalctl.artifacts.cause import Cause
from tidalctl.runtime.imports.code_pack import interpreter_mismatch


def test_bytecode_of_another_python_is_not_used() -> None:
    ours = importlib.util.MAGIC_NUMBER.hex()
    assert interpreter_mismatch(ours, sys.flags.optimize) is None
    assert interpreter_mismatch("0000", sys.flags.optimize) == Cause.OTHER_BYTECODE.of()
    assert interpreter_mismatch(ours, sys.flags.optimize + 1) == Cause.OTHER_OPTIMIZATION.of(level=sys.flags.optimize + 1)
