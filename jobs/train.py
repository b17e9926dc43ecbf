"""Train PRMs on Example shards, wherever they come from; running it again resumes.

python -m jobs.train --config FILE --examples DIR|FILE... --out DIR [--training.key value ...]

Of the config only the section `training` counts. The model of an arm is
in DIR/<arm>/model, its labels before and after correction in DIR/<arm>/labels.arrow, its losses in
DIR/<arm>/history.jsonl. DIR may be a URI (s3://bucket/prms), which all nodes reach; the log then
stays on this machine. `python -m jobs.run --stages train` does the same inside a run.
"""

import sys
from collections.abc import Sequence
from contextlib import ExitStack

from rich.console import Console
from rich.table import Table

from jobs.command import absolute, carry_out, config_parser, log_of
from jobs.submitted import refuse_vanishing
from pipeline import flow
from pipeline.cluster import Cluster
from pipeline.config import SCALE_MODEL, PipelineConfig
from pipeline.config.idle import idle_options
from pipeline.files import StoreError
from pipeline.lock import StageLocked, stage_lock
from pipeline.prm.data import TrainingDataError, example_files
from pipeline.prm.results import TrainedPRM
from pipeline.prm.trainer import TrainingFailedError, train_prms
from pipeline.progress import Observer
from pipeline.settings import ConfigError, load_config

EXPECTED = (
    ConfigError, StoreError, TrainingDataError, TrainingFailedError, FloatingPointError,
    flow.StageFailed, StageLocked, OSError,
)  # fmt: skip
"""Errors whose own words say everything."""


def train(
    config: PipelineConfig, examples: Sequence[str], out: str, observer: Observer
) -> dict[str, TrainedPRM]:
    """Every arm of the config, by name. Raises what `train_prms` raises, ConfigError, and
    StageLocked where another driver trains one of them there."""
    training = config.training
    if training.model.base == SCALE_MODEL:
        raise ConfigError(
            f"training.model.base: {SCALE_MODEL!r} is a policy that a run trains for itself; name "
            "a model or a directory: --training.model.base DIR"
        )
    for sentence in idle_options(training):
        observer.note(sentence)
    observer.stage("Training reward models")
    storage = {arm.name: f"{out}/{arm.name}" for arm in training.arms}
    with ExitStack() as stack:
        for directory in storage.values():
            stack.enter_context(stage_lock(directory))
        cluster = stack.enter_context(Cluster(config, observer, root=out))
        cluster.join(flow.training_workers(training))
        stack.enter_context(cluster.telling_of_lacks())
        return train_prms(
            training,
            example_files(examples),
            storage,
            lambda now: observer.progress(flow.training_progress(now)),
        )


def results_table(results: dict[str, TrainedPRM]) -> Table:
    table = Table("arm", "solutions", "too long", "steps", "correction")
    for name, trained in results.items():
        stopped = trained.correction_stopped_at
        table.add_row(
            name,
            f"{trained.trained:,}",
            f"{trained.too_long:,}",
            f"{trained.steps:,}",
            "" if stopped is None else f"stopped at step {stopped}: labels drifted",
        )
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    parser = config_parser("train", __doc__, "training.")
    parser.add_argument(
        "--examples", required=True, nargs="+", help="Example shards, or folders of part-*.arrow"
    )
    parser.add_argument("--out", required=True, help="folder that all nodes share, or URI")
    known, overrides = parser.parse_known_args(arguments)
    try:
        config = load_config(known.config, overrides)
        refuse_vanishing(out=known.out)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    out = absolute(known.out)
    return carry_out(
        log_of(out),
        EXPECTED,
        lambda terminal: train(config, known.examples, out, terminal),
        _show,
    )


def _show(console: Console, results: dict[str, TrainedPRM]) -> None:
    console.print(results_table(results))
    for trained in results.values():
        console.print(trained.model, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
