"""A bi-level training step of the papers' size on a GPU: how fast, and in how much memory?

`python -m tests.benchmarks.bilevel_gpu [--json] [--repeats N] [--no-gradient-checkpointing]`

Qwen2.5-Coder-3B's shape with random weights in bfloat16, LoRA in float32, a batch of 8 programs of
2048 tokens and 6 steps, a meta batch as large, AdamW: the steps of `pipeline.prm.fitting.Fit`, with
no label corrected (`plain`) and with the labels corrected at every step (`ours`). Each side is run
alone; seconds are means, memory is the peak of `torch.cuda.max_memory_allocated` over its timed
steps, weights included.

Model FLOPs are those of the matrix products, with N frozen weights in them, A adapter weights, L
layers of width h and sequences of S tokens, by the token:

    forward    2 (N + A) + 4 L S h         attention is counted whole, not its causal half
    backward   2 N + 4 A + 8 L S h         a frozen weight needs no gradient of its own
    plain      forward + backward
    ours       plain, the same again on the meta batch, and the forward passes along v: one or two,
               see `pipeline.prm.directional_derivative`; `passes_along_v` is their mean

What gradient checkpointing computes again does not count. Utilisation (MFU) is model FLOPs per
second over the device's dense bfloat16 peak, which is assumed by its name (`PEAKS`, from NVIDIA's
data sheets) and null for a device that is not in that table.
"""

import argparse
import dataclasses
import gc
import json
import re
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from transformers import Qwen2Config, Qwen2ForTokenClassification

from pipeline.config import ArmConfig, Correction, TrainingConfig
from pipeline.prm.directional_derivative import RECHECK
from pipeline.prm.encoding import EncodedSolution, read_at_end
from pipeline.prm.fitting import Fit
from pipeline.prm.flat_parameters import FlatParameters
from pipeline.prm.label_table import initial_labels
from pipeline.prm.model import StepScorer, made_trainable
from pipeline.prm.optimizer import ADAM_SETTLES
from pipeline.prm.parallel import Ranks
from pipeline.prm.passes import Share, Steps
from pipeline.prm.training_set import TrainingSet
from pipeline.records import Example, Role

EVERY = 4  # correction every so many steps
WARM_UP = ADAM_SETTLES + 2
"""Steps before the first that is timed: nothing is corrected in the first few, and the first
correction of all looks for its distance."""

PEAKS = {
    "B200": 2250e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
}
"""Dense bfloat16 FLOP/s by what a device's name holds; the first that fits counts."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A model and its batches."""

    hidden: int = 2048
    layers: int = 36
    intermediate: int = 11008
    heads: int = 16
    kv_heads: int = 2
    vocabulary: int = 151936
    programs: int = 8
    micro_batch: int = 4
    tokens: int = 2048  # of a program
    steps: int = 6  # of a program
    rank: int = 16
    gradient_checkpointing: bool = True


def peak_flops(device_name: str) -> float | None:
    """Dense bfloat16 FLOP/s; None for a device that is not known."""
    fitting = (peak for name, peak in PEAKS.items() if re.search(rf"\b{name}\b", device_name))
    return next(fitting, None)


def measure(shape: Shape, device: torch.device, repeats: int) -> dict[str, Any]:
    """All figures on one device; on a CPU, memory and utilisation are null."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    peak = peak_flops(name)
    figures: dict[str, Any] = {
        "device": name,
        "torch": torch.__version__,
        "shape": dataclasses.asdict(shape),
        "tokens_per_step": shape.programs * shape.tokens,
        "peak_flops_assumed": peak,
    }
    for side, correction in (("plain", Correction.NONE), ("ours", Correction.LABELS)):
        fit = make_fit(shape, device, correction, repeats)
        counted = sum(parameter.numel() for parameter in fit.scorer.parameters())
        figures |= {"parameters": counted, "trained_parameters": len(fit.flat.values)}
        seconds, passes, peak_mb = _timed(fit, device, repeats)
        flops = model_flops(shape, fit.scorer, passes)[side]
        figures |= {
            "passes_along_v": passes,
            f"{side}_s": seconds,
            f"{side}_tokens_per_s": shape.programs * shape.tokens / seconds,
            f"{side}_model_tflops": flops / 1e12,
            f"{side}_mfu": flops / seconds / peak if peak else None,
            f"{side}_peak_mb": peak_mb,
        }
        del fit
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    plain, ours = figures["plain_s"], figures["ours_s"]
    return figures | {
        "ours_over_plain_time": ours / plain,
        f"ours_every_{EVERY}_over_plain_time": ((EVERY - 1) * plain + ours) / (EVERY * plain),
    }


def make_fit(shape: Shape, device: torch.device, correction: Correction, repeats: int) -> Fit:
    """A training on random programs, one batch to the epoch, that ends after the last timed step:
    what is left behind at the end is not measured."""
    config = TrainingConfig.model_validate(
        {
            "model": {
                "base": "random", "lora": {"rank": shape.rank}, "dtype": "bfloat16",
                "gradient_checkpointing": shape.gradient_checkpointing,
            },
            # Labels stay near where they start, so that no step is unlike the others.
            "correction": {
                "every": 1, "warmup": 0.0, "meta_batch": shape.programs, "label_rate": 0.01,
            },
            "batch_size": shape.programs,
            "micro_batch_size": shape.micro_batch,
            "epochs": WARM_UP + repeats + 1,
        }
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        network: Any = Qwen2ForTokenClassification._from_config(
            Qwen2Config(
                vocab_size=shape.vocabulary, hidden_size=shape.hidden,
                intermediate_size=shape.intermediate, num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
                max_position_embeddings=shape.tokens, num_labels=1, classifier_dropout=0.0,
            ),
            dtype=torch.bfloat16,
            attn_implementation=config.model.attention,
        )  # fmt: skip
    scorer = made_trainable(network, config.model).to(device)
    data = _random_programs(shape)
    arm = ArmConfig(name="measured", correction=correction)
    labels = [initial_labels(example, arm.targets) for example in data.examples]
    ranks = Ranks(device=device)
    return Fit(config, arm, data, labels, scorer, FlatParameters(scorer, ranks), ranks, "measured")


def model_flops(shape: Shape, scorer: StepScorer, passes_along_v: float) -> dict[str, float]:
    """Of one step of each side, by the formula above."""
    matrices = [(n, p) for n, p in scorer.named_parameters() if p.ndim == 2]
    frozen = sum(p.numel() for n, p in matrices if not p.requires_grad and "embed_tokens" not in n)
    adapters = sum(p.numel() for n, p in matrices if "lora_" in n)
    attention = shape.layers * shape.tokens * shape.hidden
    tokens = shape.programs * shape.tokens
    forward = tokens * (2.0 * (frozen + adapters) + 4.0 * attention)
    backward = tokens * (2.0 * frozen + 4.0 * adapters + 8.0 * attention)
    plain = forward + backward
    return {"plain": plain, "ours": 2 * plain + passes_along_v * forward}


def _random_programs(shape: Shape) -> TrainingSet:
    """As many for training as for the meta set; half of the rollouts of every step passed."""
    ids = torch.randint(0, shape.vocabulary, (2 * shape.programs, shape.tokens))
    ends = tuple((torch.arange(1, shape.steps + 1) * (shape.tokens // shape.steps) - 1).tolist())
    solutions = [
        EncodedSolution(f"program-{index}", tuple(row), ends, False)
        for index, row in enumerate(ids.tolist())
    ]
    examples = [
        Example(
            solution_id=solution.solution_id, problem_id=solution.solution_id, role=Role.TRAIN,
            difficulty="", problem="", code="", step_ends=ends,
            step_ids=tuple(f"{solution.solution_id}-{step}" for step in range(shape.steps)),
            passed=(2,) * shape.steps, trials=(4,) * shape.steps, step_truth=None,
            final_label=bool(index % 2),
        )
        for index, solution in enumerate(solutions)
    ]  # fmt: skip
    train, meta = slice(shape.programs), slice(shape.programs, None)
    return TrainingSet(
        tuple(examples[train]),
        tuple(solutions[train]),
        tuple(read_at_end(solution) for solution in solutions[meta]),
        tuple(float(example.final_label) for example in examples[meta]),
        too_long=0,
    )


def _timed(fit: Fit, device: torch.device, repeats: int) -> tuple[float, float, float | None]:
    """Of a step: mean seconds, mean number of passes along v; and the peak of allocated memory in
    MB (2^20 bytes)."""
    on_gpu = device.type == "cuda"
    logits, passes = fit.passes.logits, 0

    def counting(share: Share) -> Steps:
        nonlocal passes
        passes += 1
        return logits(share)

    fit.passes.logits = counting
    running = fit.run(lambda state: None)
    for _ in range(WARM_UP):
        next(running)
    passes = 0
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    seconds: list[float] = []
    for _ in range(repeats):
        started = time.perf_counter()
        report = next(running)
        if on_gpu:
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
        corrects = fit.arm.correction is not Correction.NONE
        assert (report.row.meta_loss is not None) is corrects, "the other side's step was timed"
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else None
    return statistics.mean(seconds), passes / repeats, peak


def gpu_section(shape: Shape, repeats: int) -> dict[str, Any]:
    """`gpu`: the figures of the first GPU; null, with a `gpu_reason`, where there are none."""
    if not torch.cuda.is_available():
        why = "no CUDA device is visible" if torch.version.cuda else "this torch has no CUDA"
        return {"gpu": None, "gpu_reason": why}
    try:
        return {"gpu": measure(shape, torch.device("cuda", 0), repeats)}
    except torch.cuda.OutOfMemoryError as error:
        return {"gpu": None, "gpu_reason": f"too little memory: {error}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=RECHECK, help="timed steps of each side [8]")
    parser.add_argument(
        "--gradient-checkpointing", action=argparse.BooleanOptionalAction, default=True
    )
    options = parser.parse_args()
    shape = Shape(gradient_checkpointing=options.gradient_checkpointing)
    figures = gpu_section(shape, options.repeats)
    if options.json:
        print(json.dumps(figures))
    else:
        Console().print(figures)


if __name__ == "__main__":
    main()
