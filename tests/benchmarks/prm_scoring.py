"""One pass over a program against one forward pass per prefix of it: time, and the same scores.

`python -m tests.benchmarks.prm_scoring [--json] [--repeats N]`

A Qwen2 of about 2.5 million parameters, float32, one thread; programs of K = 6 steps and about 110
tokens. Both sides batch by length; per prefix, every prefix is a sequence of its own, read at its
end, as code that scores one step at a time has to. The sides alternate in one process; seconds are
medians.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from transformers import AutoTokenizer

from pipeline.config import ModelConfig
from pipeline.prm.encoding import EncodedSolution, Encoder
from pipeline.prm.model import build_scorer
from pipeline.prm.scoring import score_encoded
from tests.prm.world import OPERATIONS, make_base, make_example

PROGRAMS, K = 12, 6


def prefixes(solution: EncodedSolution) -> list[EncodedSolution]:
    """Every prefix of a program, as a sequence that is read at its end alone."""
    return [
        EncodedSolution(solution.solution_id, solution.token_ids[: end + 1], (end,), False)
        for end in solution.step_positions
    ]


def encoded_programs(base: str) -> list[EncodedSolution]:
    operations = [
        tuple(OPERATIONS[(program + step * 3) % len(OPERATIONS)] for step in range(K))
        for program in range(PROGRAMS)
    ]
    examples = [make_example(each, each, index=i) for i, each in enumerate(operations)]
    outcomes = Encoder(AutoTokenizer.from_pretrained(base)).encode(examples).outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, EncodedSolution)]


def measure(repeats: int) -> dict[str, float]:
    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory() as directory:
        base = make_base(Path(directory), hidden=256, layers=4, context=1024)
        config = ModelConfig(base=base, max_tokens=1024, lora=None, dtype="float32")
        scorer, _ = build_scorer(config, 0, cpu)
        whole = encoded_programs(base)
    apart = [prefix for solution in whole for prefix in prefixes(solution)]
    sides = {"one_pass": whole, "per_prefix": apart}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    scores: dict[str, list[float]] = {}
    for turn in range(repeats + 1):  # the first is the warm-up
        for name, solutions in sides.items():
            started = time.perf_counter()
            found = score_encoded(scorer, solutions, cpu, tokens_per_batch=4096)
            if turn:
                seconds[name].append(time.perf_counter() - started)
            scores[name] = [score for of_solution in found for score in of_solution]
    median = {name: statistics.median(each) for name, each in seconds.items()}
    apart_by = [abs(a - b) for a, b in zip(*scores.values(), strict=True)]
    return {
        "programs": len(whole),
        "steps": len(apart),
        "tokens": sum(len(solution.token_ids) for solution in whole),
        "one_pass_s": median["one_pass"],
        "per_prefix_s": median["per_prefix"],
        "speedup": median["per_prefix"] / median["one_pass"],
        "largest_difference_of_scores": max(apart_by),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=5, help="timed passes of each side [5]")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = measure(options.repeats)
    if options.json:
        print(json.dumps(figures))
    else:
        Console().print(figures)


if __name__ == "__main__":
    main()
