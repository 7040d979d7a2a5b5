"""Samples of a bench, and a bench of some, as tests make them."""

from typing import Any

from tidalctl.bench import samples


def sample(variant: samples.Variant, ttft: float, cache: samples.Cache = "warm", **changes: Any) -> samples.Sample:
    fields: dict[str, Any] = {
        "variant": variant,
        "cache": cache,
        "ttft_s": ttft,
        "total_s": ttft + 0.5,
        "exit_s": 0.1,
        "phases": {"process start": 0.02, "compute": ttft + 0.48},
        "own_s": 0.05 if variant == "bundle" else None,
        "output_equal": True,
        "resident_before": 1.0,
        "cache_proved": True,
        "strategy": "snapshot" if variant == "bundle" else "plain",
    }
    return samples.Sample(**{**fields, **changes})


def measured(*made: samples.Sample, remarks: tuple[str, ...] = ()) -> samples.Measured:
    return samples.Measured(machine={}, bundle={}, samples=made, remarks=remarks)
