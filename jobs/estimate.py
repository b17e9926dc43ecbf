"""What a run will cost, before anything is spent: calls, tokens, dollars, hours, executions.

python -m jobs.estimate --config FILE [--problems FILE...] [--key value ...]

Nothing is called and nothing is written. Where the store holds solutions, completions or verdicts
of the same config, numbers are measured on them; the others are assumptions, printed with their
source, and options. `--key value` sets an option of the config, as in jobs.run.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from jobs.argument_types import not_negative, positive, share
from jobs.estimate_table import show
from jobs.problem_options import add_problem_options, read_statements
from jobs.token_counter import CHARACTERS_PER_TOKEN, token_counter
from pipeline.assumed import UNITS, Records, assumptions
from pipeline.config import (
    OpenAIPolicy,
    PipelineConfig,
    ReplayPolicy,
    ScaleModelProblems,
)
from pipeline.estimate import Estimate, estimate
from pipeline.files import StoreError
from pipeline.plan import InputMissing, Plan, make_plan
from pipeline.problems import BadRows, NoProblems, UnknownForm, read_files
from pipeline.problems.splits import assign_roles, drop_near_duplicates
from pipeline.records import Problem
from pipeline.scale_model.generator import generate_problems
from pipeline.settings import ConfigError, load_config
from pipeline.store import StageStore

_TYPES = {
    "cache_hits": share,
    "stream_tokens_per_s": positive(float),
    "gpu_tokens_per_s": positive(float),
}
"""Of the assumptions that are not just any number from 0 on."""

_MEASURED_PARTS = 50  # parts of the store that are read: enough to know a mean by

EXPECTED = (ConfigError, InputMissing, BadRows, NoProblems, UnknownForm, StoreError, OSError)
"""Errors whose own words say everything."""


def problems_of(
    config: PipelineConfig, chosen: argparse.Namespace
) -> tuple[list[Problem], list[str]]:
    """The problems that the run would have, or those of --problems, and what was left out."""
    if chosen.problems:
        _, reading = read_statements(chosen, chosen.problems)
    elif isinstance(config.problems, ScaleModelProblems):
        return generate_problems(config.problems, config.splits), []
    else:
        skip = config.problems.skip_bad_rows or chosen.skip_bad_rows
        reading = read_files(config.problems.model_copy(update={"skip_bad_rows": skip}))
    return reading.problems, reading.left_out()


def stored_records(plan: Plan) -> Records:
    """Rows that the store holds of this very config, from its first parts."""

    def rows(stage: StageStore[Any]) -> list[Any]:
        return stage.read_all(stage.done()[:_MEASURED_PARTS])

    return Records(rows(plan.solutions), rows(plan.completions), rows(plan.verdicts))


def make_estimate(config: PipelineConfig, chosen: argparse.Namespace) -> tuple[Estimate, list[str]]:
    """The estimate, and notes on what it rests on besides its assumptions.

    Raises ConfigError where no policy can roll out, and what the loaders raise.
    """
    if isinstance(config.rollouts.policy or config.policy, ReplayPolicy):
        raise ConfigError(
            "rollouts.policy: a replay policy cannot complete prefixes; name a vllm or openai "
            "policy"
        )
    problems, notes = problems_of(config, chosen)
    roles = assign_roles(problems, config.splits)
    if not isinstance(config.problems, ScaleModelProblems):  # made from templates: all alike
        roles, dropped = drop_near_duplicates(problems, roles)
        notes += [f"left out: {duplicate}" for duplicate in dropped]
    outside = sum(config.splits.role_of(problem.released_on) is None for problem in problems)
    if outside:
        notes.append(f"left out: {outside:,} problems in no window of `splits`")
    policy, records = config.policy, Records()
    if not chosen.problems:
        plan = make_plan(config)
        policy, records = plan.sampling_policy(), stored_records(plan)
    given = {name: value for name in UNITS if (value := getattr(chosen, name)) is not None}
    assumed = assumptions(config, problems, records, given)
    counter = token_counter(
        policy, chosen.tokenizer, chosen.characters_per_token, records, problems
    )
    notes.append(counter.told)
    result = estimate(config, problems, roles, assumed, counter.count)
    return result, notes + _notes(config, result)


def _notes(config: PipelineConfig, result: Estimate) -> list[str]:
    notes: list[str] = []
    if config.rollouts.early_stop is not None:
        notes.append("rollouts.early_stop is on: the rollouts are an upper bound")
    for policy, usd in _paid(config, result):
        if policy.budget_usd is not None and policy.budget_usd < usd:
            notes.append(
                f"budget_usd is {policy.budget_usd:,.2f} and {usd:,.2f} are wanted of it: the run "
                "would stop before its end"
            )
        cached = policy.price.cached_input
        notes.append(
            f"price of {policy.model} as of {policy.price.as_of}, dollars per million tokens: "
            f"{policy.price.input:g} in, {policy.price.input if cached is None else cached:g} "
            f"cached, {policy.price.output:g} out and reasoning; Batch API x {policy.price.batch:g}"
        )
    return notes


def _paid(config: PipelineConfig, result: Estimate) -> list[tuple[OpenAIPolicy, float]]:
    """Every policy that costs dollars, with those that are spent by the end of its last stage: a
    store has one account, so the rollouts' cap counts what sampling spent."""
    completer = config.rollouts.policy or config.policy
    paid: list[tuple[OpenAIPolicy, float]] = []
    spent = 0.0
    for policy, asked in ((config.policy, result.sampling), (completer, result.rollouts)):
        if isinstance(policy, OpenAIPolicy):
            spent += (asked.batch_usd if policy.batch else asked.usd) or 0.0
            paid = [each for each in paid if each[0] != policy] + [(policy, spent)]
    return paid


def as_json(result: Estimate, notes: Sequence[str]) -> str:
    return json.dumps(dataclasses.asdict(result) | {"notes": list(notes)}, indent=2)


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.estimate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="YAML file; see jobs/configs/")
    parser.add_argument(
        "--problems", nargs="+", metavar="FILE", help="problems to estimate for, instead of the "
        "config's: any form, LiveCodeBench's recorded candidates (eval_all) too, for their "
        "statements; the store is then not looked at"
    )  # fmt: skip
    add_problem_options(parser)
    parser.add_argument(
        "--tokenizer", metavar="NAME", help="count prompt tokens with this one, a folder or a name "
        "in the Hugging Face cache [a vLLM policy's own, if it is here]"
    )  # fmt: skip
    parser.add_argument(
        "--characters-per-token", type=positive(float), metavar="X",
        help=f"else by this ratio [measured on the store, or {CHARACTERS_PER_TOKEN:g}]",
    )  # fmt: skip
    for name, unit in UNITS.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=_TYPES.get(name, not_negative), metavar="X",
            help=f"{unit} [measured on the store, or assumed]",
        )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    chosen, overrides = parser.parse_known_args(arguments)
    filters = (chosen.before, chosen.after, chosen.difficulty, chosen.platform, chosen.format)
    if any(filters) and not chosen.problems:
        parser.error("filters go with --problems FILE; else set the config's: --problems.before …")
    return chosen, overrides


def main(arguments: Sequence[str] | None = None) -> int:
    chosen, overrides = parse(arguments)
    try:
        result, notes = make_estimate(load_config(chosen.config, overrides), chosen)
    except EXPECTED as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    if chosen.json:
        print(as_json(result, notes))
    else:
        show(Console(), result, notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
