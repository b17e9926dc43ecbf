"""A real engine on CPU, one for all tests but those that kill it."""

import asyncio
import dataclasses
import re
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.inputs.engine import tokens_input

from pipeline.config import VLLMPolicy
from pipeline.policies.protocol import PolicyError, PolicyRequest, PolicyResponse
from pipeline.policies.vllm import VLLM, engine_options
from pipeline.prompts import Prompt
from pipeline.records import FinishReason
from tests.policies.tiny_model import CONTEXT

pytestmark = pytest.mark.slow

HELLO = Prompt(system="", user="Sum the numbers.")


def test_an_engine_on_gpus_is_told_how_many_and_nothing_that_is_meant_for_a_cpu() -> None:
    told = engine_options(VLLMPolicy(model="m", gpus=4, tensor_parallel=4, max_model_len=8192))
    assert (told["tensor_parallel_size"], told["max_model_len"]) == (4, 8192)
    assert told.keys().isdisjoint({"enforce_eager", "kv_cache_memory_bytes"})
    on_cpu = engine_options(VLLMPolicy(model="m", gpus=0, kv_cache_gb=0.5))
    assert (on_cpu["tensor_parallel_size"], on_cpu["kv_cache_memory_bytes"]) == (1, 2**29)
    assert on_cpu["enforce_eager"] is True
    assert "max_model_len" not in on_cpu, "the model's own"
    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    assert (told | on_cpu).keys() <= known


def ask(policy: VLLM, *requests: PolicyRequest) -> dict[tuple[str, int], PolicyResponse]:
    async def gather() -> list[PolicyResponse]:
        return [response async for response in policy.complete(requests)]

    responses = asyncio.run(gather())
    answers = {(response.key, response.sample_index): response for response in responses}
    assert len(answers) == len(responses), "an answer came twice"
    return answers


def engine_process(policy: VLLM) -> BaseProcess:
    (process,) = policy._engine._engine.engine_core.resources.engine_manager.processes
    return process


def test_importing_the_module_does_not_import_vllm() -> None:
    code = "import sys, pipeline.policies.vllm; print({'vllm', 'torch'} & sys.modules.keys())"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert loaded.stdout.strip() == b"set()"


def test_every_requested_sample_is_answered_once(engine: VLLM) -> None:
    answers = ask(
        engine,
        PolicyRequest("a", HELLO, tuple(range(8))),
        PolicyRequest("b", Prompt("", "Fold them."), (3, 5)),
    )
    assert set(answers) == {("a", i) for i in range(8)} | {("b", 3), ("b", 5)}


def test_samples_of_one_prompt_differ(engine: VLLM) -> None:
    answers = ask(engine, PolicyRequest("differ", HELLO, tuple(range(256))))
    assert len({answer.text for answer in answers.values()}) >= 250


def test_a_sample_depends_on_its_key_and_index_not_on_its_neighbours(engine: VLLM) -> None:
    together = ask(
        engine,
        PolicyRequest("mine", HELLO, (0, 1, 2, 3)),
        PolicyRequest("other", Prompt("", "Something else."), (0, 1, 2)),
    )
    alone = ask(engine, PolicyRequest("mine", HELLO, (2,)))
    renamed = ask(engine, PolicyRequest("yours", HELLO, (2,)))
    assert alone["mine", 2].text == together["mine", 2].text
    assert renamed["yours", 2].text != alone["mine", 2].text


def test_the_policy_can_be_used_from_one_event_loop_after_another(engine: VLLM) -> None:
    first = ask(engine, PolicyRequest("loop", HELLO, (0,)))
    assert ask(engine, PolicyRequest("loop", HELLO, (0,))) == first


def test_the_answer_continues_the_prefill_within_the_chat_template_until_the_policy_is_closed(
    tiny_model: Path, tiny_config: VLLMPolicy
) -> None:
    """Two stories for one engine start: greedy decoding against transformers' own, and the end."""
    prompt = Prompt(system="Be brief.", user="Sum.", prefill="def main():\n    pri")
    rendered = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nSum.<|im_end|>\n"
        "<|im_start|>assistant\ndef main():\n    pri"
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    inputs = tokenizer(rendered, add_special_tokens=False, return_tensors="pt")
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    tokens = model.generate(**inputs, do_sample=False, max_new_tokens=tiny_config.max_tokens)[0]
    expected = tokenizer.decode(tokens[inputs.input_ids.shape[1] :], skip_special_tokens=True)

    greedy = VLLM(tiny_config.model_copy(update={"temperature": 0.0}))
    process = engine_process(greedy)
    answer = ask(greedy, PolicyRequest("prefilled", prompt, (0,)))["prefilled", 0]
    assert answer.text == expected
    assert answer.prompt_tokens == inputs.input_ids.shape[1]

    async def close_while_asking() -> None:
        asking = asyncio.create_task(
            anext(greedy.complete([PolicyRequest("doomed", HELLO, tuple(range(2000)))]))
        )
        await asyncio.sleep(0)
        await asyncio.to_thread(greedy.close)
        await asking

    with pytest.raises(PolicyError, match="doomed"):
        asyncio.run(close_while_asking())
    process.join(timeout=5.0)
    assert process.exitcode is not None
    with pytest.raises(PolicyError, match="closed"):
        greedy.complete([])
    greedy.close()


def test_an_engine_that_dies_is_started_again_and_no_request_is_lost(
    tiny_config: VLLMPolicy,
) -> None:
    policy = VLLM(tiny_config)
    process = engine_process(policy)

    async def ask_a_dying_engine() -> list[PolicyResponse]:
        answers = policy.complete([PolicyRequest("survives", HELLO, tuple(range(1000)))])
        first = await anext(answers)
        process.kill()
        return [first, *[answer async for answer in answers]]

    answers = asyncio.run(ask_a_dying_engine())
    assert sorted(answer.sample_index for answer in answers) == list(range(1000))
    assert engine_process(policy).pid != process.pid
    policy.close()


def test_a_real_engine_answers_the_canary(engine: VLLM) -> None:
    assert engine._loop.submit(engine._engine.answers_canary("any")).result()


def test_an_answer_says_why_it_ended_and_what_it_cost_in_tokens(
    engine: VLLM, tiny_config: VLLMPolicy
) -> None:
    answers = ask(engine, PolicyRequest("ends", HELLO, tuple(range(400))))
    reasons = dict.fromkeys(FinishReason, 0)
    for answer in answers.values():
        reasons[answer.finish_reason] += 1
        if answer.finish_reason is FinishReason.LENGTH:
            assert answer.completion_tokens == tiny_config.max_tokens
        else:
            assert answer.completion_tokens <= tiny_config.max_tokens
        assert "<|im_end|>" not in answer.text
    assert reasons[FinishReason.STOP] > 0
    assert reasons[FinishReason.LENGTH] > 0
    assert reasons[FinishReason.STOP] + reasons[FinishReason.LENGTH] == 400


def test_an_answer_ends_before_a_stop_text_of_its_prompt(engine: VLLM) -> None:
    free = ask(engine, PolicyRequest("stops", HELLO, tuple(range(40))))
    stopping = dataclasses.replace(HELLO, stop=("e", "("))
    stopped = ask(engine, PolicyRequest("stops", stopping, tuple(range(40))))
    for sample, answer in free.items():
        assert stopped[sample].text == re.split("[e(]", answer.text, maxsplit=1)[0]
        if stopped[sample].text != answer.text:
            assert stopped[sample].finish_reason is FinishReason.STOP


def test_what_prompts_have_in_common_is_computed_once(engine: VLLM) -> None:
    """The prefix cache works in blocks, on CPU of 128 tokens."""

    async def cached_tokens() -> int:
        tokens = tokens_input(engine._tokens(Prompt("", "((" * 90)))
        outputs = engine._engine._engine.generate(tokens, SamplingParams(), "cached")
        return [output.num_cached_tokens async for output in outputs][-1]

    engine._loop.submit(cached_tokens()).result()
    assert engine._loop.submit(cached_tokens()).result() >= 128


def test_a_prompt_that_fills_the_context_is_a_truncated_answer_and_not_an_error(
    engine: VLLM,
) -> None:
    long = Prompt("", "x " * CONTEXT)
    answers = ask(engine, PolicyRequest("long", long, (0,)), PolicyRequest("short", HELLO, (0,)))
    assert answers["long", 0].text == ""
    assert answers["long", 0].finish_reason is FinishReason.LENGTH
    assert answers["short", 0].completion_tokens > 0


def test_an_answer_ends_where_the_context_ends(engine: VLLM) -> None:
    nearly_full = Prompt("", "(" * (CONTEXT - 30))
    answers = ask(engine, PolicyRequest("nearly", nearly_full, tuple(range(8))))
    assert all(a.prompt_tokens + a.completion_tokens <= CONTEXT for a in answers.values())
    assert any(answer.finish_reason is FinishReason.LENGTH for answer in answers.values())


def test_a_caller_that_stops_early_leaves_nothing_running(engine: VLLM) -> None:
    async def first_of_many() -> None:
        answers = engine.complete([PolicyRequest("many", HELLO, tuple(range(4000)))])
        await anext(answers)
        await answers.aclose()  # type: ignore[attr-defined]

    asyncio.run(first_of_many())
    started = time.monotonic()
    alone = ask(engine, PolicyRequest("after", HELLO, (0,)))
    assert len(alone) == 1
    # The 4000 answers would have taken the engine far longer.
    assert time.monotonic() - started < 3.0


_OPENER = """
import sys, time
from pipeline.config import VLLMPolicy
from pipeline.policies.vllm import VLLM, engine_options

if __name__ == "__main__":
    policy = VLLM(VLLMPolicy.model_validate_json(sys.argv[1]))
    (process,) = policy._engine._engine.engine_core.resources.engine_manager.processes
    print(process.pid, flush=True)
    time.sleep(600)
"""


def test_the_engine_of_a_killed_process_is_killed_with_it(
    tiny_config: VLLMPolicy, tmp_path: Path
) -> None:
    script = tmp_path / "opener.py"
    script.write_text(_OPENER)
    command = [sys.executable, str(script), tiny_config.model_dump_json()]
    opener = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert opener.stdout is not None
    engine_pid = int(opener.stdout.readline())
    assert Path(f"/proc/{engine_pid}").exists()
    opener.kill()
    opener.wait()
    deadline = time.monotonic() + 5.0
    while _runs(engine_pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(engine_pid)


def _runs(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="no_such_model"):
        VLLM(VLLMPolicy(model=str(tmp_path / "no_such_model"), gpus=0))
