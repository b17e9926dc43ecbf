"""The README of a trained PRM: what it is, what it learned from, and how to ask it."""

import json
from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.config import ArmConfig, Correction, TrainingConfig
from pipeline.prm.results import HistoryRow, selection_block
from pipeline.prm.training_set import TrainingSet
from pipeline.records import Example, LabelEstimate

CARD = """\
---
library_name: {library}
pipeline_tag: token-classification
tags: [process-reward-model, code]
base_model: {base}
---

# {name}: a process reward model for code

Scores every function of a program: how likely is it that a program with this beginning passes its
unit tests? `targets: {targets}`, `correction: {correction}`.

## Use

```python
{load}
```

{computing}\
Tokenise the problem, then every function on its own, each followed by the end-of-sequence token
(id {separator}); nothing follows the code. `sigmoid(logits[position of the t-th such token])` is
the score of step t. At most {max_tokens} tokens: cut the problem, never the code.
`pipeline.prm.scoring.Scorer` does this.

## Data

{trained} programs of {problems} problems ({passing} pass their unit tests), {steps} labelled
intermediate steps; {too_long} programs were longer than the context and left out.
{meta} finished programs of other problems in the meta set.

## Labels

Mean {initial_mean:.3f} before correction, {corrected_mean:.3f} after; {moved} of {steps} moved
(by {shift:.3f} on average). Mean weight {weight:.3f}.{known}

## Results

| over {optimizer_steps} optimizer steps | first tenth | last tenth |
|---|---|---|
{losses}

{selection}

## Config

```json
{config}
```
"""


LOWERED = """\
It was trained in {0}, its head in float32: ask it under
`torch.autocast(DEVICE, torch.{0})` for the scores of its training, up to rounding.

"""

NOT_EVALUATED = (
    "How well it selects programs is not known yet: the evaluation of a run says it here."
)

LOAD = {
    "model": """\
from transformers import AutoModelForTokenClassification

prm = AutoModelForTokenClassification.from_pretrained(FOLDER)""",
    "adapter": """\
from peft import AutoPeftModelForTokenClassification

prm = AutoPeftModelForTokenClassification.from_pretrained(FOLDER, num_labels=1)""",
}
"""How each folder of an export is loaded."""

LOAD_ON_FETCHED = """\
from peft import PeftModel
from transformers import AutoModelForTokenClassification

base = AutoModelForTokenClassification.from_pretrained(COPY_OF_THE_BASE, num_labels=1)
prm = PeftModel.from_pretrained(base, FOLDER)"""
"""How adapters are loaded whose base is behind a URI, which peft cannot fetch."""


def model_cards(
    config: TrainingConfig,
    arm: ArmConfig,
    data: TrainingSet,
    estimates: Sequence[LabelEstimate],
    history: Sequence[HistoryRow],
) -> dict[str, str]:
    """For each folder of an export, Markdown with a Hugging Face header."""
    initial = np.array([row.initial for row in estimates])
    corrected = np.array([row.corrected for row in estimates])
    moved = initial != corrected
    shown = config.model_dump(mode="json", exclude={"arms"})
    if arm.correction is Correction.NONE:
        del shown["correction"]
    facts = {
        "base": config.model.base,
        "name": arm.name,
        "targets": arm.targets.value,
        "correction": arm.correction.value,
        "computing": "" if config.model.dtype == "float32" else LOWERED.format(config.model.dtype),
        "separator": data.solutions[0].token_ids[-1],
        "max_tokens": config.model.max_tokens,
        "trained": len(data.examples),
        "problems": len({example.problem_id for example in data.examples}),
        "passing": sum(example.final_label for example in data.examples),
        "too_long": data.too_long,
        "meta": len(data.meta_solutions),
        "steps": len(estimates),
        "initial_mean": _mean(initial),
        "corrected_mean": _mean(corrected),
        "moved": int(moved.sum()),
        "shift": _mean(np.abs(corrected - initial)[moved]),
        "weight": _mean(np.array([row.weight for row in estimates])),
        "known": _against_truth(data.examples, estimates),
        "losses": "\n".join(_losses(history)),
        "optimizer_steps": len(history),
        "selection": selection_block(NOT_EVALUATED),
        "config": json.dumps(shown, indent=2),
    }
    fetched = "://" in config.model.base
    return {
        folder: CARD.format(
            library="peft" if folder == "adapter" else "transformers",
            load=LOAD_ON_FETCHED if fetched and folder == "adapter" else load,
            **facts,
        )
        for folder, load in LOAD.items()
    }


def _losses(history: Sequence[HistoryRow]) -> Iterator[str]:
    """Table rows: the loss of training and, where there was one, of the meta set; means over the
    first and the last tenth of the steps that have it."""
    for name, column in (
        ("training loss", [row.loss for row in history]),
        ("meta loss", [row.meta_loss for row in history if row.meta_loss is not None]),
    ):
        if column:
            tenth = -(-len(column) // 10)
            first, last = (_mean(np.array(part)) for part in (column[:tenth], column[-tenth:]))
            yield f"| {name} | {first:.4f} | {last:.4f} |"


def _against_truth(examples: Sequence[Example], estimates: Sequence[LabelEstimate]) -> str:
    """How far the labels of intermediate steps are from the known truth; empty without any."""
    truth = {
        step_id: float(right)
        for example in examples
        for step_id, right in zip(example.step_ids, example.step_truth or (), strict=False)
    }
    known = [row for row in estimates if row.step_id in truth]
    if not known:
        return ""
    right = np.array([truth[row.step_id] for row in known])
    before, after = (
        np.array(labels) for labels in zip(*((r.initial, r.corrected) for r in known), strict=True)
    )
    return (
        f" Against the known truth of {len(known)} steps: Brier score "
        f"{_mean((before - right) ** 2):.4f} before, {_mean((after - right) ** 2):.4f} after; "
        f"{int(((before >= 0.5) != (right >= 0.5)).sum())} on the wrong side of 1/2 before, "
        f"{int(((after >= 0.5) != (right >= 0.5)).sum())} after."
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0
