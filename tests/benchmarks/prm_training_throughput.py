"""Step labels trained per second: one sequence per solution against one per prefix.

`python -m tests.benchmarks.prm_training_throughput [--json] [--repeats N]`

The papers' public code trains on one sequence per prefix, each with one label; here a solution is
one sequence with a label at the end of every step. Both sides make the same gradient of the same
labels (checked): forward, backward and AdamW, float32, one thread, micro-batches of like length and
of at most 2048 padded tokens. They alternate in one process; seconds are medians.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.config import ModelConfig
from pipeline.prm.batches import by_token_budget
from pipeline.prm.encoding import EncodedSolution, collate
from pipeline.prm.flat_parameters import FlatParameters
from pipeline.prm.model import StepScorer, build_scorer
from tests.benchmarks.prm_scoring import encoded_programs, prefixes
from tests.prm.world import make_base

TOKENS = 2048


def gradient(
    scorer: StepScorer,
    flat: FlatParameters,
    solutions: Sequence[EncodedSolution],
    label_of: dict[tuple[str, int], float],
) -> torch.Tensor:
    """Of the mean loss over all steps, left in `flat.gradient`."""
    flat.gradient.zero_()
    for batch in by_token_budget([len(s.token_ids) for s in solutions], TOKENS):
        chunk = [solutions[index] for index in batch]
        labels = [label_of[s.solution_id, end] for s in chunk for end in s.step_positions]
        logits = scorer(collate(chunk))
        loss = binary_cross_entropy_with_logits(logits, torch.tensor(labels), reduction="sum")
        (loss / len(label_of)).backward()
    return flat.gradient


def measure(repeats: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        base = make_base(Path(directory), hidden=256, layers=4, context=1024)
        config = ModelConfig(base=base, max_tokens=1024, lora=None, dtype="float32")
        scorer, _ = build_scorer(config, 0, torch.device("cpu"))
        whole = encoded_programs(base)
    flat = FlatParameters(scorer)
    apart = [prefix for solution in whole for prefix in prefixes(solution)]
    label_of = {
        (solution.solution_id, end): (number % 5) / 4
        for solution in whole
        for number, end in enumerate(solution.step_positions)
    }
    sides = {"per_solution": whole, "per_prefix": apart}
    gradients = {n: gradient(scorer, flat, s, label_of).clone() for n, s in sides.items()}
    one, other = gradients.values()
    optimizer = torch.optim.AdamW([flat.values], lr=1e-5)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, solutions in sides.items():
            started = time.perf_counter()
            gradient(scorer, flat, solutions, label_of)
            optimizer.step()
            seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(each) for name, each in seconds.items()}
    return {
        "labels": len(label_of),
        **{f"{name}_labels_per_s": len(label_of) / median[name] for name in sides},
        "speedup": median["per_prefix"] / median["per_solution"],
        "relative_difference_of_gradients": float((one - other).norm() / one.norm()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each side [5]")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = measure(options.repeats)
    if options.json:
        print(json.dumps(figures))
    else:
        Console().print(figures)


if __name__ == "__main__":
    main()
