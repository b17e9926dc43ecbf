"""How much a PRM can win: pass@1 and oracle@8 of a scale-model policy on validation problems.

`python -m tests.benchmarks.scale_model_policy [--policy DIR] [--problems N] [--json]`

Without `--policy` the policy is trained first, with the default options. Programs are sampled with
transformers at temperature 1 and judged by the process sandbox: on the test problems the demo says
the same, settings are chosen here.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.config import ScaleModelPolicy, ScaleModelProblems, SplitsConfig
from pipeline.records import Problem, Role
from pipeline.scale_model.generator import generate_problems
from pipeline.scale_model.policy import train_policy
from sandbox import Limits, Program, Sandbox, Status

SAMPLES = 8
MAX_TOKENS = 96
PROBLEMS_PER_BATCH = 25

Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--policy", type=Path, help="directory of a trained policy")
    parser.add_argument("--problems", type=int, default=100, help="validation problems")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        figures: Figures = {}
        if options.policy is None:
            options.policy = Path(directory) / "policy"
            figures = train(options.policy)
        figures |= measure(options.policy, options.problems)
    if options.json:
        print(json.dumps(figures))
    else:
        Console().print(figures)


def train(directory: Path) -> Figures:
    """Seconds and last loss (nats/token) of a training with the default options."""
    wall, cpu = time.perf_counter(), time.process_time()
    losses: list[float] = []
    train_policy(
        ScaleModelPolicy(),
        ScaleModelProblems(),
        SplitsConfig(),
        directory,
        lambda _step, _steps, loss: losses.append(loss),
    )
    return {
        "training_wall_s": time.perf_counter() - wall,
        "training_cpu_s": time.process_time() - cpu,
        "training_last_loss": losses[-1],
    }


def measure(policy: Path, count: int) -> Figures:
    problems = validation_problems(count)
    started = time.perf_counter()
    torch.manual_seed(0)
    programs, tokens = sample(policy, problems)
    sampled = time.perf_counter()
    with Sandbox("unsafe-process") as sandbox:
        verdicts = sandbox.judge_all(programs)
    passed = [verdict.status is Status.AC for verdict in verdicts]
    by_problem = [passed[i : i + SAMPLES] for i in range(0, len(passed), SAMPLES)]
    return {
        "problems": len(problems),
        "pass_at_1": sum(passed) / len(passed),
        f"oracle_at_{SAMPLES}": sum(map(any, by_problem)) / len(by_problem),
        "tokens_per_program": tokens / len(programs),
        "sampled_tokens_per_s": tokens / (sampled - started),
        "judged_programs_per_s": len(programs) / (time.perf_counter() - sampled),
    }


def validation_problems(count: int) -> list[Problem]:
    splits = SplitsConfig()
    problems = generate_problems(ScaleModelProblems(validation=count), splits)
    return [p for p in problems if splits.role_of(p.released_on) is Role.VALIDATION]


def sample(policy: Path, problems: Sequence[Problem]) -> tuple[list[Program], int]:
    """`SAMPLES` programs per problem, in the order of the problems, and their number of tokens."""
    model = AutoModelForCausalLM.from_pretrained(policy)
    tokenizer = AutoTokenizer.from_pretrained(policy, padding_side="left")
    programs: list[Program] = []
    tokens = 0
    for start in range(0, len(problems), PROBLEMS_PER_BATCH):
        batch = problems[start : start + PROBLEMS_PER_BATCH]
        prompts = tokenizer.apply_chat_template(
            [[{"role": "user", "content": problem.statement}] for problem in batch],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        answers = model.generate(**prompts, max_new_tokens=MAX_TOKENS, num_return_sequences=SAMPLES)
        answers = answers[:, prompts["input_ids"].shape[1] :]
        tokens += int((answers != tokenizer.pad_token_id).sum())
        for index, code in enumerate(tokenizer.batch_decode(answers, skip_special_tokens=True)):
            problem = batch[index // SAMPLES]
            limits = Limits(cpu_s=problem.time_limit_s)
            programs.append(
                Program(code, problem.tests, limits=limits, comparator=problem.comparator)
            )
    return programs, tokens


if __name__ == "__main__":
    main()
