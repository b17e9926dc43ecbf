"""A small run on real Ray with real programs, whose policy answers from a script: the same rows
every time, and mishaps where a problem's statement asks for them.

    python -m tests.scripted_run PLACE    runs `sample` and `label` on PLACE/problems.jsonl

A statement may hold one of these words. Each acts as long as PLACE/mishaps is there.

    KILLS_POLICY      its sampling kills the worker process
    RAISES            its sampling raises
    LEAVES_A_TRACE    its programs leave the file `trace` in their directory, and take their time

Statements of the scale model are answered with programs of the scale model. Each answer takes the
seconds that are written in PLACE/pace, none where that is not there. Where PLACE/company holds a
number, sampling waits until so many of its workers have started. All workers tell what they do
(tests/witness.py).
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from pipeline import workers
from pipeline.config import (
    FileProblems,
    PipelineConfig,
    PoolConfig,
    PromptStyle,
    RolloutConfig,
    SamplingConfig,
    SandboxConfig,
    ScaleModelProblems,
    VLLMPolicy,
)
from pipeline.plan import Plan, make_plan
from pipeline.policies.protocol import PolicyRequest
from pipeline.progress import Progress
from pipeline.quarantine import Slice, Tries
from pipeline.records import Problem, Role, content_hash
from pipeline.scale_model.spec import MAIN_CALL, read_statement, write_helper, write_main
from pipeline.workers import asking
from tests.scripted import PaidScript
from tests.witness import What, Witness, events

SAMPLES = 4
_WHOLE = (
    "def main():\n    print(double(int(input())))\n\n\n"
    "def double(x):\n    return x * {factor}\n\n\nmain()\n"
)
_TRACE = "\n\nimport time\nopen('trace', 'w').close()\ntime.sleep(2)\n"
_REST = "\n\ndef double(x):\n    return x + x + {error}\n\n\nmain()\n"


def write_problems(place: Path, statements: Sequence[str]) -> None:
    """One training problem per statement; there is no problem without a number to double."""
    place.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "problem_id": f"p{number:06d}",
            "statement": statement,
            "difficulty": "easy",
            "released_on": "2024-01-01",
            "tests": [{"stdin": f"{n}\n", "expected": f"{2 * n}\n"} for n in (1, number + 2)],
        }
        for number, statement in enumerate(statements)
    ]
    (place / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def config(
    place: Path, root: str | None = None, isolation: str = "unsafe-process", **sampling: Any
) -> PipelineConfig:
    return PipelineConfig(
        name="scripted",
        root=root or str(place / "store"),
        output=str(place / "out"),
        problems=FileProblems(kind="jsonl", paths=(str(place / "problems.jsonl"),)),
        policy=VLLMPolicy(model="scripted", gpus=0, prompt=PromptStyle.BARE),
        sampling=SamplingConfig(
            **{"samples": SAMPLES, "problems_per_part": 4, "pool": PoolConfig(cpus=0.1)} | sampling
        ),
        sandbox=SandboxConfig(isolation=isolation, slots=2),
        rollouts=RolloutConfig(samples=2, pool=PoolConfig(cpus=0.1)),
    )


def plan_of(place: Path, root: str | None = None, **sampling: Any) -> Plan:
    return make_plan(config(place, root, **sampling))


def answer(request: PolicyRequest, index: int) -> str:
    """Two right programs and two wrong ones."""
    if request.prompt.prefill:
        return _REST.format(error=index % 2)
    if "LEAVES_A_TRACE" in request.prompt.user:
        return _WHOLE.format(factor=2) + _TRACE
    return _WHOLE.format(factor=2 + index % 2)


def answer_in_the_small_world(request: PolicyRequest, index: int) -> str:
    """A program of the scale model, or the rest of one; about half have a bug."""
    calls = read_statement(request.prompt.user).calls
    rng = random.Random(content_hash(request.key, index))
    wrong = rng.choice((None, *calls))
    kinds = [call.operation.kind for call in calls]
    written_as = [rng.choice(call.bugs) if call is wrong else call.expression for call in calls]
    bodies = [write_helper(*each) for each in zip(kinds, written_as, strict=True)]
    if not request.prompt.prefill:
        return write_main(kinds) + "".join(bodies) + MAIN_CALL
    written = request.prompt.prefill.count("\ndef ")
    return "".join(bodies[written:]) + MAIN_CALL


def _place(plan: Plan) -> Path:
    return Path(plan.config.output).parent


def _mishap(plan: Plan, problems: Sequence[Problem], word: str) -> bool:
    on = (_place(plan) / "mishaps").exists()
    return on and any(word in problem.statement for problem in problems)


async def _company(plan: Plan) -> None:
    """Until as many workers as are wanted sample, however long they take to start; not for ever."""
    wanted = _place(plan) / "company"
    deadline = time.monotonic() + 180
    while wanted.exists() and time.monotonic() < deadline:
        started = [event for event in events(_place(plan)) if event.what is What.STARTED]
        samplers = {event.pid for event in started if event.worker == ScriptedSampleParts.__name__}
        if len(samplers) >= int(wanted.read_text()):
            return
        await asyncio.sleep(0.5)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# --- the workers ---------------------------------------------------------------------------------


def _watch(worker: object, plan: Plan) -> Witness:
    """From now on the worker tells of each slice that it begins, and of each that it has made."""
    node = ray.get_runtime_context().get_node_id()
    # Ray Data derives a class of its own from a worker's.
    names = [each.__name__ for each in type(worker).__mro__]
    name = next(name for name in names if name.startswith("Scripted"))
    witness = Witness(_place(plan), name, node)
    begin, made = Tries.begin, Tries.made

    def begin_and_tell(tries: Tries, piece: Slice) -> None:
        witness.tell(What.BEGUN, _named(tries, piece))
        begin(tries, piece)

    def make_and_tell(tries: Tries, piece: Slice, rows: Any) -> None:
        made(tries, piece, rows)
        witness.tell(What.MADE, _named(tries, piece))

    Tries.begin, Tries.made = begin_and_tell, make_and_tell
    return witness


def _named(tries: Tries, piece: Slice) -> str:
    return " ".join(filter(None, (tries._stage.name, str(piece.part), piece.problem_id)))


def _answer_from_the_script(plan: Plan, witness: Witness) -> None:
    small_world = isinstance(plan.config.problems, ScaleModelProblems)
    script = answer_in_the_small_world if small_world else answer
    pace = _place(plan) / "pace"
    seconds = float(pace.read_text()) if pace.exists() else 0.0
    asking.open_policy = lambda _, journal: PaidScript(script, journal, seconds, witness)  # pyright: ignore


class ScriptedSampleParts(workers.SampleParts):
    def __init__(self, plan: Plan) -> None:
        _answer_from_the_script(plan, _watch(self, plan))
        super().__init__(plan)

    async def ask(self, piece: Slice) -> Any:
        await _company(self.plan)
        problems = piece.read(self.plan.problems)
        if _mishap(self.plan, problems, "KILLS_POLICY"):
            _die()
        if _mishap(self.plan, problems, "RAISES"):
            raise ValueError("this problem has no bottom")
        return await super().ask(piece)


class ScriptedCompleteParts(workers.CompleteParts):
    def __init__(self, plan: Plan, wave: int) -> None:
        _answer_from_the_script(plan, _watch(self, plan))
        super().__init__(plan, wave)


class ScriptedJudgeSolutionParts(workers.JudgeSolutionParts):
    def __init__(self, plan: Plan) -> None:
        _watch(self, plan)
        super().__init__(plan)


class ScriptedJudgeRolloutParts(workers.JudgeRolloutParts):
    def __init__(self, plan: Plan, wave: int) -> None:
        _watch(self, plan)
        super().__init__(plan, wave)


class ScriptedJoinParts(workers.JoinParts):
    def __init__(self, plan: Plan, roles: dict[int, Role]) -> None:
        _watch(self, plan)
        super().__init__(plan, roles)


# --- the run -------------------------------------------------------------------------------------


class Told:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def stage(self, title: str) -> None: ...

    def progress(self, progress: Progress) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


def go(chosen: PipelineConfig, *, retry_quarantined: bool = False) -> list[str]:
    """Sample and label with the scripted workers; what was told."""
    # Not at the top: the workers, which import this module too, start without these.
    import pytest

    from jobs.run import run
    from pipeline import flow

    told = Told()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow, "SampleParts", ScriptedSampleParts)
        patch.setattr(flow, "CompleteParts", ScriptedCompleteParts)
        patch.setattr(flow, "JudgeSolutionParts", ScriptedJudgeSolutionParts)
        patch.setattr(flow, "JudgeRolloutParts", ScriptedJudgeRolloutParts)
        patch.setattr(flow, "JoinParts", ScriptedJoinParts)
        run(chosen, ["sample", "label"], told, retry_quarantined=retry_quarantined)
    return told.notes


def rows_of(plan: Plan) -> dict[str, list[str]]:
    """What identifies the rows of every part (measured columns apart), by stage."""
    stages = (plan.solutions, plan.verdicts, plan.completions, plan.rollouts, plan.examples)
    return {stage.name: [stage.digest(part) for part in stage.done()] for stage in stages}


if __name__ == "__main__":
    go(config(Path(sys.argv[1]), *sys.argv[2:]))
