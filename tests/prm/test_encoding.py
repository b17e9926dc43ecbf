import dataclasses

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pipeline.config import ModelConfig
from pipeline.prm.encoding import EncodedSolution, Encoder, Skip, collate
from pipeline.prm.model import StepScorer, build_scorer
from pipeline.records import Example
from tests.prm.world import make_example


@pytest.fixture(scope="module")
def scorer_and_encoder(base: str) -> tuple[StepScorer, Encoder]:
    config = ModelConfig(base=base, max_tokens=256, lora=None, dtype="float32")
    scorer, tokenizer = build_scorer(config, seed=0, device=torch.device("cpu"))
    return scorer.eval(), Encoder(tokenizer)


def with_code(segments: list[str], problem: str = "double then square") -> Example:
    ends = [len("".join(segments[: count + 1]).encode()) for count in range(len(segments))]
    return dataclasses.replace(
        make_example(("double",), ("double",)),
        problem=problem,
        code="".join(segments),
        step_ends=tuple(ends),
    )


def encode_one(encoder: Encoder, example: Example) -> EncodedSolution | Skip:
    (outcome,) = encoder.encode([example]).outcomes
    return outcome


segments = st.lists(
    st.text(
        alphabet=st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12
    )
    | st.sampled_from(["def f(x):\n    return x\n\n", "    ", "\n", "<|end|>", "é→\U0001f600"]),
    min_size=1,
    max_size=5,
)


@given(segments=segments)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_score_of_a_step_in_the_whole_is_the_score_of_its_prefix_alone(
    scorer_and_encoder: tuple[StepScorer, Encoder], segments: list[str]
) -> None:
    scorer, encoder = scorer_and_encoder
    prefixes = [with_code(segments[: count + 1]) for count in range(len(segments))]
    encoded = [encode_one(encoder, prefix) for prefix in prefixes]
    assert all(isinstance(outcome, EncodedSolution) for outcome in encoded)
    with torch.inference_mode():
        whole = scorer(collate([encoded[-1]])).sigmoid()
        alone = torch.stack([scorer(collate([prefix])).sigmoid()[-1] for prefix in encoded])
        together = scorer(collate(encoded)).sigmoid()[-len(segments) :]
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_every_step_ends_in_one_separator_and_nothing_follows_the_code(base: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    encoder = Encoder(tokenizer)
    outcome = encode_one(encoder, with_code(["def f():\n    pass\n", "f()\n"]))
    assert isinstance(outcome, EncodedSolution)
    assert [outcome.token_ids[p] for p in outcome.step_positions] == [encoder.separator] * 2
    assert outcome.step_positions[-1] == len(outcome.token_ids) - 1
    assert tokenizer.decode(outcome.token_ids) == (
        "double then square\ndef f():\n    pass\n<|end|>f()\n<|end|>"
    )


def test_a_separator_spelled_out_in_the_program_is_plain_text(base: str) -> None:
    encoder = Encoder(AutoTokenizer.from_pretrained(base))
    outcome = encode_one(encoder, with_code(["x = '<|end|>'\n"], problem="print <|end|>"))
    assert isinstance(outcome, EncodedSolution)
    assert outcome.token_ids.count(encoder.separator) == 1


def test_the_statement_is_cut_to_fit_and_the_code_never(base: str) -> None:
    encoder = Encoder(AutoTokenizer.from_pretrained(base))
    short = encode_one(encoder, with_code(["a = 1\n"], problem="double"))
    encoder.max_tokens = 40
    cut = encode_one(encoder, with_code(["a = 1\n"], problem="double " * 100))
    assert isinstance(short, EncodedSolution)
    assert isinstance(cut, EncodedSolution)
    code_tokens = short.token_ids[-4:]
    assert not short.statement_cut
    assert cut.statement_cut
    assert len(cut.token_ids) == 40
    assert cut.token_ids[-4:] == code_tokens


def test_programs_that_do_not_fit_and_answers_without_code_are_counted(base: str) -> None:
    encoder = Encoder(AutoTokenizer.from_pretrained(base))
    encoder.max_tokens = 12
    encoding = encoder.encode([with_code(["x = 1\n" * 20]), with_code([]), with_code(["y\n"])])
    assert encoding.outcomes[:2] == (Skip.TOO_LONG, Skip.NO_STEPS)
    assert encoding.skipped == {Skip.TOO_LONG: 1, Skip.NO_STEPS: 1}


@pytest.mark.parametrize("ends", [(5, 5), (7, 3), (3, 900)])
def test_step_ends_that_do_not_cut_the_code_are_refused_by_name(
    base: str, ends: tuple[int, ...]
) -> None:
    encoder = Encoder(AutoTokenizer.from_pretrained(base))
    broken = dataclasses.replace(with_code(["a = 1\n", "b = 2\n"]), step_ends=ends)
    with pytest.raises(ValueError, match=f"solution {broken.solution_id}: step_ends"):
        encoder.encode([broken])


def test_no_examples_encode_to_nothing(base: str) -> None:
    assert Encoder(AutoTokenizer.from_pretrained(base)).encode([]).outcomes == ()
