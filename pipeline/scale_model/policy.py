"""Trains the small policy: a Qwen3-architecture causal language model, from scratch, on one CPU
thread, saved in Hugging Face form so that vLLM and transformers load it like any other.

Not Qwen2: transformers 5 gives a model of that type Qwen2's own pre-tokenizer, whatever its
`tokenizer.json` says, and with it a program has three times the tokens.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.utils import logging

from pipeline.config import ScaleModelPolicy, ScaleModelProblems, SplitsConfig
from pipeline.scale_model.corpus import CorpusProgram, draw_corpus
from pipeline.scale_model.tokenizer import END, PAD, train_tokenizer

VOCABULARY = 1024
"""Tokens: enough for nearly every phrase and every line of code to be one or two."""
CONTEXT = 256
"""Longest sequence, tokens; a statement with its program has about 27."""
TOKENIZER_TEXTS = 6000
WARMUP = 0.05
POOL = 16
"""Batches whose programs are sorted by length together, so that a batch needs little padding."""
IGNORED = -100

Progress = Callable[[int, int, float], None]
"""Called with the step, the number of steps and the mean loss since the last call (nats/token)."""


def train_policy(
    config: ScaleModelPolicy,
    problems: ScaleModelProblems,
    splits: SplitsConfig,
    directory: Path,
    on_progress: Progress,
) -> None:
    """Train the policy and save model and tokenizer in `directory`, all of it or nothing.

    A function of the options alone (the thread count too, by rounding). Of `problems` only the
    seed matters: with `splits` it says which operation sequences the corpus may hold. Whatever is
    in `directory` is replaced. Raises FloatingPointError where the training diverges.
    """
    corpus = list(draw_corpus(config.programs, config.seed, problems.seed, splits))
    tokenizer = train_tokenizer(
        (f"{program.statement}\n{program.code}" for program in corpus[:TOKENIZER_TEXTS]),
        VOCABULARY,
    )
    with _threads(config.threads):
        model = _train(config, tokenizer, _encode(corpus, tokenizer), on_progress)
    _save(model, tokenizer, directory)


@dataclass(frozen=True)
class _Sequences:
    """Statements and programs as tokens, padded on the right to the longest of them.

    `targets` holds the next token where that is the program's (its end included), else IGNORED:
    what a statement says is not the policy's to learn.
    """

    tokens: Int[Tensor, "program token"]
    targets: Int[Tensor, "program token"]
    lengths: Int[np.ndarray, " program"]


def _encode(corpus: list[CorpusProgram], tokenizer: PreTrainedTokenizerFast) -> _Sequences:
    encode = tokenizer.backend_tokenizer.encode_batch
    statements = [e.ids for e in encode([f"{program.statement}\n" for program in corpus])]
    programs = [e.ids for e in encode([program.code + END for program in corpus])]
    lengths = np.array([len(s) + len(p) for s, p in zip(statements, programs, strict=True)])
    tokens = np.full((len(corpus), lengths.max()), tokenizer.pad_token_id)
    targets = np.full_like(tokens, IGNORED)
    for row, (statement, program) in enumerate(zip(statements, programs, strict=True)):
        begin, end = len(statement), lengths[row]
        tokens[row, :end] = statement + program
        targets[row, begin - 1 : end - 1] = program
    return _Sequences(torch.from_numpy(tokens), torch.from_numpy(targets), lengths)


def _batches(
    lengths: Int[np.ndarray, " program"], size: int, rng: np.random.Generator
) -> Iterator[Int[np.ndarray, " batch"]]:
    """Endless batches of programs of nearly the same length, each program once per epoch."""
    while True:
        order = rng.permutation(len(lengths))
        batches = []
        for start in range(0, len(order), POOL * size):
            pool = order[start : start + POOL * size]
            pool = pool[np.argsort(lengths[pool], kind="stable")]
            batches += [pool[i : i + size] for i in range(0, len(pool), size)]
        yield from (batches[i] for i in rng.permutation(len(batches)))


def _train(
    config: ScaleModelPolicy,
    tokenizer: PreTrainedTokenizerFast,
    sequences: _Sequences,
    on_progress: Progress,
) -> Qwen3ForCausalLM:
    torch.manual_seed(config.seed)
    model = Qwen3ForCausalLM(_architecture(tokenizer))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1.0, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    warmup = max(1, round(WARMUP * config.steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            config.learning_rate
            * min((step + 1) / warmup, (config.steps - step) / max(1, config.steps - warmup))
        ),
    )
    every = max(1, config.steps // 100)
    batches = _batches(sequences.lengths, config.batch_size, np.random.default_rng(config.seed))
    total = torch.zeros(())
    for step, batch in zip(range(1, config.steps + 1), batches, strict=False):
        # Padding is on the right, so causal attention needs no mask, which keeps its fast path.
        length = int(sequences.lengths[batch].max()) - 1
        rows = torch.from_numpy(batch)
        targets = sequences.targets[rows, :length]
        learned = targets != IGNORED
        hidden = model.model(sequences.tokens[rows, :length], use_cache=False).last_hidden_state
        loss = cross_entropy(model.lm_head(hidden[learned]), targets[learned])
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += loss.detach()
        if step % every == 0 or step == config.steps:
            mean = total.item() / ((step - 1) % every + 1)
            if not np.isfinite(mean):
                raise FloatingPointError(
                    f"the loss of the scale model's policy was {mean} by step {step}: lower "
                    "scale_model.learning_rate"
                )
            on_progress(step, config.steps, mean)
            total.zero_()
    return model.eval()


def _architecture(tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    """0.65 million parameters."""
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.backend_tokenizer.token_to_id(PAD),
        eos_token_id=tokenizer.backend_tokenizer.token_to_id(END),
        bos_token_id=None,
    )


def _save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """A directory is there with all of its files or not at all."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = directory.with_name(f".{directory.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
    )
    logging.disable_progress_bar()
    model.save_pretrained(partial)
    logging.enable_progress_bar()
    tokenizer.save_pretrained(partial)
    shutil.rmtree(directory, ignore_errors=True)
    partial.rename(directory)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
