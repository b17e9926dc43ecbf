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
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from jobs.argument_types import not_negative, positive, share
from jobs.problem_options import add_problem_options, read_statements
from pipeline.assumed import UNITS, Records, assumptions
from pipeline.config import (
    OpenAIPolicy,
    PipelineConfig,
    PolicyConfig,
    ReplayPolicy,
    ScaleModelProblems,
    VLLMPolicy,
)
from pipeline.estimate import Asked, CountTokens, Estimate, estimate
from pipeline.files import StoreError
from pipeline.plan import InputMissing, Plan, make_plan
from pipeline.problems import BadRows, NoProblems, UnknownForm, read_files
from pipeline.problems.splits import assign_roles, drop_near_duplicates
from pipeline.prompts import solution_prompt
from pipeline.records import Problem
from pipeline.scale_model.generator import generate_problems
from pipeline.settings import ConfigError, load_config
from pipeline.store import StageStore

CHARACTERS_PER_TOKEN = 4.0
"""OpenAI's rule of thumb for English; formulas and code have fewer."""

_TYPES = {
    "cache_hits": share,
    "stream_tokens_per_s": positive(float),
    "gpu_tokens_per_s": positive(float),
}
"""Of the assumptions that are not just any number from 0 on."""

_MEASURED_PARTS = 50  # parts of the store that are read: enough to know a mean by

EXPECTED = (ConfigError, InputMissing, BadRows, NoProblems, UnknownForm, StoreError, OSError)
"""Errors whose own words say everything."""


@dataclass(frozen=True, slots=True)
class Counter:
    """How tokens of prompts are counted, and in words for a person."""

    count: CountTokens
    told: str


def token_counter(
    policy: PolicyConfig,
    named: str | None,
    ratio: float | None,
    records: Records,
    problems: Sequence[Problem],
) -> Counter:
    """By the named tokenizer, else by the ratio given, else by a vLLM policy's own tokenizer where
    no download is needed, else by a ratio measured on solutions of the store, or assumed.

    Raises ConfigError for a named tokenizer that is not here.
    """
    if named is not None:
        counter = _tokenizer(named)
        if counter is None:
            raise ConfigError(
                f"--tokenizer: {named!r} is neither a folder with a tokenizer nor in the local "
                "cache of the Hugging Face hub"
            )
        return counter
    if ratio is not None:
        return _by_ratio(ratio, "--characters-per-token")
    if isinstance(policy, VLLMPolicy) and (counter := _tokenizer(policy.model)):
        return counter
    by_id = {problem.problem_id: problem for problem in problems}
    known = [s for s in records.solutions if s.prompt_tokens and s.problem_id in by_id]
    if not known:
        return _by_ratio(CHARACTERS_PER_TOKEN, "assumed; --tokenizer counts them")
    prompts = [solution_prompt(by_id[s.problem_id], policy.prompt) for s in known]
    characters = sum(len(prompt.system + prompt.user) for prompt in prompts)
    measured = characters / sum(solution.prompt_tokens for solution in known)
    return _by_ratio(measured, f"measured on {len(known):,} solutions of the store")


def _by_ratio(ratio: float, source: str) -> Counter:
    told = f"prompt tokens: {ratio:.3g} characters each ({source})"
    return Counter(lambda text: len(text) / ratio, told)


def _tokenizer(name: str) -> Counter | None:
    from transformers import AutoTokenizer  # slow to import, and seldom wanted

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError):
        return None
    return Counter(
        lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]),
        f"prompt tokens: counted with the tokenizer {name}",
    )


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


def show(console: Console, result: Estimate, notes: Sequence[str]) -> None:
    stages = (result.sampling, result.rollouts)
    table = Table(title="What it will cost", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for asked in stages:
        table.add_column(f"{asked.stage}\n{asked.policy.rsplit('/', 1)[-1]}", justify="right")
    table.add_column("both", justify="right")
    for name, read in (
        ("calls", lambda a: a.calls),
        ("tokens in", lambda a: a.tokens.prompt),
        ("  of them cached", lambda a: a.tokens.cached),
        ("tokens out", lambda a: a.tokens.answer),
        ("tokens of reasoning", lambda a: a.tokens.reasoning),
    ):
        values = [read(asked) for asked in stages]
        table.add_row(name, *(f"{round(value):,}" for value in (*values, sum(values))))
    table.add_section()
    _add(table, "dollars", stages, lambda a: a.usd, "${:,.2f}")
    _add(table, "  by the Batch API", stages, lambda a: a.batch_usd, "${:,.2f}")
    _add(table, "  if every answer is longest", stages, lambda a: a.worst_usd, "${:,.2f}")
    _add(table, "hours", stages, lambda a: a.hours, "{:,.1f}")
    _add(table, "  by the Batch API *", stages, lambda a: a.batch_hours, "{:,.0f}")
    _add(table, "GPU-hours", stages, lambda a: a.gpu_hours, "{:,.1f}")
    table.add_section()
    run = result.executed
    table.add_row(
        "programs executed", *(f"{n:,.0f}" for n in (run.solutions, run.rollouts, run.programs))
    )
    table.add_row("core-hours, at most", "", "", f"{run.core_hours:,.1f}")
    table.add_row("hours in all slots, at most", "", "", f"{run.hours:,.1f}")
    table.add_section()
    kept = result.footprint
    table.add_row("parts", "", "", f"{kept.parts:,}")
    table.add_row("shards, at most", "", "", f"{kept.shard_bytes / 1e9:,.1f} GB")
    table.add_row("driver's memory for them", "", "", f"{kept.driver_bytes / 1e6:,.1f} MB")
    console.print(table)
    if any(asked.batch_hours for asked in stages):
        console.print(
            "* if every batch is answered within its day: requests that expire, or that find the "
            "queue full, take another",
            highlight=False,
            soft_wrap=True,
        )
    roles = ", ".join(f"{count:,} {role}" for role, count in result.problems_by_role.items())
    console.print(f"problems: {roles}", highlight=False)
    assumed = Table(title="It rests on", title_justify="left", box=box.SIMPLE_HEAD)
    assumed.add_column("", justify="right")
    assumed.add_column("")
    assumed.add_column("source")
    for name in _relevant(result):
        each = getattr(result.assumptions, name)
        assumed.add_row(f"{each.value:,.6g}", each.unit, each.source)
    console.print(assumed)
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def _relevant(result: Estimate) -> list[str]:
    """The assumptions that this estimate rests on, by name."""
    stages = (result.sampling, result.rollouts)
    of_an_api = {"reasoning_tokens", "rollout_reasoning_tokens", "cache_hits"}
    unused = {"gpu_tokens_per_s"} if all(a.usd is not None for a in stages) else set()
    if all(asked.usd is None for asked in stages):
        unused |= of_an_api | {"stream_tokens_per_s"}
    fields = dataclasses.fields(result.assumptions)
    return [field.name for field in fields if field.name not in unused]


def _add(table: Table, name: str, stages: Sequence[Asked], read: Any, form: str) -> None:
    values = [read(asked) for asked in stages]
    known = [value for value in values if value is not None]
    if known:
        shown = ("" if value is None else form.format(value) for value in (*values, sum(known)))
        table.add_row(name, *shown)


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
