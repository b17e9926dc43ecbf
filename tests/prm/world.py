"""A world small enough for unit tests: a tokenizer and a decoder made on the spot, and programs
whose steps are right or wrong for a reason that a model can see."""

import dataclasses
import random
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from pipeline.config import ArmConfig, TrainingConfig
from pipeline.prm.data import TrainingExamples
from pipeline.prm.encoding import Encoder
from pipeline.prm.fitting import Fit
from pipeline.prm.label_table import initial_labels
from pipeline.prm.model import build_tokenizer
from pipeline.prm.parallel import CPU, Ranks
from pipeline.prm.parallelize import parallelize
from pipeline.prm.training_set import prepare
from pipeline.records import Example, Role, content_hash

OPERATIONS = ("double", "square", "negate", "halve", "triple")
EXPRESSIONS = {
    "double": "x * 2",
    "square": "x * x",
    "negate": "-x",
    "halve": "x // 2",
    "triple": "x * 3",
}


def make_base(directory: Path, *, hidden: int = 32, layers: int = 2, context: int = 256) -> str:
    """A randomly initialised Qwen2 policy and its tokenizer, saved in Hugging Face form."""
    corpus = [example.problem + "\n" + example.code for example in make_examples(64, seed=99)]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(corpus, vocab_size=320, special_tokens=["<|end|>"], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, eos_token="<|end|>", pad_token="<|end|>"
    )
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=context,
            tie_word_embeddings=True,
        )
    ).save_pretrained(directory)
    return str(directory)


def make_example(
    operations: tuple[str, ...],
    written: tuple[str, ...],
    *,
    index: int = 0,
    role: Role = Role.TRAIN,
    passed: tuple[int, ...] | None = None,
    trials: tuple[int, ...] | None = None,
) -> Example:
    """The problem asks for `operations`, the program does `written`: one function each. A prefix is
    right as long as no function in it differs."""
    functions = [
        f"def step_{number}(x):\n    return {EXPRESSIONS[name]}\n\n"
        for number, name in enumerate(written)
    ]
    code = "".join(functions)
    ends = tuple(len("".join(functions[: count + 1]).encode()) for count in range(len(functions)))
    truth = tuple(
        written[: count + 1] == operations[: count + 1] for count in range(len(functions))
    )
    problem = " then ".join(operations)
    of_role = [] if role is Role.TRAIN else [role]  # no problem is in two roles
    solution_id = content_hash(problem, code, index, *of_role)
    return Example(
        solution_id=solution_id,
        problem_id=content_hash(problem, *of_role),
        role=role,
        difficulty=str(len(operations)),
        problem=problem,
        code=code,
        step_ends=ends,
        step_ids=tuple(content_hash(solution_id, step) for step in range(len(ends))),
        passed=passed or tuple(4 * right for right in truth),
        trials=trials or (4,) * len(ends),
        step_truth=truth,
        final_label=bool(truth) and truth[-1],
    )


def make_examples(count: int, *, seed: int = 0, role: Role = Role.TRAIN) -> list[Example]:
    """About half of the programs are right; lengths differ."""
    rng = random.Random(seed)
    examples = []
    for index in range(count):
        operations = tuple(rng.choice(OPERATIONS) for _ in range(rng.randint(2, 4)))
        written = list(operations)
        if rng.random() < 0.5:
            written[rng.randrange(len(written))] = rng.choice(OPERATIONS)
        examples.append(make_example(operations, tuple(written), index=index, role=role))
    return examples


def fit_of(
    config: TrainingConfig,
    arm: ArmConfig,
    train: list[Example],
    meta: list[Example],
    ranks: Ranks,
    device: torch.device = CPU,
) -> Fit:
    """A training on examples, ready to run."""
    scorer, flat = parallelize(config, ranks, device)
    encoder = Encoder(build_tokenizer(config.model))
    of_arm = config.model_copy(update={"arms": (arm,)})
    data = prepare(TrainingExamples(tuple(train), tuple(meta)), encoder, of_arm)
    labels = [initial_labels(example, arm.targets) for example in data.examples]
    return Fit(config, arm, data, labels, scorer, flat, ranks, "fingerprint")


def half_right(example: Example) -> Example:
    """Noisy evidence with labels inside (0, 1): half of the rollouts of every prefix pass."""
    return dataclasses.replace(example, passed=(2,) * len(example.step_ids))
