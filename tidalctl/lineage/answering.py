"""A replay's operators: those whose lineage the template knows give the template's tensors, and do not run.

Identities are those of lineage/tape.py, kept for as few storages as will do: what rests on anything but answered reads and numbers has
none here, and its operators cost a look-up each.

Limits: memory that is written past the dispatcher and past NumPy (through `data_ptr`, by an extension) is not noticed, as on a tape.
"""

import functools
import itertools
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves

from tidalctl.artifacts.storages import storage_of
from tidalctl.artifacts.tape import OVERWRITES
from tidalctl.lineage.answered_reads import Answers
from tidalctl.lineage.arguments import encode, geometry
from tidalctl.lineage.dispatch import Mode
from tidalctl.lineage.everywhere import UnderMode
from tidalctl.lineage.identity import RENAMES, covers_storage, hashed, operator_name

_EMPTY = ("aten.empty", "aten.new_empty")  # memory that holds nothing yet
_HOST_WAYS = ("numpy", "__array__", "__dlpack__")  # by which the host may write to a tensor's memory


class Answering(UnderMode):
    """A context in which operators are answered, on this thread and those that start meanwhile. For an Answers that says `follow`."""

    def __init__(self, answers: Answers) -> None:
        super().__init__(lambda: _Mode(self), _HOST_WAYS, lambda name, original: self._forgetting(original))
        self._answers = answers
        self._numbers = itertools.count()  # counted from many threads

    @property
    def executed(self) -> int:
        """How many operators have run. To be asked once, at the end."""
        return next(self._numbers)

    def _forgetting(self, original: Any) -> Any:
        @functools.wraps(original)
        def look(tensor: torch.Tensor, *arguments: Any, **keywords: Any) -> Any:
            if (storage := storage_of(tensor)) is not None:
                self._answers.identities.expose(storage)
            return original(tensor, *arguments, **keywords)

        return look

    def call(self, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer an operator, or run it and note what it makes."""
        if self._answers.quiet.on:
            return func(*args, **kwargs)
        facts = facts_of(func)
        if facts is None or types:
            self._answers.identities.forget_all()  # what runs inside is not seen
        if facts is None or types or facts.passes:
            return self._executed(func, args, kwargs)
        known = self._answers.identities
        tensors = [t for v in (*args, *kwargs.values()) for t in (v if isinstance(v, list | tuple) else (v,)) if _is_tensor(t)]
        if not any(known.of(tensor) for tensor in tensors) and (facts.empty or (tensors and not facts.overwrites)):
            return self._executed(func, args, kwargs)
        base, copied = self._identify(facts, args, kwargs)
        recorded = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        if base and facts.functional and tensors and not recorded:
            answer = self._answers.to_operator(hashed(base, 0))
            if answer is not None:
                return self._answers.give(answer)
        written = [
            t for place, name in facts.writes for t in tree_leaves(args[place] if place < len(args) else kwargs.get(name))
        ]
        identified = base, copied
        out, base, copied = None, "", ""  # where it raises
        try:
            out = self._executed(func, args, kwargs)
            base, copied = identified
        finally:
            made = [leaf for leaf in tree_leaves(out) if _is_tensor(leaf) and not any(leaf is tensor for tensor in written)]
            storages = [storage_of(tensor) for tensor in (*written, *made) if _is_tensor(tensor)]
            for place, storage in enumerate(storage for storage in storages if storage is not None):
                known.set(storage, copied or (base and hashed(base, place)))
        return out

    def _executed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        next(self._numbers)
        return func(*args, **kwargs)

    def _identify(self, facts: "_Facts", args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, str]:
        """What Tape._identify calls `base` and `copied`; empty where something that goes in is not known."""
        if facts.draws:
            return "", ""
        target = args[0] if facts.overwrites and args and covers_storage(args[0]) else None
        operands: list[Any] = []
        try:
            if target is not None:
                operands.append(list(geometry(0, target)[1:]))
            operands += [encode(value, self._content) for value in args[len(operands) :]]
            keywords = [[name, encode(value, self._content)] for name, value in sorted(kwargs.items())]
        except _Unknown:
            return "", ""
        copied = ""
        if target is not None and len(args) > 1 and _is_tensor(args[1]) and storage_of(args[1]) is not None:
            alike = geometry(0, target) == geometry(0, args[1]) and covers_storage(args[1])
            copied = self._answers.identities.of(args[1]) if alike else ""
        return hashed(facts.text, operands, keywords, ""), copied

    def _content(self, tensor: torch.Tensor) -> Any:
        identity = self._answers.identities.of(tensor) or _literal(tensor)
        if not identity or tensor.is_conj() or tensor.is_neg():
            raise _Unknown
        return [identity, *geometry(0, tensor)[1:]]


def _literal(tensor: torch.Tensor) -> str:
    """The identity of a single number, which is what it is wherever it came from; empty for other tensors. See Tape._literal."""
    if tensor.dim() or tensor.is_complex() or tensor.device.type != "cpu" or not covers_storage(tensor):
        return ""
    with _disable_current_modes():
        return hashed("literal", encode(tensor.item(), lambda other: 0), str(tensor.dtype))


class _Unknown(Exception):
    """The lineage of an operand is not known."""


class _Mode(Mode):
    """Asks an Answering about the operators of one thread. Make one for each thread."""

    def __init__(self, answering: Answering) -> None:
        super().__init__()
        self._answering = answering

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self._answering.call(func, types, args, kwargs or {})


class _Facts:
    """What an operator's schema says of all of its calls."""

    def __init__(self, func: Any) -> None:
        name = operator_name(func)
        returns = func._schema.returns
        marked = [(place, a) for place, a in enumerate(func._schema.arguments) if a.alias_info is not None]
        self.text = str(func)
        self.writes = tuple((place, argument.name) for place, argument in marked if argument.alias_info.is_write)
        self.passes = name in RENAMES or (func.is_view and not self.writes)
        self.draws = torch.Tag.nondeterministic_seeded in func.tags
        self.overwrites = name in OVERWRITES
        self.empty = name.startswith(_EMPTY)
        self.functional = not marked and not self.draws and len(returns) == 1 and str(returns[0].type) == "Tensor"


@functools.cache
def facts_of(func: Any) -> _Facts | None:
    """None for what is no operator with a schema."""
    return _Facts(func) if isinstance(func, torch._ops.OpOverload) else None


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)
