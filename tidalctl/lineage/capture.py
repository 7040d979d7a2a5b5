"""A tape that keeps what some of init's tensors held when they were made, since later steps may write over them."""

from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from tidalctl.artifacts.state.storages import storage_of
from tidalctl.artifacts.trace.tape import DOUBT, DRAWN
from tidalctl.lineage.identity import covers_storage
from tidalctl.lineage.tape import Tape


class CapturingTape(Tape):
    """Keeps a copy of each storage whose identity is in `wanted`."""

    def __init__(self, wanted: set[str], **rest: Any) -> None:
        super().__init__(**rest)
        self.captured: dict[str, torch.Tensor] = {}
        self.addresses: dict[str, int] = {}  # of the storages that were copied
        self._wanted = wanted

    def made(self, tensor: torch.Tensor, identity: str) -> None:
        identity = identity.removeprefix(DRAWN).removeprefix(DOUBT)  # what is wanted of a doubtful one is its content
        if identity in self._wanted and identity not in self.captured:
            storage = storage_of(tensor)
            assert storage is not None
            self.addresses[identity] = storage.data_ptr()
            with _disable_current_modes(), torch.no_grad():
                copy = torch.empty(0, dtype=tensor.dtype, device=storage.device).set_(storage.clone())  # type: ignore[call-overload]
                self.captured[identity] = copy.view(tensor.shape) if covers_storage(tensor) else copy
