"""What a trace says about a weight's first use, at the level of one operator."""

import torch

from tidalctl.tracer.handler.first_uses import AccessMode, AccessRecord, ModuleStack


def test_a_view_is_no_use_and_a_conversion_within_inference_mode_is_one() -> None:
    """There, `aten.to` and `aten.contiguous` reach a mode whole, with the schema of views."""
    converted, laid_out, viewed = torch.ones(4), torch.ones(4), torch.ones(4)
    record = AccessRecord(0, {})
    for number, tensor in enumerate((converted, laid_out, viewed)):
        record.weights[tensor.untyped_storage()._cdata] = number
    with torch.inference_mode(), ModuleStack({}) as modules, AccessMode(record, modules):
        converted.to(torch.float64)
        laid_out.expand(3, 4).contiguous()
        viewed.view(2, 2)
        viewed.to(torch.float32)
    assert {number: use.operator for number, use in record.first_uses.items()} == {0: "aten.to", 1: "aten.contiguous"}
