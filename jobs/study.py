"""Every arm over several seeds, to tell a difference from luck; running it again resumes.

python -m jobs.study --config FILE --seeds 5 --out DIR [--arms NAME,...]
    [--learning-rates 3e-4,1e-3] [--key value ...]

A seed is an ordinary run of the store (`jobs.run`) with `policy.seed` and `training.seed` set to
it: it samples anew, rolls out anew and trains every arm, all on the same batches in the same order.
The problems are the same for all seeds, and so is the small policy of a scale model: that of a
finished demo is taken where `--root` has it. A policy without a seed gives all the same samples.

Settings are chosen on the validation problems alone: the aggregator of each arm by every seed, its
learning rate by the first. After each seed the tables are printed and DIR/study.json and
DIR/study.png written; DIR/seed-*/report/ holds every run's own report.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from jobs.argument_types import folder, positive
from jobs.command import carry_out, config_parser
from jobs.run import EXPECTED, STAGES, run
from jobs.submitted import refuse_vanishing
from jobs.terminal import Terminal
from pipeline.config import ArmConfig, Correction, PipelineConfig, ScaleModelProblems, Targets
from pipeline.evaluation.methods import ORACLE, PASS_AT_1
from pipeline.evaluation.results import MethodResult, Selection, to_json
from pipeline.evaluation.study import SeedResult, Study, summarise
from pipeline.evaluation.study_plot import study_plot
from pipeline.evaluation.study_table import study_tables
from pipeline.files import write_atomically
from pipeline.settings import ConfigError, load_config

ARMS = (
    ArmConfig(name="orm", targets=Targets.FINAL),
    ArmConfig(name="prm_soft", targets=Targets.SOFT),
    ArmConfig(name="prm_hard", targets=Targets.HARD),
    ArmConfig(name="prm_proven", targets=Targets.PROVEN),
    ArmConfig(name="prm_crossfit", targets=Targets.CROSSFIT),
    ArmConfig(name="prm_corrected", correction=Correction.LABELS),
    ArmConfig(name="prm_corrector", correction=Correction.CORRECTOR),
    ArmConfig(name="prm_shuffled", correction=Correction.SHUFFLED),
    ArmConfig(name="prm_true", targets=Targets.TRUE),
)
"""Raw labels of every kind, both corrections, their control, and the ceiling."""


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """What is run for every seed. `rates`: the learning rates to choose among."""

    config: PipelineConfig
    arms: tuple[ArmConfig, ...]
    seeds: range
    rates: tuple[float, ...]
    out: Path

    def run_of(self, seed: int, rate: float, arms: Sequence[ArmConfig]) -> PipelineConfig:
        """The config of one run. Raises ConfigError for what cannot be."""
        raw = self.config.model_dump(mode="json")
        raw["name"], raw["output"] = f"seed-{seed}-rate-{rate:g}", str(self.out)
        for policy in (raw["policy"], raw["rollouts"]["policy"]):
            if policy is not None and "seed" in policy:
                policy["seed"] = seed
        raw["training"]["seed"] = seed
        raw["training"]["optimizer"]["learning_rate"] = rate
        raw["training"]["arms"] = [arm.model_dump(mode="json") for arm in arms]
        try:
            return PipelineConfig.model_validate(raw)
        except ValidationError as error:
            reasons = "; ".join(detail["msg"] for detail in error.errors())
            raise ConfigError(f"seed {seed}, learning rate {rate:g}: {reasons}") from None


def study(plan: StudyPlan, terminal: Terminal) -> Study:
    """Run every seed; tables and files after each. Raises what `jobs.run.run` raises."""
    first = plan.seeds[0]
    by_rate = {rate: _run(plan, first, rate, plan.arms, terminal) for rate in plan.rates}
    chosen = {arm.name: best_rate(arm.name, by_rate) for arm in plan.arms}
    results: list[SeedResult] = []
    for seed in plan.seeds:
        runs = (
            by_rate
            if seed == first
            else {
                rate: _run(plan, seed, rate, arms, terminal)
                for rate in plan.rates
                if (arms := [arm for arm in plan.arms if chosen[arm.name] == rate])
            }
        )
        results.append(seed_result(seed, runs, chosen))
        so_far = _summary(plan, chosen, results)
        write_atomically(str(plan.out / "study.json"), to_json(so_far).encode())
        study_plot(so_far).savefig(plan.out / "study.png", dpi=150)
        if seed != plan.seeds[-1]:
            _show(terminal.console, so_far)
    return _summary(plan, chosen, results)


def _summary(plan: StudyPlan, chosen: Mapping[str, float], results: Sequence[SeedResult]) -> Study:
    return summarise(plan.arms, chosen, results, len(plan.seeds), plan.config.evaluation)


def _run(
    plan: StudyPlan, seed: int, rate: float, arms: Sequence[ArmConfig], terminal: Terminal
) -> Selection:
    terminal.console.print(
        f"\n[bold]Seed {seed} ({seed + 1} of {len(plan.seeds)}), learning rate {rate:g}[/bold]: "
        + ", ".join(arm.name for arm in arms)
    )
    selection = run(plan.run_of(seed, rate, arms), STAGES, terminal)
    assert selection is not None  # all stages were asked for
    return selection


def best_rate(arm: str, by_rate: Mapping[float, Selection]) -> float:
    """The learning rate with which an arm, read by its own aggregator, solves most validation
    problems; the first of equals. Raises ConfigError without validation problems to choose on."""
    if len(by_rate) == 1:
        return next(iter(by_rate))
    solved: dict[float, float] = {}
    for rate, selection in by_rate.items():
        choice = selection.method(arm).choice
        if choice is None or not choice.validation_accuracy:
            raise ConfigError(
                "--learning-rates: there are no validation problems to choose on: widen "
                "`splits.validation`, or name one rate"
            )
        # Rounded, so that the order of summation cannot decide between equals.
        solved[rate] = round(choice.validation_accuracy[choice.aggregator], 12)
    return max(solved, key=lambda rate: solved[rate])


def seed_result(
    seed: int, runs: Mapping[float, Selection], chosen: Mapping[str, float]
) -> SeedResult:
    """Every arm from the run with its own learning rate."""
    any_run = next(iter(runs.values()))
    methods: dict[str, MethodResult] = {
        name: any_run.method(name) for name in (PASS_AT_1, ORACLE)
    } | {arm: runs[rate].method(arm) for arm, rate in chosen.items()}
    labels = {
        quality.method: quality
        for rate, selection in runs.items()
        for quality in selection.labels
        if chosen[quality.method] == rate
    }
    return SeedResult(seed, any_run.problem_ids, methods, labels)


def _show(console: Console, result: Study) -> None:
    console.print()
    for table in study_tables(result):
        console.print(table)


def _plan_of(chosen: argparse.Namespace, overrides: Sequence[str]) -> StudyPlan:
    wanted = chosen.arms.split(",") if chosen.arms else [arm.name for arm in ARMS]
    config = load_config(chosen.config, overrides, arms=[a for a in ARMS if a.name in wanted])
    known_truth = isinstance(config.problems, ScaleModelProblems)
    arms = {arm.name: arm for arm in ARMS if known_truth or arm.targets is not Targets.TRUE}
    names = wanted if chosen.arms else list(arms)
    for name in names:
        if name not in arms:
            raise ConfigError(f"--arms: {name!r} is none of {', '.join(arms)}")
    plan = StudyPlan(
        config=config,
        arms=tuple(arms[name] for name in names),
        seeds=range(chosen.seeds),
        rates=tuple(chosen.learning_rates or [config.training.optimizer.learning_rate]),
        out=chosen.out.absolute(),
    )
    plan.run_of(plan.seeds[0], plan.rates[0], plan.arms)  # what cannot be is told at once
    refuse_vanishing(root=config.root, out=chosen.out)
    return plan


def _rates(text: str) -> list[float]:
    return list(dict.fromkeys(positive(float)(word) for word in text.split(",")))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = config_parser("study", __doc__)
    parser.add_argument("--seeds", type=positive(int), default=5, help="seeds 0, 1, ... [5]")
    parser.add_argument("--out", required=True, type=folder, help="folder for tables and reports")
    parser.add_argument(
        "--arms",
        help=f"comma-separated part of {', '.join(arm.name for arm in ARMS)} "
        "[all; prm_true where the truth is known]",
    )
    parser.add_argument(
        "--learning-rates",
        type=_rates,
        help="comma-separated; each arm takes the best on validation [the config's alone]",
    )
    chosen, overrides = parser.parse_known_args(arguments)
    try:
        plan = _plan_of(chosen, overrides)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2

    def show(console: Console, result: Study) -> None:
        _show(console, result)
        for name in ("study.json", "study.png"):
            console.print(str(plan.out / name), soft_wrap=True)

    return carry_out(plan.out / "log.txt", EXPECTED, lambda terminal: study(plan, terminal), show)


if __name__ == "__main__":
    sys.exit(main())
