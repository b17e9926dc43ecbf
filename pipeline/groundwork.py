"""What a run stands on: its problems, in parts of one role each, and the small policy of the scale
model where the run trains one. Needs no Ray."""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.config import Correction, MetaProblems, ReplayPolicy, ScaleModelProblems
from pipeline.files import exists, is_local
from pipeline.folders import publish_folder
from pipeline.lock import stage_lock
from pipeline.plan import Plan
from pipeline.problems import NoProblems, read_files
from pipeline.problems.splits import NearDuplicate, assign_roles, drop_near_duplicates
from pipeline.progress import Observer, Progress
from pipeline.records import Problem, Role
from pipeline.scale_model.generator import generate_problems
from pipeline.settings import ConfigError
from pipeline.survey import missing_parts


def lay_problems(plan: Plan, observer: Observer) -> dict[int, Role]:
    """Store the problems in parts of one role each; say the role of every part, in order.

    Raises NoProblems, or what the loader of the benchmark raises for bad rows.
    """
    note = plan.problems.note()
    if note is not None:
        roles = [Role(role) for role in note["shaped_by"]["roles"]]
        if not missing_parts(plan.problems, range(len(roles)))[0]:
            observer.progress(Progress("problems", len(roles), len(roles), "parts"))
            return dict(enumerate(roles))
    with stage_lock(plan.problems.directory):
        problems, left_out = _problems(plan)
        parts, duplicates = _parts(plan, problems)
        left_out += [f"left out: {duplicate}" for duplicate in duplicates]
        for note in left_out:
            observer.note(note)
        observer.progress(Progress("problems", 0, len(parts), "parts"))
        for index, (_, problems) in enumerate(parts):
            plan.problems.write(index, problems)
            observer.progress(Progress("problems", index + 1, len(parts), "parts"))
        roles = [role for role, _ in parts]
        plan.problems.describe(
            len(parts), {"roles": [role.value for role in roles], "left_out": left_out}
        )
    return dict(enumerate(roles))


def check_roles(plan: Plan, roles: dict[int, Role], stages: Sequence[str]) -> None:
    """Find out before anything is paid for that a stage would have nothing to work on.

    Raises NoProblems naming the role whose window is empty, and ConfigError for stages that a
    policy cannot do.
    """
    wanted = {"label": list(plan.config.rollouts.roles), "train": [Role.TRAIN]}
    wanted["evaluate"] = [Role.TEST]
    training = plan.config.training
    disjoint = training.correction.meta_problems is MetaProblems.DISJOINT
    if disjoint and any(arm.correction is not Correction.NONE for arm in training.arms):
        wanted["train"].append(Role.META)
    for stage in stages:
        for role in wanted.get(stage, []):
            if role not in roles.values():
                raise NoProblems(
                    f"stage {stage!r} needs {role.value} problems, and none was released in the "
                    f"window `splits.{role.value}`: widen it, add problems, or leave the stage out "
                    "(--stages)"
                )
    if "label" in stages and isinstance(
        plan.config.rollouts.policy or plan.config.policy, ReplayPolicy
    ):
        raise ConfigError(
            "rollouts.policy: a replay policy cannot complete prefixes; name a vllm or openai "
            "policy, or leave out the stage 'label' (--stages)"
        )


def _problems(plan: Plan) -> tuple[list[Problem], list[str]]:
    """The problems, and what of their files was left out and why."""
    config = plan.config
    if isinstance(config.problems, ScaleModelProblems):
        return generate_problems(config.problems, config.splits), []
    reading = read_files(config.problems)
    return reading.problems, reading.left_out()


def _parts(
    plan: Plan, problems: list[Problem]
) -> tuple[list[tuple[Role, list[Problem]]], list[NearDuplicate]]:
    """Problems of one role, so many to a part, training problems first; and those left out because
    another role has nearly the same."""
    roles = assign_roles(problems, plan.config.splits)
    dropped: list[NearDuplicate] = []
    if not isinstance(plan.config.problems, ScaleModelProblems):  # made from templates: all alike
        roles, dropped = drop_near_duplicates(problems, roles)
    size = plan.config.sampling.problems_per_part
    parts: list[tuple[Role, list[Problem]]] = []
    for role in Role:
        of_role = [problem for problem in problems if roles.get(problem.problem_id) is role]
        parts += [(role, of_role[at : at + size]) for at in range(0, len(of_role), size)]
    if not parts:
        raise NoProblems(
            f"none of {len(problems)} problems was released inside the windows of `splits`: "
            "widen them, or name other files in `problems.paths`"
        )
    return parts, dropped


def train_small_policy(plan: Plan, observer: Observer) -> None:
    """Train the scale model's policy, unless it is there already."""
    options, problems = plan.config.scale_model, plan.config.problems
    files = ("config.json", "model.safetensors", "tokenizer.json")
    if options is None or all(exists(f"{plan.policy_directory}/{name}") for name in files):
        return
    assert isinstance(problems, ScaleModelProblems)
    from pipeline.scale_model.policy import train_policy  # imports torch: only when it is needed

    here = is_local(plan.policy_directory)
    with stage_lock(f"{plan.config.root}/policy"), tempfile.TemporaryDirectory() as temporary:
        trained = Path(plan.policy_directory if here else f"{temporary}/policy")
        train_policy(options, problems, plan.config.splits, trained, on_progress=_told_to(observer))
        if not here:
            publish_folder(trained, plan.policy_directory)


def _told_to(observer: Observer) -> Callable[[int, int, float], None]:
    last = 0.0

    def on_progress(step: int, steps: int, loss: float) -> None:
        nonlocal last
        if time.monotonic() - last > 0.2 or step == steps:
            last = time.monotonic()
            observer.progress(
                Progress("policy", step, steps, "optimizer steps", detail=f"loss {loss:.3f}")
            )

    return on_progress
