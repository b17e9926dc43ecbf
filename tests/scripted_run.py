"""A small run on real Ray with real programs, whose policy answers from a script: the same rows
every time, and mishaps where a problem's statement asks for them.

    python -m tests.scripted_run PLACE    runs `sample` and `label` on PLACE/problems.jsonl

A statement may hold one of these words. Each acts as long as PLACE/mishaps is there.

    KILLS_POLICY    its sampling kills the worker process
    RAISES          its sampling raises
"""

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import workers
from pipeline.config import (
    FileProblems,
    PipelineConfig,
    PoolConfig,
    PromptStyle,
    RolloutConfig,
    SamplingConfig,
    SandboxConfig,
    VLLMPolicy,
)
from pipeline.plan import Plan, make_plan
from pipeline.policies.protocol import PolicyRequest
from pipeline.progress import Progress
from pipeline.quarantine import Slice
from pipeline.records import Problem
from pipeline.workers import asking
from tests.scripted import Scripted

SAMPLES = 4
_WHOLE = (
    "def main():\n    print(double(int(input())))\n\n\n"
    "def double(x):\n    return x * {factor}\n\n\nmain()\n"
)
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


def config(place: Path, root: str | None = None, **sampling: Any) -> PipelineConfig:
    return PipelineConfig(
        name="scripted",
        root=root or str(place / "store"),
        output=str(place / "out"),
        problems=FileProblems(kind="jsonl", paths=(str(place / "problems.jsonl"),)),
        policy=VLLMPolicy(model="scripted", gpus=0, prompt=PromptStyle.BARE),
        sampling=SamplingConfig(
            **{"samples": SAMPLES, "problems_per_part": 4, "pool": PoolConfig(cpus=0.1)} | sampling
        ),
        sandbox=SandboxConfig(isolation="unsafe-process", slots=2),
        rollouts=RolloutConfig(samples=2, pool=PoolConfig(cpus=0.1)),
    )


def plan_of(place: Path, root: str | None = None, **sampling: Any) -> Plan:
    return make_plan(config(place, root, **sampling))


def answer(request: PolicyRequest, index: int) -> str:
    """Two right programs and two wrong ones; a slow policy gives a killer the time to strike."""
    time.sleep(float(os.environ.get("SCRIPTED_SECONDS", "0")))
    if request.prompt.prefill:
        return _REST.format(error=index % 2)
    return _WHOLE.format(factor=2 + index % 2)


def _mishap(plan: Plan, problems: Sequence[Problem], word: str) -> bool:
    on = Path(plan.config.output).with_name("mishaps").exists()
    return on and any(word in problem.statement for problem in problems)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class ScriptedSampleParts(workers.SampleParts):
    def __init__(self, plan: Plan) -> None:
        _answer_from_the_script()
        super().__init__(plan)

    async def ask(self, piece: Slice) -> Any:
        problems = piece.read(self.plan.problems)
        if _mishap(self.plan, problems, "KILLS_POLICY"):
            _die()
        if _mishap(self.plan, problems, "RAISES"):
            raise ValueError("this problem has no bottom")
        return await super().ask(piece)


class ScriptedCompleteParts(workers.CompleteParts):
    def __init__(self, plan: Plan, wave: int) -> None:
        _answer_from_the_script()
        super().__init__(plan, wave)


def _answer_from_the_script() -> None:
    asking.open_policy = lambda *_: Scripted(answer, continues_prefill=True)  # pyright: ignore


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
    # Not at the top: the workers, which import this module too, start without torch.
    from jobs.run import run
    from pipeline import flow

    flow.SampleParts = ScriptedSampleParts
    flow.CompleteParts = ScriptedCompleteParts
    told = Told()
    run(chosen, ["sample", "label"], told, retry_quarantined=retry_quarantined)
    return told.notes


def rows_of(plan: Plan) -> dict[str, list[str]]:
    """What identifies the rows of every part (measured columns apart), by stage."""
    stages = (plan.solutions, plan.verdicts, plan.completions, plan.rollouts, plan.examples)
    return {stage.name: [stage.digest(part) for part in stage.done()] for stage in stages}


if __name__ == "__main__":
    go(config(Path(sys.argv[1]), *sys.argv[2:]))
