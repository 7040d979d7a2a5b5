"""Launches of kernel signatures on scratch data: which may be launched at all, and operands for those that may.

Operands have the traced dtypes, shapes, strides and device, and hold zeros: valid indices, and neither NaN nor denormal numbers. On
the CPU all of them read one mapping that nothing has written to: the system gives it the zero page, and a large weight costs no memory.

Limits: a kernel that is chosen by an operand's address or content may be another than the handler's. Results are as large as in the
trace, one at a time.
"""

import contextlib
import mmap
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from tidalctl.artifacts.records import KernelSignature

TENSOR = re.compile(r"(\w+)\[([\d, ]*)\]/\(([\d, ]*)\)@([\w:]+)")
NAMED = re.compile(r"(\w+)=(.*)", re.DOTALL)
DEVICE = re.compile(r"(cpu|cuda|mps|xpu|meta)(:\d+)?")
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)


class Unfit(Exception):
    """Why a signature is not launched."""


class Operand:
    """A tensor without its data, as a trace writes it: `bfloat16[1, 32]/(32, 1)@cpu`. Raises Unfit for a dtype that torch lacks."""

    def __init__(self, text: re.Match[str]) -> None:
        dtype, shape, strides, device = text.groups()
        self.shape, self.strides, self.device = _numbers(shape), _numbers(strides), device
        found = getattr(torch, dtype, None)
        if not isinstance(found, torch.dtype) or len(self.shape) != len(self.strides):
            raise Unfit(f"an operand {text.group()}")
        self.dtype = found

    @property
    def nbytes(self) -> int:
        """Of the memory that it spans."""
        if 0 in self.shape:
            return 0
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return (1 + last) * self.dtype.itemsize


class Launch:
    """One signature that may be launched. Raises Unfit, with the cause, for one that may not."""

    def __init__(self, signature: KernelSignature) -> None:
        self._operator = _operator(signature.operator)
        positional = self._operator._schema.arguments
        by_name = {argument.name: argument for argument in positional}
        self._given: list[Any] = []
        self._named: dict[str, Any] = {}
        for place, text in enumerate(signature.operands):
            named = NAMED.fullmatch(text)
            if named and named[1] in by_name:
                self._named[named[1]] = _value(named[2], by_name[named[1]])
            elif place < len(positional):
                self._given.append(_value(text, positional[place]))
            else:
                raise Unfit("more operands than the operator takes")
        self.tensors = list(_tensors([self._given, self._named]))
        self._refuse_effects()

    @property
    def device(self) -> str:
        """The type of the device that it runs on: of the tensors, or where the result is made. A scalar on the CPU may come along."""
        given = self._named.get("device")
        devices = {operand.device.partition(":")[0] for operand in self.tensors} | (
            {given.type} if given is not None else set()
        )
        return next(iter(devices - {"cpu"}), "cpu")

    @property
    def nbytes(self) -> int:
        """Of the largest operand; they share their memory."""
        return max((operand.nbytes for operand in self.tensors), default=0)

    def _refuse_effects(self) -> None:
        operator, tags = self._operator, self._operator.tags
        dropout = [a for a in operator._schema.arguments if a.name == "dropout_p"]
        if torch.Tag.nondeterministic_seeded in tags and not (dropout and self._value_of(dropout[0]) == 0.0):
            raise Unfit("it draws random numbers")
        integers = [operand for operand in self.tensors if operand.dtype in INTEGERS]
        if torch.Tag.data_dependent_output in tags:
            raise Unfit("its result depends on the data")
        masks = any(operand.dtype in (torch.bool, torch.uint8) for operand in integers)
        if torch.Tag.dynamic_output_shape in tags and (masks or operator is not torch.ops.aten.index.Tensor):
            raise Unfit("its result's shape depends on the data")
        if any(operand.nbytes for operand in integers) and any(not operand.nbytes for operand in self.tensors):
            raise Unfit("an index into nothing")

    def _value_of(self, argument: Any) -> Any:
        place = self._operator._schema.arguments.index(argument)
        given = self._given[place] if place < len(self._given) else argument.default_value
        return self._named.get(argument.name, given)

    def run(self, scratch: "Scratch") -> None:
        """Launch it, once. Raises what the operator raises."""
        self._operator(*scratch.fill(self._given), **scratch.fill(self._named))


class Scratch:
    """`limit` bytes of zeros on one device ("cpu", "cuda"), of which operands are views. Nothing may write to them."""

    def __init__(self, device: str, limit: int) -> None:
        self.device, self.limit = device, limit
        if device == "cpu":
            memory = mmap.mmap(-1, limit, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            memory.madvise(mmap.MADV_HUGEPAGE)
            self._zeros = torch.frombuffer(memory, dtype=torch.uint8)
        else:
            self._zeros = torch.zeros(limit, dtype=torch.uint8, device=device)

    def fill(self, value: Any) -> Any:
        """The value, with a tensor in each operand's place."""
        if isinstance(value, Operand):
            if value.device.partition(":")[0] != self.device:  # a number or an index on the CPU beside tensors on a device
                return torch.empty_strided(value.shape, value.strides, dtype=value.dtype, device=value.device).zero_()
            return self._zeros.view(value.dtype).as_strided(value.shape, value.strides)
        if isinstance(value, list):
            return [self.fill(one) for one in value]
        if isinstance(value, dict):
            return {name: self.fill(one) for name, one in value.items()}
        return value


@contextlib.contextmanager
def unseen(device: str) -> Iterator[None]:
    """Launches in here are the bare operators': no mode of the user's sees them, and this thread's settings are put back."""
    modes = (_disable_current_modes(), torch._C.DisableTorchFunction())
    with modes[0], modes[1], torch.inference_mode(), torch.autocast(device, enabled=False):
        yield


def _operator(name: str) -> Any:
    """torch's operator of this name, where a launch of it does nothing but compute a result. Raises Unfit."""
    namespace, _, rest = name.partition(".")
    packet, _, overload = rest.partition(".")
    if namespace != "aten":
        raise Unfit("not an operator of torch's own")
    operator = getattr(getattr(torch.ops.aten, packet, None), overload, None)
    if not isinstance(operator, torch._ops.OpOverload):
        raise Unfit("this torch has no such operator")
    schema = operator._schema
    if schema.is_mutable:
        raise Unfit("it writes to its operands")
    if operator.is_view or "empty" in packet.split("_"):
        raise Unfit("it launches no kernel")
    if not schema.returns or "assert" in packet or packet == "from_file":
        raise Unfit("it is called for an effect")
    return operator


def _value(text: str, argument: Any) -> Any:
    """What an operand's text stands for; an Operand for a tensor. Raises Unfit for what has no text."""
    kind = str(argument.type)
    if kind.startswith("str") or (kind.startswith("Optional[str") and text != "None"):
        return text
    return _parsed(text)


def _parsed(text: str) -> Any:
    if tensor := TENSOR.fullmatch(text):
        return Operand(tensor)
    if text.startswith("[") and text.endswith("]"):
        return [_parsed(part) for part in _parts(text[1:-1])]
    if text in ("None", "True", "False"):
        return {"None": None, "True": True, "False": False}[text]
    if DEVICE.fullmatch(text):
        return torch.device(text)
    named = getattr(torch, text.removeprefix("torch."), None) if text.replace(".", "_").isidentifier() else None
    if isinstance(named, torch.dtype | torch.layout | torch.memory_format):
        return named
    for number in (int, float, complex):
        try:
            return number(text)
        except ValueError:
            continue
    raise Unfit(f"an operand {text}")


def _parts(text: str) -> Iterator[str]:
    """The elements of a list's text, which may have brackets of their own."""
    depth, begin = 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth == 0:
            yield text[begin:place].strip()
            begin = place + 1
    if text:
        yield text[begin:].strip()


def _tensors(value: Any) -> Iterator[Operand]:
    if isinstance(value, Operand):
        yield value
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _tensors(one)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number.strip())
