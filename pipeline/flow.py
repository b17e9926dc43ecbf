"""The story on Ray: the only place that wires stages onto Ray Data.

Ray Data moves nothing but part numbers. An actor reads its part's inputs from the store, does the
work and writes the part: the store is the truth, so the same code runs a stage for the first time,
resumes it after a crash, and scales it to more actors. Policy actors and sandbox actors of one
stage are two pools of one streaming pipeline: a part is executed as soon as it is sampled.
"""

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, cast

import ray
import ray.exceptions
from ray.data import ActorPoolStrategy, DataContext, Dataset

from pipeline.ahead import ask_ahead
from pipeline.attempts import Place
from pipeline.cluster import Cluster, Workers
from pipeline.config import OpenAIPolicy, PolicyConfig, PoolConfig, TrainingConfig, VLLMPolicy
from pipeline.files import delete, exists
from pipeline.journal import JournalError
from pipeline.lock import stage_lock
from pipeline.plan import Plan, held_out_parts, training_parts
from pipeline.policies.protocol import PolicyError, PolicyUnavailable
from pipeline.prm.trainer import TrainingProgress, train_prms
from pipeline.progress import Observer, Progress
from pipeline.records import Role
from pipeline.rounds import Rounds, StageFailed, working_on
from pipeline.store import StageStore
from pipeline.workers import (
    CompleteParts,
    JoinParts,
    JudgeRolloutParts,
    JudgeSolutionParts,
    PartWorker,
    PolicyWorker,
    Row,
    SampleParts,
    ScoreParts,
    new_row,
)

ACTOR_RESTARTS = 5
"""One more than a poisonous problem takes until it is quarantined. Ray's default is for ever, which
a poisonous row turns into a loop."""

_UNTIL_ITS_ACTOR_ENDS = -1
"""Retries of a part. An actor has only so many lives, and its parts with it. But a lost node is
found out by heartbeats that are missed for some ten seconds, in which Ray tries in vain several
times to reach the actors there: where these retries ran out, the whole round ended, and with it
what healthy workers had begun."""

INIT_DEATHS = 2
"""Workers in a row that may end before they are up, for a node may be bad. Ray's default is none,
which ends the stage on all nodes; many would start an engine again and again whose model is not
there."""

_SANDBOXES = Workers("sandbox worker", {"docker": 1})


# --- the stages --------------------------------------------------------------------------------


def sample(
    cluster: Cluster,
    plan: Plan,
    roles: dict[int, Role],
    observer: Observer,
    *,
    retry_quarantined: bool = False,
) -> None:
    """problems -> solutions -> verdicts."""
    work = [(stage, list(roles)) for stage in (plan.solutions, plan.verdicts)]
    with working_on(work, observer, retry_quarantined) as rounds:
        for unsampled, unjudged in rounds:
            cluster.expect_engine()
            _ask_ahead(rounds, observer, plan.sampling_policy(), unsampled, SampleParts, plan)
            policies = _policy_pool(plan.sampling_policy(), plan.config.sampling.pool)
            cluster.join(*_policy_workers(policies, unsampled), _SANDBOXES)
            sampled = _map(_parts(rounds, unsampled), SampleParts, policies, plan)
            ready = _parts(rounds, sorted(set(unjudged) - set(unsampled)))
            programs = _union(sampled, ready)
            judged = _map(programs, JudgeSolutionParts, _sandbox_pool(plan), plan)
            _drain(cluster, rounds, judged)


def label(
    cluster: Cluster,
    plan: Plan,
    roles: dict[int, Role],
    observer: Observer,
    *,
    retry_quarantined: bool = False,
) -> None:
    """solutions -> completions -> rollouts (-> truths) -> examples, what training is handed.

    Only the roles that are labelled step by step are rolled out; the others go straight to the
    examples.
    """
    labelled = [part for part, role in roles.items() if role in plan.config.rollouts.roles]
    *earlier, last = range(len(plan.waves))
    for wave in earlier:  # which steps the next one asks for is known when this one is judged
        work = [(stage, labelled) for stage in _stages_of(plan, wave)]
        with working_on(work, observer, retry_quarantined) as rounds:
            for unasked, *unjudged in rounds:
                judged = _rolled_out(cluster, plan, wave, rounds, unasked, unjudged, observer)
                _drain(cluster, rounds, judged)
    work = [(stage, labelled) for stage in _stages_of(plan, last)]
    work.append((plan.examples, list(roles)))
    with working_on(work, observer, retry_quarantined) as rounds:
        for unasked, *unjudged, unjoined in rounds:
            judged = _rolled_out(cluster, plan, last, rounds, unasked, unjudged, observer)
            to_join = sorted(set(unjoined).difference(unasked, *unjudged))
            # One joins thousands of rows a second: more would take longer to start than to work.
            joining = {"compute": ActorPoolStrategy(min_size=1, max_size=2), "num_cpus": 0.1}
            joined = _map(_union(judged, _parts(rounds, to_join)), JoinParts, joining, plan, roles)
            _drain(cluster, rounds, joined)


def _stages_of(plan: Plan, wave: int) -> list[StageStore[Any]]:
    """Truths are made beside the first wave's rollouts, by the same sandboxes."""
    truths = [plan.truths] if plan.truths is not None and wave == 0 else []
    return [*plan.waves[wave].stages, *truths]


def _rolled_out(
    cluster: Cluster,
    plan: Plan,
    wave: int,
    rounds: Rounds,
    unasked: list[int],
    unjudged: list[list[int]],
    observer: Observer,
) -> Dataset | None:
    """solutions -> completions -> rollouts (-> truths) of one wave."""
    to_judge = sorted(set().union(*unjudged) - set(unasked))
    sandboxes = [_SANDBOXES] if unasked or to_judge else []
    if sandboxes:
        cluster.expect_engine()
    _ask_ahead(rounds, observer, plan.rollout_policy(), unasked, CompleteParts, plan, wave)
    policies = _policy_pool(plan.rollout_policy(), plan.config.rollouts.pool)
    cluster.join(*_policy_workers(policies, unasked), *sandboxes)
    completed = _map(_parts(rounds, unasked), CompleteParts, policies, plan, wave)
    programs = _union(completed, _parts(rounds, to_judge))
    return _map(programs, JudgeRolloutParts, _sandbox_pool(plan), plan, wave)


def _ask_ahead(rounds: Rounds, observer: Observer, policy: PolicyConfig, *rest: Any) -> None:
    """See `ask_ahead`. Raises StageFailed before any actor starts."""
    try:
        ask_ahead(observer, policy, *rest)
    except (PolicyError, JournalError) as error:
        waits_elsewhere = isinstance(policy, OpenAIPolicy) and not policy.batch
        if isinstance(error, PolicyUnavailable) and waits_elsewhere and not rounds.is_first:
            observer.note(str(error))  # workers wait such a thing out, and are about to
            return
        raise StageFailed(str(error)) from error


def train(cluster: Cluster, plan: Plan, roles: dict[int, Role], observer: Observer) -> None:
    """examples of the training and meta problems -> one PRM per arm, with its label estimates."""
    training = plan.training()
    unfinished = [arm for arm in training.arms if not _is_trained(plan.prm_directory(arm))]
    for arm in training.arms:
        if arm not in unfinished:
            observer.progress(Progress(arm.name, 1, 1, "model"))
    if not unfinished:
        return
    cluster.join(training_workers(training))
    with ExitStack() as stack:
        stack.enter_context(cluster.telling_of_lacks())
        for arm in unfinished:
            stack.enter_context(stage_lock(plan.prm_directory(arm)))
        train_prms(
            training.model_copy(update={"arms": tuple(unfinished)}),
            plan.examples.paths(training_parts(roles)),
            {arm.name: plan.prm_directory(arm) for arm in unfinished},
            lambda now: observer.progress(training_progress(now)),
        )


def training_workers(training: TrainingConfig) -> Workers:
    """Those of a training start together or not at all."""
    each = {"CPU": training.cpus_per_worker, "GPU": float(training.use_gpu)}
    return Workers("training workers", each, training.workers)


def training_progress(now: TrainingProgress) -> Progress:
    """A step of a training, for people and for curves."""
    measured = {"solutions_per_s": now.solutions_per_s, **dataclasses.asdict(now.row)}
    del measured["step"], measured["epoch"]
    return Progress(
        now.arm,
        now.step,
        now.total,
        "optimizer steps",
        detail=f"loss {now.row.loss:.3f}, {now.solutions_per_s:,.0f} solutions/s",
        figures={name: value for name, value in measured.items() if value is not None},
    )


def _is_trained(directory: str) -> bool:
    files = ("done.json", "model/config.json", "labels.arrow", "history.jsonl")
    there = [exists(f"{directory}/{name}") for name in files]
    if there[0] and not all(there):
        delete(f"{directory}/done.json")  # the last checkpoint gives the rest again
    return all(there)


def score(
    cluster: Cluster,
    plan: Plan,
    roles: dict[int, Role],
    observer: Observer,
    *,
    retry_quarantined: bool = False,
) -> None:
    """examples of the validation and test problems -> PRM scores, for every arm."""
    training, parts = plan.config.training, held_out_parts(roles)
    work = [(plan.scores(arm), parts) for arm in training.arms]
    with working_on(work, observer, retry_quarantined) as rounds:
        for missing in rounds:
            pool = {
                "compute": ActorPoolStrategy(min_size=1, max_size=training.workers),
                "num_cpus": training.cpus_per_worker,
                "num_gpus": int(training.use_gpu),
            }
            cluster.join(Workers("scoring worker", _asked_by(pool)))
            # Arm by arm, so that a worker seldom has to load another model.
            rows = [
                {"part": part, "arm": arm.name}
                for arm, of_arm in zip(training.arms, missing, strict=True)
                for part in of_arm
            ]
            _drain(cluster, rounds, _map(_rows(rounds, rows), ScoreParts, pool, plan))


# --- the wiring ----------------------------------------------------------------------------------


def _rows(rounds: Rounds, rows: Sequence[Row]) -> Dataset | None:
    """One row per block, so that each is a task of its own."""
    if not rows:
        return None
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_consecutive_actor_init_deaths = INIT_DEATHS
    context.execution_options.preserve_order = False
    common = new_row(rounds.token, retry=rounds.retry, give_up=rounds.give_up)
    return ray.data.from_items([row | common for row in rows], override_num_blocks=len(rows))


def _parts(rounds: Rounds, parts: Sequence[int]) -> Dataset | None:
    return _rows(rounds, [{"part": part} for part in parts])


def _drain(cluster: Cluster, rounds: Rounds, dataset: Dataset | None) -> None:
    """Run the pipeline to its end, or to that of its actors, or until it is stuck."""
    if dataset is None:
        return
    try:
        with cluster.telling_of_lacks():
            if _heard_out(rounds, dataset):
                return
    except ray.exceptions.RayError as error:
        rounds.died(error, _root_cause(error))
    cluster.leave()


def _heard_out(rounds: Rounds, dataset: Dataset) -> bool:
    """Tell the rounds of each part that comes back; False where they are stuck before the last."""
    for row in dataset.iter_rows():
        rounds.check_locks()
        rounds.tell(row)
        if rounds.is_stuck:
            return False
    return True


def _union(first: Dataset | None, second: Dataset | None) -> Dataset | None:
    if first is None or second is None:
        return second if first is None else first
    return first.union(second)


def _map(
    dataset: Dataset | None, worker: type[PartWorker | PolicyWorker], pool: Row, *arguments: Any
) -> Dataset | None:
    if dataset is None:
        return None
    return dataset.map(
        cast(Any, _placed(worker)),  # Ray's annotation knows functions only
        fn_constructor_args=arguments,
        # Ray Data warns that options without a parameter of their own go in 2.64. Its named ones do
        # not include these two yet, and without them a dying actor is restarted for ever.
        max_restarts=ACTOR_RESTARTS,
        max_task_retries=_UNTIL_ITS_ACTOR_ENDS,
        **pool,
    )


def _placed(worker: type[PartWorker | PolicyWorker]) -> type[PartWorker | PolicyWorker]:
    """The worker, which knows of nodes that are lost: nobody's death there is a problem's fault."""

    def is_lost(node: str) -> bool:
        return any(other["NodeID"] == node and not other["Alive"] for other in ray.nodes())

    base: Any = worker

    class Placed(base):
        @property
        def place(self) -> Place:
            return Place(ray.get_runtime_context().get_node_id(), is_lost)

    Placed.__name__ = worker.__name__
    return Placed


def _policy_pool(policy: PolicyConfig, pool: PoolConfig) -> Row:
    return {
        "compute": ActorPoolStrategy(
            min_size=pool.min_size,
            max_size=pool.max_size,
            # Parts that wait at an actor are what Ray Data grows a pool by: beyond 1.75 times those
            # that are worked on. With as many as these alone, no pool ever grew.
            max_tasks_in_flight_per_actor=2 * pool.parts_in_flight,
            max_concurrent_calls_per_actor=pool.parts_in_flight,
        ),
        "num_cpus": pool.cpus,
        "num_gpus": policy.gpus if isinstance(policy, VLLMPolicy) else 0,
    }


def _policy_workers(pool: Row, unasked: Sequence[int]) -> list[Workers]:
    return [Workers("policy worker", _asked_by(pool))] if unasked else []


def _asked_by(pool: Row) -> dict[str, float]:
    return {"CPU": pool["num_cpus"], "GPU": pool["num_gpus"]}


def _sandbox_pool(plan: Plan) -> Row:
    """They ask for no CPU: the slots are what bounds them, and the containers' own limits."""
    return {
        "compute": ActorPoolStrategy(min_size=1, max_size=plan.config.sandbox.slots),
        "num_cpus": 0,
        "resources": {"docker": 1},
    }


def _root_cause(error: BaseException) -> str:
    """The last line of what Ray tells of a remote failure: the error itself, in its own words."""
    while isinstance(error, ray.exceptions.RayTaskError) and error.cause is not None:
        error = error.cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
