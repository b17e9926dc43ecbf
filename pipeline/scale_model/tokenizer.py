"""The small policy's tokenizer: a byte-level BPE that never merges across the end of a line.

A cut of a program at a function's end is the end of a line, so the tokens of a prefix are a prefix
of the program's tokens: what a policy continues in a rollout is what it would have written itself.
Numbers are pieces of their own, so `x > 5` and `x > 6` differ in one token.
"""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

PAD = "<|pad|>"
END = "<|end|>"
STEP = "<|step|>"
"""Never seen in training: free for a PRM to mark the end of a step with."""

PIECES = Regex(r"\d+|\n*[^\n\d]*?(?:, |: )|\n*[^\n\d]*\n|\n*[^\n\d]+|\n+")
"""A number; a phrase up to its comma or colon; the rest of a line with its newline. The newlines
of blank lines belong to the line after them, as they do to the next function."""

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{{ message['content'] + '\\n' }}
{%- elif message['role'] == 'assistant' -%}
{{ message['content'] + eos_token }}
{%- elif message['content'] -%}
{{ raise_exception('this policy was trained without system messages') }}
{%- endif -%}
{%- endfor -%}"""
"""A user's message and a newline: the text that the policy learned to continue with a program."""


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Learn a tokenizer of at most `vocabulary` tokens (bytes and special tokens included)."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [
            Split(PIECES, behavior="isolated"),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END, STEP],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[STEP],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
