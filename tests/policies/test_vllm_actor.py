"""A real vLLM engine in a Ray actor that is killed while it samples."""

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from jobs.run import run
from pipeline.config import PoolConfig, PromptStyle, VLLMPolicy
from pipeline.plan import make_plan
from pipeline.policies.vllm import VLLM
from pipeline.sampling import solution_requests
from tests.policies.test_vllm import ask
from tests.scripted_run import Told, config, write_problems

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.usefixtures("local_ray")]

PROBLEMS, SAMPLES = 24, 8


def test_a_killed_vllm_actor_is_replaced_and_the_rows_are_those_of_an_undisturbed_engine(
    tiny_config: VLLMPolicy, engine: VLLM, tmp_path: Path
) -> None:
    write_problems(tmp_path, [f"Sum {number} numbers." for number in range(PROBLEMS)])
    pool = PoolConfig(cpus=0.1, parts_in_flight=1)
    chosen = config(tmp_path, samples=SAMPLES, problems_per_part=1, pool=pool).model_copy(
        update={"policy": tiny_config.model_copy(update={"prompt": PromptStyle.BARE})}
    )
    plan = make_plan(chosen)
    killed: list[int] = []
    there_at_the_kill: dict[Path, int] = {}

    def kill_the_actor() -> None:
        while not plan.solutions.done():
            time.sleep(0.005)
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it has ended
                if process.cmdline()[0].startswith("ray::MapWorker(Map(SampleParts"):
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
        there_at_the_kill.update(written(plan.solutions.directory))

    killer = threading.Thread(target=kill_the_actor, daemon=True)
    killer.start()
    run(chosen, ["sample"], Told())
    assert len(killed) == 1
    assert 0 < len(there_at_the_kill) < PROBLEMS
    after = written(plan.solutions.directory)
    assert {path: after[path] for path in there_at_the_kill} == there_at_the_kill
    solutions = plan.solutions.read_all(plan.solutions.done())
    problems = plan.problems.read_all(plan.problems.done())
    answers = ask(engine, *solution_requests(problems, SAMPLES, PromptStyle.BARE))
    assert {(s.problem_id, s.sample_index): s.text for s in solutions} == {
        asked: answer.text for asked, answer in answers.items()
    }


def written(directory: str) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path(directory).glob("part-*.arrow")}
