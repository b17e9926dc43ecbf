import random

import pytest

from pipeline.config import SplitsConfig
from pipeline.functions import prefix, split_steps
from pipeline.scale_model.corpus import draw_corpus
from pipeline.scale_model.tokenizer import END, PAD, STEP, train_tokenizer

CORPUS = list(draw_corpus(3000, seed=0, problems_seed=0, splits=SplitsConfig()))


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer((f"{p.statement}\n{p.code}" for p in CORPUS), 1024)


def encode(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_the_tokens_of_a_prefix_are_a_prefix_of_the_tokens_of_its_program(tokenizer):
    for program in CORPUS[:500]:
        whole = encode(tokenizer, f"{program.statement}\n{program.code}")
        for step in split_steps(program.code):
            head = encode(tokenizer, f"{program.statement}\n{prefix(program.code, step)}")
            assert head == whole[: len(head)]


def test_so_are_those_of_a_statement_and_those_of_any_whole_line(tokenizer):
    for program in CORPUS[:200]:
        text = f"{program.statement}\n{program.code}{END}"
        whole = encode(tokenizer, text)
        lines = text.splitlines(keepends=True)
        for count in range(1, len(lines)):
            if lines[count - 1] == "\n":
                continue  # blank lines belong to the line after them
            head = encode(tokenizer, "".join(lines[:count]))
            assert head == whole[: len(head)]


def test_any_text_comes_back_as_it_was(tokenizer):
    rng = random.Random(0)
    texts = [p.statement + "\n" + p.code for p in CORPUS[:100]]
    texts += ["".join(rng.choices("a,: \n\t0é漢😀def(", k=40)) for _ in range(300)]
    for text in texts:
        assert tokenizer.decode(encode(tokenizer, text)) == text


def test_a_chat_is_the_statement_a_newline_and_what_the_answer_begins_with(tokenizer):
    chat = [{"role": "user", "content": "Sort them."}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert prompt == "Sort them.\n"
    prefilled = tokenizer.apply_chat_template(
        [*chat, {"role": "assistant", "content": "def main():\n"}],
        continue_final_message=True,
        tokenize=False,
    )
    assert prefilled == "Sort them.\ndef main():\n"


def test_an_empty_system_message_is_left_out_and_another_is_refused(tokenizer):
    user = {"role": "user", "content": "Sort them."}
    chat = [{"role": "system", "content": ""}, user]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "Sort them.\n"
    with pytest.raises(Exception, match="without system messages"):
        tokenizer.apply_chat_template(
            [{"role": "system", "content": "Be brief."}, user], tokenize=False
        )


def test_padding_end_and_step_are_single_tokens_apart(tokenizer):
    ids = [encode(tokenizer, token) for token in (PAD, END, STEP)]
    assert ids == [[tokenizer.pad_token_id], [tokenizer.eos_token_id], ids[2]]
    assert len(ids[2]) == 1
    assert len({id_ for (id_,) in ids}) == 3


def test_a_statement_with_its_program_takes_fewer_than_30_tokens_on_average(tokenizer):
    lengths = [len(encode(tokenizer, f"{p.statement}\n{p.code}{END}")) for p in CORPUS]
    assert sum(lengths) / len(lengths) < 30
    assert max(lengths) < 100
