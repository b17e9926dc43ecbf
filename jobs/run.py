"""Run the pipeline, or some of its stages; running it again resumes.

python -m jobs.run --config FILE [--stages sample,label] [--key value ...]
"""

import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from jobs.command import carry_out, config_parser
from jobs.run_status import StatusError, read_manifest
from jobs.submitted import refuse_vanishing
from pipeline import flow, groundwork, outcome
from pipeline.cluster import Cluster
from pipeline.config import PipelineConfig
from pipeline.config.idle import idle_options
from pipeline.evaluation.evaluate import EvaluationError
from pipeline.evaluation.results import Selection
from pipeline.files import StoreError, is_local, write_atomically
from pipeline.lock import StageLocked, stage_lock
from pipeline.metrics import metered
from pipeline.plan import InputMissing, Plan, make_plan
from pipeline.prm.data import TrainingDataError
from pipeline.prm.trainer import TrainingFailedError
from pipeline.problems import BadRows, NoProblems
from pipeline.progress import Observer
from pipeline.run_folder import LOG, fetch_log, kept, run_folder
from pipeline.settings import ConfigError, dump_config, load_config
from pipeline.store import STORE_FORMAT, StageStore

STAGES = ("problems", "policy", "sample", "label", "train", "evaluate")

EXPECTED = (
    ConfigError,
    InputMissing,
    StoreError,
    StageLocked,
    BadRows,
    NoProblems,
    EvaluationError,
    TrainingDataError,
    TrainingFailedError,
    FloatingPointError,
    flow.StageFailed,
    OSError,
)
"""Errors whose own words say everything; a traceback would hide them."""


def run(
    config: PipelineConfig,
    stages: Sequence[str],
    observer: Observer,
    *,
    retry_quarantined: bool = False,
) -> Selection | None:
    """The story: from problems to a chosen program. Gives the selection where it was evaluated."""
    plan = make_plan(config)
    # The name is held as well as the stages: a second run of it may have other ones, and would say
    # in the manifest that the first has them too.
    named = f"{plan.config.root.rstrip('/')}/runs/{config.name}"
    with stage_lock(named), kept(config), metered(config, observer) as observed:
        return _tell(plan, stages, observed, retry=retry_quarantined)


def _tell(
    plan: Plan, stages: Sequence[str], observer: Observer, *, retry: bool
) -> Selection | None:
    config = plan.config
    write_manifest(plan, stages)
    if "train" in stages:
        for sentence in idle_options(config.training):
            observer.note(sentence)

    observer.stage("Problems")
    roles = groundwork.lay_problems(plan, observer)
    groundwork.check_roles(plan, roles, stages)

    if "policy" in stages and config.scale_model is not None:
        observer.stage("Small policy: a language model trained from scratch")
        groundwork.train_small_policy(plan, observer)

    with Cluster(config, observer) as cluster:
        if "sample" in stages:
            observer.stage("Sampling solutions, executing their unit tests")
            flow.sample(cluster, plan, roles, observer, retry_quarantined=retry)

        if "label" in stages:
            observer.stage("Rolling out every function prefix, executing the rollouts")
            flow.label(cluster, plan, roles, observer, retry_quarantined=retry)

        if {"train", "evaluate"} & set(stages):
            plan = plan.with_examples(roles)
            write_manifest(plan, stages)

        if "train" in stages:
            observer.stage("Training reward models")
            flow.train(cluster, plan, roles, observer)

        if "evaluate" in stages:
            observer.stage("Scoring candidates")
            flow.score(cluster, plan, roles, observer, retry_quarantined=retry)

    selection = None
    if "evaluate" in stages:
        observer.stage("Selecting best-of-N, writing the report")
        selection = outcome.report(plan, roles, observer)
    if {"train", "evaluate"} & set(stages):
        for sentence in outcome.stopped_corrections(plan):
            observer.note(sentence)
    return selection


def write_manifest(plan: Plan, chosen: Sequence[str]) -> None:
    """What this run is made of: resolved config, versions, every stage's fingerprint, and which of
    them it was asked to make."""
    config = plan.config
    plan = dataclasses.replace(plan, trained_on=plan.trained_on or _trained_on_before(plan))
    stages: list[StageStore[Any]] = [
        plan.problems,
        plan.solutions,
        plan.verdicts,
        *(stage for wave in plan.waves for stage in wave.stages),
    ]
    stages += [plan.truths] if plan.truths else []
    stages.append(plan.examples)
    manifest = {
        "format": STORE_FORMAT,
        "git_commit": _git_commit(),
        "versions": outcome.versions(),
        "chosen_stages": list(chosen),
        "trained_on": plan.trained_on,
        "stages": {
            "policy": plan.policy_directory if config.scale_model else None,
            **{stage.name: stage.directory for stage in stages},  # in the order of the story
            # These depend on what the examples hold, so they are not known before.
            "prm": {
                arm.name: plan.prm_directory(arm) for arm in config.training.arms if plan.trained_on
            },
            "scores": {
                arm.name: plan.scores(arm).directory
                for arm in config.training.arms
                if plan.trained_on
            },
        },
        "config": yaml.safe_load(dump_config(config)),
    }
    text = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True).encode()
    write_atomically(f"{config.root.rstrip('/')}/runs/{config.name}.yaml", text)
    write_atomically(str(run_folder(config) / "config.yaml"), dump_config(config).encode())


def _trained_on_before(plan: Plan) -> str:
    """What the PRMs of this name's last run were trained on, if its examples are those of `plan`:
    a run of the first stages alone does not forget the last ones."""
    try:
        before = read_manifest(plan.config.root, plan.config.name)
    except StatusError:
        return ""
    examples = str(before["stages"].get("examples")).rpartition("/")[2]
    return before.get("trained_on", "") if examples == plan.examples.fingerprint else ""


def _git_commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, or no checkout


def execute(
    config: PipelineConfig, stages: Sequence[str], *, retry_quarantined: bool = False
) -> int:
    """Run with a terminal; the exit code."""
    directory = run_folder(config).absolute()
    with suppress(StoreError, OSError):  # a store that cannot be read is told by the run itself
        fetch_log(config)

    def show(console: Console, selection: Selection | None) -> None:
        if selection is not None:
            console.print()
            for table in outcome.result_tables(config, selection):
                console.print(table)
            console.print(f"report: {directory / 'report' / 'report.html'}", soft_wrap=True)
        root = Path(config.root).absolute() if is_local(config.root) else config.root
        console.print(f"stages: {root}   config: {directory / 'config.yaml'}", soft_wrap=True)

    return carry_out(
        directory / LOG,
        EXPECTED,
        lambda terminal: run(config, stages, terminal, retry_quarantined=retry_quarantined),
        show,
    )


def parse_stages(text: str) -> tuple[str, ...]:
    chosen = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in chosen:
        if name not in STAGES:
            raise ConfigError(f"--stages: {name!r} is unknown; stages are {', '.join(STAGES)}")
    if not chosen:
        raise ConfigError(f"--stages: names none; stages are {', '.join(STAGES)}")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    parser = config_parser("run", __doc__)
    parser.add_argument(
        "--stages", default=",".join(STAGES), help="comma-separated part of them [all]"
    )
    parser.add_argument(
        "--retry-quarantined",
        action="store_true",
        help="try problems again that broke their worker every time; jobs.status names them",
    )
    known, overrides = parser.parse_known_args(arguments)
    try:
        config = load_config(known.config, overrides)
        refuse_vanishing(root=config.root)
        if is_local(config.root):  # else the report is copied there
            refuse_vanishing(output=config.output)
        return execute(
            config,
            parse_stages(known.stages),
            retry_quarantined=known.retry_quarantined,
        )
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
