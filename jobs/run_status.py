"""How far a run is, read from the files of its store alone: its manifest, the parts' footers, locks
and accounts."""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline import schemas
from pipeline.config import PipelineConfig
from pipeline.files import exists, listing, read_bytes
from pipeline.lock import Holder, read_holder
from pipeline.part_file import Quarantined, Tally
from pipeline.plan import InputMissing, Plan, make_plan
from pipeline.policies.ledger import Ledger
from pipeline.prm.results import read_pace
from pipeline.records import Role
from pipeline.schemas import RecordSchema
from pipeline.store import STORE_FORMAT, StageStore
from pipeline.survey import Survey

RATE_PARTS = 20
"""A rate is that of so many parts, the newest: a part may take a second or an hour."""

_SCHEMAS: dict[str, RecordSchema[Any]] = {
    "problems": schemas.PROBLEM,
    "solutions": schemas.SOLUTION,
    "verdicts": schemas.PROGRAM_VERDICT,
    "completions": schemas.COMPLETION,
    "rollouts": schemas.ROLLOUT,
    "truths": schemas.STEP_TRUTH,
    "examples": schemas.EXAMPLE,
    "scores": schemas.SCORED_SOLUTION,
}
_LABELLED = ("completions", "rollouts", "truths")
"""Stages that are made for the roles that are labelled step by step alone."""

_CHOSEN_BY = {"solutions": "sample", "verdicts": "sample"}
"""What `jobs.run --stages` calls the making of a stage, where that is not `label`."""


class StatusError(Exception):
    """There is no such run, or this version cannot read it."""


@dataclass(frozen=True, slots=True)
class StageStatus:
    """One line. Rates and the time left are None where nobody is at work, or no part tells them
    yet."""

    stage: str
    done: int  # parts
    total: int
    rows: int
    rows_per_s: float | None = None
    seconds_left: float | None = None
    outcomes: dict[str, int] = dataclasses.field(default_factory=dict[str, int])
    """Verdicts by status; `rejected`: completions that keep no program, and were not executed."""
    tokens: int = 0
    dollars: float = 0.0
    """What the answers in its rows cost: one that several rows share counts in each, and one that
    came to no row in none. What was paid is `RunStatus.dollars_spent`."""
    quarantined: tuple[Quarantined, ...] = ()
    working: str | None = None
    """The driver at work: host and pid."""
    steps: int = 0
    total_steps: int = 0
    """Of a training: optimizer steps at its last checkpoint, and all."""
    chosen: bool = True
    """Whether this run was asked for it (`jobs.run --stages`)."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    name: str
    root: str
    stages: tuple[StageStatus, ...]
    dollars_spent: float
    """By all runs of this store: they share their paid answers."""
    dollars_cap: float | None
    driver: str | None = None
    """Who runs it now: host and pid."""

    @property
    def working(self) -> tuple[str, ...]:
        """Every driver at work on it."""
        known = {self.driver, *(stage.working for stage in self.stages)}
        return tuple(sorted(who for who in known if who))

    @property
    def complete(self) -> bool:
        """Whether all is there that this run was asked for."""
        return all(stage.done == stage.total for stage in self.stages if stage.chosen)


def read_manifest(root: str, name: str) -> dict[str, Any]:
    """What `jobs.run` wrote when it started. Raises StatusError."""
    folder = f"{root.rstrip('/')}/runs"
    path = f"{folder}/{name}.yaml"
    data = read_bytes(path)
    if data is None:
        known = sorted(
            file.removesuffix(".yaml") for file in listing(folder) if file.endswith(".yaml")
        )
        there = f"--name is one of {', '.join(known)}" if known else "this --root has none yet"
        raise StatusError(f"{path}: no such run; {there}")
    try:
        manifest = yaml.safe_load(data)
        manifest["format"], manifest["config"], manifest["stages"]  # pyright: ignore
    except (yaml.YAMLError, TypeError, KeyError) as error:
        raise StatusError(
            f"{path}: is no manifest of a run ({error}); jobs.run writes it again when it starts"
        ) from error
    if manifest.get("format") != STORE_FORMAT:
        raise StatusError(
            f"{path}: written in store format {manifest.get('format')}, but this version reads "
            f"format {STORE_FORMAT}: run it again under another --root"
        )
    return manifest


def read_plan(root: str, name: str) -> Plan:
    """The plan of a run from its manifest, as this version would make it. Raises StatusError."""
    manifest = read_manifest(root, name)
    try:
        return make_plan(PipelineConfig.model_validate(manifest["config"] | {"root": root}))
    except (ValueError, InputMissing) as error:
        raise StatusError(f"run {name}: cannot be read by this version: {error}") from error


def run_status(root: str, name: str) -> RunStatus:
    """Where a run stands. Stages are found by the fingerprints in its manifest, so that a run of
    another version of this code is told as it was. Raises StatusError, StoreError."""
    manifest = read_manifest(root, name)
    return RunStatus(
        name,
        root,
        tuple(_stage_statuses(root, manifest)),
        _dollars_spent(root),
        _dollars_cap(manifest["config"]),
        _working(_holder(f"{root.rstrip('/')}/runs/{name}")),
    )


def _stage_statuses(root: str, manifest: dict[str, Any]) -> Iterator[StageStatus]:
    """Every stage in the order of the story."""
    directories = dict(manifest["stages"])
    policy = directories.pop("policy", None)
    trained = directories.pop("prm", {})
    scored = directories.pop("scores", {})
    chosen = manifest.get("chosen_stages")  # None: all

    def is_chosen(stage: str) -> bool:
        return chosen is None or stage in chosen

    problems = _stage(root, "problems", directories["problems"])
    note = problems.note()
    if note is None:
        yield StageStatus("problems", 0, 1, 0, working=_working(_holder(problems.directory)))
        return
    roles = [Role(role) for role in note["shaped_by"]["roles"]]
    labelled = [Role(role) for role in manifest["config"]["rollouts"]["roles"]]
    yield _status("problems", problems, range(len(roles)))
    del directories["problems"]
    if policy is not None:
        yield _policy(root, policy, is_chosen("policy"))
    for name, directory in directories.items():
        if directory is None:
            continue
        kind = name.partition("-")[0]
        parts = [p for p, role in enumerate(roles) if role in labelled or kind not in _LABELLED]
        by = _CHOSEN_BY.get(kind, "label")
        yield _status(name, _stage(root, name, directory), parts, is_chosen(by))
    held_out = [p for p, role in enumerate(roles) if role in (Role.VALIDATION, Role.TEST)]
    for arm in [each["name"] for each in manifest["config"]["training"]["arms"]]:
        training, scores = f"training {arm}", f"scores of {arm}"
        if arm in trained:
            yield _training(training, root, trained[arm], is_chosen("train"))
            stage = _stage(root, "scores", scored[arm])
            yield _status(scores, stage, held_out, is_chosen("evaluate"))
            continue
        # Where they will be is known when the examples are there; that they are to come is now.
        if is_chosen("train"):
            yield StageStatus(training, 0, 1, 0)
        if is_chosen("evaluate"):
            yield StageStatus(scores, 0, len(held_out), 0)


def _policy(root: str, directory: str, chosen: bool) -> StageStatus:
    """The small policy; all those of a store share one lock."""
    folder = f"{root.rstrip('/')}/policy"
    done = exists(f"{folder}/{_fingerprint(directory)}/model.safetensors")
    working = None if done else _working(_holder(folder))
    return StageStatus("policy", int(done), 1, 0, working=working, chosen=chosen)


def _training(name: str, root: str, directory: str, chosen: bool) -> StageStatus:
    directory = f"{root.rstrip('/')}/prm/{_fingerprint(directory)}"
    done = exists(f"{directory}/done.json")
    holder = _holder(directory)
    pace = read_pace(directory)
    return StageStatus(
        name,
        int(done),
        1,
        0,
        seconds_left=pace.seconds_left if pace and holder and not done else None,
        working=_working(holder),
        steps=pace.step if pace else 0,
        total_steps=pace.total if pace else 0,
        chosen=chosen,
    )


def _stage(root: str, name: str, directory: str) -> StageStore[Any]:
    """A stage by the fingerprint in the manifest; the store may have been moved since."""
    schema = _SCHEMAS[name.partition("-")[0]]
    return StageStore(root, name, _fingerprint(directory), schema)


def _fingerprint(directory: str) -> str:
    return directory.rstrip("/").rpartition("/")[2]


def _status(
    name: str, stage: StageStore[Any], parts: Sequence[int], chosen: bool = True
) -> StageStatus:
    survey = Survey(stage)
    summaries = survey.summaries(parts)
    tally = Tally()
    for part in summaries.values():
        tally = tally.plus(part.tally)
    holder = _holder(stage.directory)
    written = [at for part, at in survey.modified().items() if part in summaries]
    rows, missing = sum(part.rows for part in summaries.values()), len(parts) - len(summaries)
    parts_per_s = None
    if holder and written:
        now = time.time() if missing else max(written)
        parts_per_s = _parts_per_s(written, holder.since, now)
    return StageStatus(
        stage=name,
        done=len(summaries),
        total=len(parts),
        rows=rows,
        rows_per_s=parts_per_s * rows / len(summaries) if parts_per_s else None,
        seconds_left=missing / parts_per_s if parts_per_s and missing else None,
        outcomes={_OUTCOMES.get(kind, kind): count for kind, count in tally.counts.items()},
        tokens=int(sum(value for key, value in tally.sums.items() if key in _TOKENS)),
        dollars=tally.sums.get("cost_usd", 0.0),
        quarantined=tuple(entry for part in summaries.values() for entry in part.quarantined),
        working=_working(holder),
        chosen=chosen,
    )


_OUTCOMES = {"none": "rejected"}
"""What a rollout without a verdict is called, for people."""
_TOKENS = ("prompt_tokens", "completion_tokens")  # reasoning is part of the completion


def _parts_per_s(written: Sequence[float], since: float, now: float) -> float | None:
    """The rate up to `now` of the newest parts, written by who is at work `since` then."""
    times = [since, *sorted(at for at in written if at > since)][-RATE_PARTS - 1 :]
    elapsed = now - times[0]
    return (len(times) - 1) / elapsed if len(times) > 1 and elapsed > 0 else None


def _dollars_spent(root: str) -> float:
    return Ledger(f"{root.rstrip('/')}/journal/spending").others("").spent_usd


def _dollars_cap(config: dict[str, Any]) -> float | None:
    policies = (config.get("policy"), config["rollouts"].get("policy"))
    caps = [policy.get("budget_usd") for policy in policies if policy]
    return next((cap for cap in caps if cap is not None), None)


def _holder(directory: str) -> Holder | None:
    holder = read_holder(f"{directory}/lock.json")
    return holder if holder and holder.is_alive() else None


def _working(holder: Holder | None) -> str | None:
    return f"{holder.host}, pid {holder.pid}" if holder else None
