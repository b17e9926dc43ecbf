"""Tokens per second of sampling: our stage in Ray Data against vLLM's own offline `LLM.generate`.

`python -m tests.benchmarks.vllm_sampling [--policy DIR] [--problems N] [--rounds N] [--json]`

Ours is the stage as it runs in the pipeline: a Ray Data actor pool of one, parts of 16 problems, 4
of them in flight; an actor reads the problems from the store, asks for 8 samples each and writes
the solutions. vLLM's own gets all prompts of a round at once, already tokenised, in a process of
its own. Both engines have the same options and one thread, and make the same draws (same seeds).

They take turns, a round each, with both engines up and one of them idle. A round of ours begins
when the actor may begin its first part and ends when the last part is in the store. The first round
warms up and is not counted; engine starts are in no round. Without `--policy` a policy of the
demo's architecture is trained for a few steps: what it writes does not matter here.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import ray
from ray.data import ActorPoolStrategy
from rich.console import Console
from rich.table import Table

from pipeline.attempts import Token
from pipeline.config import (
    PipelineConfig,
    PromptStyle,
    SamplingConfig,
    ScaleModelPolicy,
    ScaleModelProblems,
    SplitsConfig,
    VLLMPolicy,
)
from pipeline.plan import Plan, make_plan
from pipeline.policies.vllm import engine_options, sample_seed, set_environment
from pipeline.prompts import solution_prompt
from pipeline.records import Problem
from pipeline.scale_model.generator import generate_problems
from pipeline.scale_model.policy import train_policy
from pipeline.workers import Row, SampleParts, new_row

SAMPLES = 8
PROBLEMS_PER_PART = 16
POLL_S = 0.02
"""Between two looks at the store. One takes up to 0.5 ms: every 2 ms, they took a fifth of a core
from the side that is measured."""

Figures = dict[str, float]


class WaitingSampleParts(SampleParts):
    """Begins a part when its round may begin."""

    def __init__(self, plan: Plan, rounds: str) -> None:
        super().__init__(plan)
        self.rounds = Path(rounds)

    async def __call__(self, row: Row) -> Row:
        while not (self.rounds / str(row["round"])).exists():
            await asyncio.sleep(POLL_S)
        return await super().__call__(row)


def measure(policy: Path, problems: int, rounds: int) -> Figures:
    with tempfile.TemporaryDirectory() as place:
        plan = _plan(place, policy, problems, rounds)
        parts = [
            range(start, start + problems // PROBLEMS_PER_PART)
            for start in range(
                0, (rounds + 1) * problems // PROBLEMS_PER_PART, problems // PROBLEMS_PER_PART
            )
        ]
        gates = Path(place) / "rounds"
        gates.mkdir()
        rates: dict[str, list[float]] = {"ray": [], "offline": []}
        with _offline(plan) as offline, _pipeline(plan, parts, gates):
            for number, of_round in enumerate(parts):
                _send(offline, plan, of_round)
                of_offline = offline.recv()
                started = time.perf_counter()
                (gates / str(number)).touch()
                while not set(of_round) <= set(plan.solutions.done()):
                    time.sleep(POLL_S)
                seconds = time.perf_counter() - started
                solutions = plan.solutions.read_all(of_round)
                tokens = sum(solution.completion_tokens for solution in solutions)
                if number:  # the first warms up, and waits for our engine
                    rates["ray"].append(tokens / seconds)
                    rates["offline"].append(of_offline)
    figures = {f"{name}_tokens_per_s": statistics.median(of) for name, of in rates.items()}
    ratios = [a / b for a, b in zip(rates["ray"], rates["offline"], strict=True)]
    return {
        "samples_per_round": float(problems * SAMPLES),
        **figures,
        "ray_of_offline": statistics.median(ratios),
        "ray_of_offline_min": min(ratios),
        "ray_of_offline_max": max(ratios),
    }


def _plan(place: str, policy: Path, problems: int, rounds: int) -> Plan:
    config = PipelineConfig(
        root=f"{place}/store",
        problems=ScaleModelProblems(train=(rounds + 1) * problems),
        policy=VLLMPolicy(
            model=str(policy), prompt=PromptStyle.BARE, gpus=0, dtype="float32",
            max_tokens=128, max_model_len=256,
        ),
        sampling=SamplingConfig(samples=SAMPLES, problems_per_part=PROBLEMS_PER_PART),
    )  # fmt: skip
    plan = make_plan(config)
    made = generate_problems(ScaleModelProblems(train=(rounds + 1) * problems), SplitsConfig())
    for part in range((rounds + 1) * problems // PROBLEMS_PER_PART):
        plan.problems.write(part, made[part * PROBLEMS_PER_PART : (part + 1) * PROBLEMS_PER_PART])
    return plan


@contextmanager
def _pipeline(plan: Plan, parts: list[range], gates: Path) -> Iterator[None]:
    """Our side, working through the rounds as their gates open."""
    pool = plan.config.sampling.pool
    rows = [
        {"part": part} | new_row(Token("benchmark", number))
        for number, of_round in enumerate(parts)
        for part in of_round
    ]
    ray.init(address="local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        WaitingSampleParts,  # type: ignore[arg-type]
        fn_constructor_args=(plan, str(gates)),
        compute=ActorPoolStrategy(
            min_size=1,
            max_size=1,
            max_tasks_in_flight_per_actor=pool.parts_in_flight,
            max_concurrent_calls_per_actor=pool.parts_in_flight,
        ),
        num_cpus=pool.cpus,
    )
    failed: list[str] = []

    def work() -> None:
        failed.extend(row["error"] for row in dataset.iter_rows() if row["error"])
        if failed:
            os._exit(_told(failed))  # the other side waits for parts that will not come

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
        thread.join()
    finally:
        ray.shutdown()


def _told(failed: list[str]) -> int:
    print(f"{len(failed)} parts could not be sampled: {failed[0]}", flush=True)
    return 1


@contextmanager
def _offline(plan: Plan) -> Iterator[Connection]:
    """vLLM's side: answers a round's prompts with its tokens per second."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_generate_offline, args=(theirs, plan.sampling_policy()))
    process.start()
    assert ours.recv() == "up"
    try:
        yield ours
    finally:
        ours.send(None)
        process.join()


def _send(offline: Connection, plan: Plan, parts: range) -> None:
    problems: list[Problem] = plan.problems.read_all(parts)
    offline.send([(p.problem_id, solution_prompt(p, PromptStyle.BARE).user) for p in problems])


def _generate_offline(connection: Connection, config: VLLMPolicy) -> None:
    set_environment(config)
    from vllm import LLM, SamplingParams, TokensPrompt

    llm = LLM(**engine_options(config))
    tokenizer: Any = llm.get_tokenizer()
    connection.send("up")
    while (asked := connection.recv()) is not None:
        prompts, params = [], []
        for key, user in asked:
            opening = tokenizer.apply_chat_template(
                [{"role": "user", "content": user}], tokenize=False, add_generation_prompt=True
            )
            tokens = tokenizer.encode(opening, add_special_tokens=False)
            for index in range(SAMPLES):
                prompts.append(TokensPrompt(prompt_token_ids=tokens))
                params.append(
                    SamplingParams(
                        temperature=config.temperature,
                        top_p=config.top_p,
                        max_tokens=config.max_tokens,
                        seed=sample_seed(config.seed, key, index),
                    )
                )
        started = time.perf_counter()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - started
        connection.send(sum(len(out.outputs[0].token_ids) for out in outputs) / seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description="Tokens/s of our sampling stage and of vLLM.")
    parser.add_argument("--policy", type=Path, help="directory of a trained policy")
    parser.add_argument("--problems", type=int, default=128, help="per round (default: 128)")
    parser.add_argument("--rounds", type=int, default=5, help="that count (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.problems % PROBLEMS_PER_PART:
        parser.error(f"--problems: must be a multiple of {PROBLEMS_PER_PART}")
    with tempfile.TemporaryDirectory() as directory:
        if options.policy is None:
            options.policy = Path(directory) / "policy"
            short = ScaleModelPolicy(programs=2000, steps=60)
            train_policy(
                short, ScaleModelProblems(), SplitsConfig(), options.policy, lambda *_: None
            )
        figures = measure(options.policy, options.problems, options.rounds)
    if options.json:
        print(json.dumps(figures))
        return
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
