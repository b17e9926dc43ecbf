"""The benchmark for GPUs on a CPU, where it measures all but memory and utilisation."""

import dataclasses
import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config import Correction
from pipeline.prm.encoding import collate
from tests.benchmarks import bilevel_gpu
from tests.benchmarks.bilevel_gpu import (
    Shape,
    gpu_section,
    make_fit,
    measure,
    model_flops,
    peak_flops,
)

CPU = torch.device("cpu")
TINY = Shape(
    hidden=64, layers=4, intermediate=160, heads=4, kv_heads=2, vocabulary=300, programs=4,
    micro_batch=2, tokens=48, steps=3, rank=4,
)  # fmt: skip


@pytest.mark.parametrize("gradient_checkpointing", [True, False])
def test_every_figure_is_measured_on_any_device(gradient_checkpointing: bool) -> None:
    shape = dataclasses.replace(TINY, gradient_checkpointing=gradient_checkpointing)
    figures = measure(shape, CPU, repeats=2)
    assert json.loads(json.dumps(figures)) == figures
    assert figures["shape"]["gradient_checkpointing"] is gradient_checkpointing
    assert 0 < figures["trained_parameters"] < figures["parameters"]
    for side in ("plain", "ours"):
        assert figures[f"{side}_tokens_per_s"] * figures[f"{side}_s"] == pytest.approx(4 * 48)
        assert figures[f"{side}_mfu"] is None
        assert figures[f"{side}_peak_mb"] is None
    assert 1 <= figures["passes_along_v"] <= 2
    assert 2 < figures["ours_model_tflops"] / figures["plain_model_tflops"] < 3


def test_the_formula_counts_what_torch_counts() -> None:
    """But for the head, and the gradients that nothing before the first block wants."""
    shape = dataclasses.replace(TINY, layers=12, gradient_checkpointing=False)
    fit = make_fit(shape, CPU, Correction.NONE, repeats=1)
    fit.scorer.classifier.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        fit.scorer(collate(fit.data.solutions)).sum().backward()
    counted = model_flops(shape, fit.scorer, passes_along_v=0)["plain"]
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.03)


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("cpu", None),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_the_peak_is_that_of_the_device_by_its_name(name: str, teraflops: float | None) -> None:
    assert peak_flops(name) == (None if teraflops is None else teraflops * 1e12)


def test_without_a_gpu_the_section_is_null_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    section = gpu_section(TINY, repeats=1)
    assert section["gpu"] is None
    assert "CUDA" in section["gpu_reason"]
    monkeypatch.setattr("sys.argv", ["bilevel_gpu", "--json"])
    bilevel_gpu.main()
    assert json.loads(capsys.readouterr().out) == section
