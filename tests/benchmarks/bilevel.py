"""One bi-level training step: what does the hypergradient of the labels cost, and how exact is it?

`python -m tests.benchmarks.bilevel [--json] [--repeats N] [--full]`

A Qwen2 of about 25 million parameters with LoRA (`--full`: all weights trained), float32, B = 8
programs of T = 256 tokens and K = 6 steps each, a meta batch as large, SGD so that every side
differentiates the same update. Sides, alternating in one process on one thread, after a warm-up:

    plain      forward, backward, optimizer step on the training batch: no label moves
    ours       that, the meta gradient, and forward passes along it (`pipeline.prm.fitting`): one,
               and every so many steps a second that measures how exact one is
    unrolled   autograd through the optimizer step: the exact hypergradient
    betty      the meta gradient and betty-ml's `darts`: two more forward and backward passes

Seconds are medians; memory is the peak of resident memory above the start of a side's own process;
errors are |found - exact| / |exact|, exact by `unrolled`. betty-ml is installed into a folder that
is thrown away; where it cannot be had, its figures are null. `gpu` holds what
`tests.benchmarks.bilevel_gpu` measures at the papers' size, where there is a GPU.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.func import functional_call
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import Qwen2Config, Qwen2ForTokenClassification

from pipeline.prm.directional_derivative import (
    PRECISION,
    RECHECK,
    Stride,
    directional_derivative,
)
from pipeline.prm.encoding import TokenBatch
from pipeline.prm.flat_parameters import FlatParameters
from pipeline.prm.model import StepScorer
from pipeline.prm.parallel import Ranks
from tests.benchmarks.bilevel_gpu import Shape, gpu_section

B, T, K = 8, 256, 6
RATE = 1e-2  # of the inner SGD step
EVERY = 4  # correction every so many steps


class World:
    """Model, batches and labels; the same for every side."""

    def __init__(self, full: bool) -> None:
        torch.manual_seed(0)
        network: Any = Qwen2ForTokenClassification._from_config(
            Qwen2Config(
                vocab_size=8192, hidden_size=512, intermediate_size=1408, num_hidden_layers=7,
                num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=T,
                num_labels=1, classifier_dropout=0.0,
            ),
            attn_implementation="eager",  # the fused kernels have no second derivative
        )  # fmt: skip
        self.parameters = sum(parameter.numel() for parameter in network.parameters())
        if not full:
            from peft import LoraConfig, TaskType, get_peft_model

            lora = LoraConfig(
                task_type=TaskType.TOKEN_CLS, r=16, lora_alpha=32, target_modules="all-linear",
                exclude_modules=["score"],
            )  # fmt: skip
            network = get_peft_model(network, lora)
            for name, parameter in network.named_parameters():
                if "lora_B" in name:  # as after some training: zero would hide half of the adapters
                    torch.nn.init.normal_(parameter, std=0.02)
        self.scorer = StepScorer(network, torch.float32)
        ends = torch.arange(1, K + 1) * (T // K) - 1
        self.batches = [
            TokenBatch(
                torch.randint(0, 8192, (B, T)),
                torch.arange(B).repeat_interleave(K),
                ends.repeat(B),
            )
            for _ in range(2)
        ]
        self.labels = torch.rand(B * K)
        self.meta_labels = torch.randint(0, 2, (B * K,)).float()
        self.trained = [(n, p) for n, p in self.scorer.named_parameters() if p.requires_grad]

    def loss(self, labels: torch.Tensor, batch: int) -> torch.Tensor:
        return binary_cross_entropy_with_logits(self.scorer(self.batches[batch]), labels)


Side = Callable[[World], Callable[[], torch.Tensor | None]]


def plain(world: World) -> Callable[[], None]:
    flat = FlatParameters(world.scorer)

    def step() -> None:
        flat.gradient.zero_()
        world.loss(world.labels, 0).backward()
        flat.values.data.sub_(RATE * flat.gradient)
        flat.values.data.add_(RATE * flat.gradient)  # every step is the same step

    return step


def ours(world: World, *, checking: bool = False) -> Callable[[], torch.Tensor]:
    flat = FlatParameters(world.scorer)
    strides = [Stride()]

    def step() -> torch.Tensor:
        phi = flat.values.detach().clone()
        flat.gradient.zero_()
        logits = world.scorer(world.batches[0])
        binary_cross_entropy_with_logits(logits, world.labels).backward()
        flat.values.data.sub_(RATE * flat.gradient)
        flat.gradient.zero_()
        world.loss(world.meta_labels, 1).backward()
        v = flat.gradient.clone()

        @torch.no_grad()
        def logits_at(distance: float) -> torch.Tensor:
            flat.assign_along(phi, v, distance)
            return world.scorer(world.batches[0])

        stride = replace(strides[0], age=RECHECK if checking else 0)
        derivative, strides[0] = directional_derivative(
            logits.detach(), logits_at, phi, v, stride, PRECISION[torch.float32], Ranks()
        )  # fmt: skip
        flat.assign(phi)
        return RATE / len(logits) * derivative

    return step


def unrolled(world: World) -> Callable[[], torch.Tensor]:
    weights = {name: parameter.detach() for name, parameter in world.trained}

    def step() -> torch.Tensor:
        labels = world.labels.clone().requires_grad_()
        phi = {name: value.clone().requires_grad_() for name, value in weights.items()}

        def loss(at: dict[str, torch.Tensor], labels: torch.Tensor, batch: int) -> torch.Tensor:
            logits = functional_call(world.scorer, at, (world.batches[batch],))
            return binary_cross_entropy_with_logits(logits, labels)

        gradients = torch.autograd.grad(loss(phi, labels, 0), list(phi.values()), create_graph=True)
        after = {n: p - RATE * g for (n, p), g in zip(phi.items(), gradients, strict=True)}
        return torch.autograd.grad(loss(after, world.meta_labels, 1), labels)[0]

    return step


def betty(world: World) -> Callable[[], torch.Tensor]:
    # Its package imports a logger that is not needed here, hence the one module.
    from betty.hypergradient.darts import darts  # pyright: ignore[reportMissingImports]

    parameters = [parameter for _, parameter in world.trained]

    def step() -> torch.Tensor:
        labels = world.labels.clone().requires_grad_()
        phi = [parameter.detach().clone() for parameter in parameters]
        loss = world.loss(labels, 0)
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.data.sub_(RATE * gradient)
        vector = torch.autograd.grad(world.loss(world.meta_labels, 1), parameters)
        inner = types.SimpleNamespace(
            config=types.SimpleNamespace(darts_alpha=0.01),
            cur_batch=0,
            trainable_parameters=lambda: parameters,
            training_step_exec=lambda batch: world.loss(labels, batch),
        )
        outer = types.SimpleNamespace(trainable_parameters=lambda: [labels])
        (found,) = darts(vector, inner, outer)
        for parameter, value in zip(parameters, phi, strict=True):
            parameter.data.copy_(value)
        return RATE * found

    return step


SIDES: dict[str, Side] = {
    "plain": plain,
    "ours_without_check": ours,
    "ours_with_check": partial(ours, checking=True),
    "unrolled": unrolled,
    "betty": betty,
}


def measure(repeats: int, full: bool, with_betty: bool) -> dict[str, Any]:
    names = [name for name in SIDES if name != "betty" or with_betty]
    worlds = {name: World(full) for name in names}
    steps = {name: SIDES[name](worlds[name]) for name in names}
    found = {name: step() for name, step in steps.items()}  # the warm-up
    found["ours"] = steps["ours_without_check"]()  # knows its distance now
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(each) for name, each in seconds.items()}
    check = (median["ours_with_check"] - median["ours_without_check"]) / RECHECK
    median["ours"] = median["ours_without_check"] + check
    exact = found["unrolled"]
    assert exact is not None
    error = {
        name: float((value - exact).norm() / exact.norm())
        for name, value in found.items()
        if value is not None
    }
    peak = {name: _peak_mb(name, full) for name in names}
    return {
        "parameters": worlds["plain"].parameters,
        "trained_parameters": sum(p.numel() for _, p in worlds["plain"].trained),
        **{f"{name}_s": median.get(name) for name in ("ours", *SIDES)},
        **{f"{name}_error": error.get(name) for name in ("ours", "ours_with_check", "betty")},
        **{f"{name}_peak_mb": peak.get(name) for name in SIDES},
        "ours_over_betty_time": median["ours"] / median["betty"] if with_betty else None,
        "ours_over_betty_error": error["ours"] / error["betty"] if with_betty else None,
        f"ours_every_{EVERY}_over_plain_time": (
            (EVERY - 1) * median["plain"] + median["ours"]
        ) / (EVERY * median["plain"]),
    }  # fmt: skip


def _peak_mb(side: str, full: bool) -> float:
    """Growth of resident memory over two steps, in a process of their own."""
    command = [sys.executable, "-m", "tests.benchmarks.bilevel", "--peak-of", side]
    command += ["--betty-at", *sys.path[:1]] + (["--full"] if full else [])
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _print_peak(side: str, full: bool) -> None:
    step = SIDES[side](World(full))
    before = _high_water_mb()
    step()
    step()
    print(_high_water_mb() - before)


def _high_water_mb() -> float:
    """Peak resident memory of this process. (`ru_maxrss` would be inherited from the parent.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _install_betty(directory: str) -> bool:
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", directory]
    done = subprocess.run([*command, "betty-ml==0.1.1"], capture_output=True, check=False)
    # Importing the package imports all of it; the one algorithm needs two of its modules.
    for name in ("betty/__init__.py", "betty/hypergradient/__init__.py"):
        path = Path(directory, name)
        if path.exists():
            path.write_text("")
    return done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each side [5]")
    parser.add_argument("--full", action="store_true", help="train all weights, not adapters")
    parser.add_argument("--peak-of", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--betty-at", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak_of:
        sys.path.insert(0, options.betty_at)
        _print_peak(options.peak_of, options.full)
        return
    with tempfile.TemporaryDirectory() as directory:
        with_betty = _install_betty(directory)
        sys.path.insert(0, directory)
        figures = measure(options.repeats, options.full, with_betty)
    figures |= gpu_section(Shape(), options.repeats)
    if options.json:
        print(json.dumps(figures))
    else:
        Console().print(figures)


if __name__ == "__main__":
    main()
