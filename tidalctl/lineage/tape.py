"""Lineage: how each tensor that init made came to be, from files and keys through operators. Strict: nothing is guessed.

A Tape numbers the storages and tensors that one call of init handles, notes each operator, and knows each storage's *identity*: a hash
over the way in which its content was made, from sources (file, key, content) through operators and their arguments. Two
storages of one identity hold the same content, in whichever call, event or process they were made. A tensor that no loader and no
operator is known to have made has the source `unknown`, and its content for an identity; the identity of what rests on
such a one, or on numbers drawn without a seed, begins with `?`.
"""

import bisect
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves

from tidalctl.artifacts.state.storages import storage_of
from tidalctl.artifacts.trace.records import Source
from tidalctl.artifacts.trace.tape import (
    DOUBT,
    DRAWN,
    HOST_READ,
    OVERWRITES,
    UNKNOWN,
    TapeRead,
    TapeStep,
    Value,
    place_of,
    values_in,
)
from tidalctl.lineage.arguments import encode, geometry, show
from tidalctl.lineage.identity import (
    RENAMES,
    Quiet,
    SourceDigests,
    covers_storage,
    generator_digest,
    hashed,
    operator_name,
    tensors_written,
)

UNKNOWN_SOURCE = Source(file=UNKNOWN, key="")


class StorageHistory:
    """What the tape knows of one storage now."""

    def __init__(self, number: int, pin: Any) -> None:
        self.number = number
        self.pin = pin  # keeps the address from being given out twice
        self.identity = ""
        self.sources: tuple[Source, ...] = ()
        self.operators: tuple[str, ...] = ()
        self.first: int | None = None  # the first value over it


class Call(NamedTuple):
    """An operator's operands as they were before it ran."""

    name: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    draws: str


class Tape:
    """One call of init. `records` grow as it runs, from all of its threads."""

    def __init__(self, event: int = 0, root: str = "", digest: Callable[..., str] | None = None, call: int = 0) -> None:
        self.event, self.call = event, call
        self.records: list[TapeRead | TapeStep] = []
        self.operators = 0
        self.root = root
        self._digest = digest or SourceDigests().of
        self._by_address: dict[int, StorageHistory] = {}
        self._by_number: list[StorageHistory] = []
        self._values: dict[tuple[Any, ...], int] = {}
        self._places: list[tuple[Any, ...]] = []
        self._memory: list[tuple[Any, ...]] = []  # of reads: begin, end and history, in order
        self._lock = threading.RLock()
        self.quiet = Quiet()
        self._generator = generator_digest()
        self._seeded = False

    # -- what loaders and modes tell it

    def note_source(self, tensor: torch.Tensor, source: Source, operators: tuple[str, ...] = ()) -> None:
        """A loader made this tensor from `source`, by what it calls `operators`."""
        if storage_of(tensor) is not None:
            with self._lock:
                self._read(tensor, source, operators)

    def note_host_read(self, tensor: torch.Tensor, operator: str) -> None:
        """The host looked at a tensor's content, past the dispatcher."""
        if not self.quiet.on and storage_of(tensor) is not None:
            with self._lock:
                number, history = self.number(tensor), self._history(tensor)
                changed: tuple[tuple[int, str], ...] = ()
                if operator != "host.tolist":  # through which the host may write, too
                    history.identity = DOUBT + hashed(operator, history.identity)
                    changed = ((history.number, history.identity),)
                self._append(operator, ({"value": number},), {}, outputs=(), identities=changed)

    def before(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Note the operands before the operator runs, since it may change what they are."""
        with self._lock:
            self.operators += 1
            name = operator_name(func)
            if name in RENAMES:
                return Call(name, (), {}, "")
            arguments = tuple(encode(value, self.number) for value in args)
            keywords = {key: encode(value, self.number) for key, value in kwargs.items()}
            return Call(name, arguments, keywords, self._draw(func, args, kwargs))

    def after(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], call: Call, out: Any) -> None:
        """The operator has run."""
        with self._lock:
            outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor) and storage_of(leaf) is not None]
            if call.name in RENAMES:
                for tensor in outputs:
                    self.number(tensor)
                return
            written = tensors_written(func, args, kwargs)
            if call.draws:
                self._generator = generator_digest()
            if (outputs or written) and any(
                leaf.is_nested for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)
            ):
                for tensor in (*written, *outputs):
                    self._read(tensor, UNKNOWN_SOURCE, ())  # what a nested one holds is not known here
            elif func.is_view and not written:
                self._note_view(str(func), call, outputs)
            elif outputs or written or call.draws or call.name == HOST_READ:
                rest: dict[str, Any] = {"identities": self._identify(func, args, call, outputs, written), "draws": call.draws}
                rest["outputs"] = tuple(self.number(tensor) for tensor in outputs)
                rest["made"] = tuple(self._value(tensor) for tensor in outputs)
                rest["writes"] = tuple(self.number(tensor) for tensor in written)
                self._append(str(func), call.arguments, call.keywords, **rest)

    # -- what it knows

    def history(self, storage: torch.UntypedStorage) -> StorageHistory | None:
        return self._by_address.get(storage._cdata)

    def number(self, tensor: torch.Tensor) -> int:
        """The number of a tensor's value. One over unknown memory becomes a read of it; another view of known memory, a view."""
        history = self._history(tensor)
        if history.identity == "" and history.first is None:
            return self._read(tensor, UNKNOWN_SOURCE, ())
        key = geometry(history.number, tensor)
        number = self._values.get(key)
        if number is None:
            number = self._new(key)
            if history.first is None:
                history.first = number
            else:
                operands = ({"value": history.first}, list(tensor.shape), list(tensor.stride()), tensor.storage_offset())
                self._append_view("aten.as_strided.default", operands, {}, tensor, number)
        return number

    # -- inside

    def made(self, tensor: torch.Tensor, identity: str) -> None:
        """A storage has this identity from now on; for whoever wants to see its content before it changes again."""

    def _history(self, tensor: torch.Tensor) -> StorageHistory:
        storage = storage_of(tensor)
        assert storage is not None
        known = self._by_address.get(storage._cdata)
        if known is None:
            known = StorageHistory(len(self._by_number), torch.multiprocessing.reductions.StorageWeakRef(storage))
            self._by_address[storage._cdata] = known
            self._by_number.append(known)
        return known

    def _value(self, tensor: torch.Tensor) -> Value:
        storage, dtype, shape, stride, offset = geometry(self._history(tensor).number, tensor)
        size, device = tensor.untyped_storage().nbytes(), str(tensor.device)
        return Value(storage=storage, dtype=dtype, shape=shape, stride=stride, offset=offset, size=size, device=device)

    def _new(self, key: tuple[Any, ...]) -> int:
        self._places.append(key)
        return self._values.setdefault(key, len(self._places) - 1)

    def _append(self, operator: str, arguments: tuple[Any, ...], keywords: dict[str, Any], **rest: Any) -> None:
        number = len(self.records)
        place: dict[str, Any] = {"event": self.event, "call": self.call, "ordinal": number}
        self.records.append(TapeStep(**place, operator=operator, arguments=arguments, keywords=keywords, **rest))

    def _append_view(
        self, operator: str, arguments: tuple[Any, ...], keywords: dict[str, Any], tensor: torch.Tensor, number: int
    ) -> None:
        self._append(operator, arguments, keywords, outputs=(number,), made=(self._value(tensor),), view=True)

    def _read(self, tensor: torch.Tensor, source: Source, operators: tuple[str, ...]) -> int:
        history = self._history(tensor)
        if source.file == UNKNOWN and tensor.dim() == 0 and covers_storage(tensor) and not tensor.is_complex():
            return self._literal(tensor, history)
        digest = self._digest(tensor, source, operators)
        key = geometry(history.number, tensor)
        history.sources, history.operators = (source,), operators
        doubt = DOUBT if source.file == UNKNOWN or self._shares_memory(tensor, history) else ""
        history.identity = doubt + hashed("read", place_of(source.file, self.root), source.key, digest, operators, key[1:])
        number = self._values[key] if key in self._values else self._new(key)
        history.first = number
        self.made(tensor, history.identity)
        self.records.append(
            TapeRead(
                event=self.event,
                call=self.call,
                ordinal=len(self.records),
                value=number,
                made=self._value(tensor),
                file=source.file,
                key=source.key,
                digest=digest,
                identity=history.identity,
                operators=operators,
            )
        )
        return number

    def _literal(self, tensor: torch.Tensor, history: StorageHistory) -> int:
        """A single number that was made a tensor past the dispatcher, as `w[0] = 1` does: a number like any other argument."""
        with _disable_current_modes():
            value = encode(tensor.item(), self.number)
        number = history.first = self._new(geometry(history.number, tensor))
        history.identity = hashed("literal", value, str(tensor.dtype))
        keywords = {"dtype": encode(tensor.dtype, self.number), "device": encode(tensor.device, self.number)}
        made, known = (self._value(tensor),), ((history.number, history.identity),)
        self._append("aten.full.default", ([], value), keywords, outputs=(number,), made=made, identities=known)
        return number

    def _shares_memory(self, tensor: torch.Tensor, history: StorageHistory) -> bool:
        """Whether a read lies in memory that another one has, as parts of one mapped file may. Both are doubtful from then on."""
        storage = storage_of(tensor)
        if storage is None or not storage.nbytes():
            return False
        begin, end = storage.data_ptr(), storage.data_ptr() + storage.nbytes()
        place = bisect.bisect_left(self._memory, begin, key=lambda span: span[0])
        shares = False
        for other_begin, other_end, other in self._memory[max(place - 1, 0) : place + 2]:
            if other_begin < end and begin < other_end and other is not history and not other.pin.expired():
                if not other.identity.startswith(DOUBT):
                    other.identity = DOUBT + other.identity
                    known = ((other.number, other.identity),)
                    self._append("host.shared", ({"value": other.first},), {}, outputs=(), identities=known)
                shares = True
        self._memory.insert(place, (begin, end, history))
        return shares

    def _note_view(self, operator: str, call: Call, outputs: list[torch.Tensor]) -> None:
        inputs = set(values_in([call.arguments, list(call.keywords.values())]))
        for tensor in outputs:
            history = self._history(tensor)
            key = geometry(history.number, tensor)
            if key in self._values or history.first is None or len(outputs) > 1:
                self.number(tensor)  # one of several is made more simply by a single view of the whole
            else:
                number = self._new(key)
                if number not in inputs:
                    self._append_view(operator, call.arguments, call.keywords, tensor, number)

    def _identify(
        self, func: Any, args: tuple[Any, ...], call: Call, outputs: list[torch.Tensor], written: list[torch.Tensor]
    ) -> tuple[tuple[int, str], ...]:
        """Give what the operator made or wrote its identity: a hash of the operator, its arguments, and what they hold."""
        overwritten = args[0] if call.name in OVERWRITES and written and covers_storage(written[0]) else None
        operands = list(call.arguments)
        if overwritten is not None:
            operands[0] = list(geometry(0, overwritten)[1:])
        inputs = [self._by_number[self._places[number][0]] for number in values_in([operands, list(call.keywords.values())])]
        sources = tuple(dict.fromkeys(source for history in inputs for source in history.sources))
        chain = dict.fromkeys(name for history in inputs for name in history.operators)
        operators = tuple(chain) if chain and next(reversed(chain)) == call.name else (*chain, call.name)
        keywords = [[name, show(value, self._content)] for name, value in sorted(call.keywords.items())]
        base = hashed(str(func), [show(value, self._content) for value in operands], keywords, call.draws)
        copied = self._copied(overwritten, args)
        doubt = DOUBT if any(history.identity.startswith(DOUBT) for history in inputs) else ""
        if any(history.identity.startswith(DRAWN) for history in inputs) or (call.draws and not self._seeded):
            doubt = DRAWN
        changed = []
        for place, tensor in enumerate([*written, *(t for t in outputs if not any(t is other for other in written))]):
            history = self._history(tensor)
            history.identity = copied or doubt + hashed(base, place)
            history.sources, history.operators = sources, operators
            self.made(tensor, history.identity)
            changed.append((history.number, history.identity))
        return tuple(changed)

    def _content(self, number: int) -> list[Any]:
        storage, *rest = self._places[number]
        return [self._by_number[storage].identity, *rest]

    def _copied(self, overwritten: torch.Tensor | None, args: tuple[Any, ...]) -> str:
        """The identity of a whole tensor whose content was copied over another of the same kind; empty for anything else."""
        if overwritten is None or len(args) < 2 or not isinstance(args[1], torch.Tensor) or storage_of(args[1]) is None:
            return ""
        alike = geometry(0, overwritten) == geometry(0, args[1]) and covers_storage(args[1])
        return self._history(args[1]).identity if alike else ""

    def _draw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The digest of the generator's state, where the operator draws from the process's own, on the CPU."""
        if torch.Tag.nondeterministic_seeded not in func.tags or kwargs.get("generator") is not None:
            return ""
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if any(tensor.device.type != "cpu" for tensor in tensors) or str(kwargs.get("device") or "cpu") != "cpu":
            return ""
        now = generator_digest()
        self._seeded = self._seeded or now != self._generator
        return now
