"""The README of a trained PRM: what it is, what it learned from, and how to ask it."""

import json
from collections.abc import Sequence

import numpy as np

from pipeline.config import ArmConfig, Correction, TrainingConfig
from pipeline.prm.results import HistoryRow
from pipeline.prm.training_set import TrainingSet
from pipeline.records import LabelEstimate

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
(by {shift:.3f} on average). Mean weight {weight:.3f}.

## Results

Mean training loss {first_loss:.4f} over the first tenth of {optimizer_steps} optimizer steps,
{last_loss:.4f} over the last. How well it selects programs is said by the report of the run that
it belongs to, not here.

## Config

```json
{config}
```
"""


LOAD = {
    "model": """\
from transformers import AutoModelForTokenClassification

prm = AutoModelForTokenClassification.from_pretrained(FOLDER)""",
    "adapter": """\
from peft import AutoPeftModelForTokenClassification

prm = AutoPeftModelForTokenClassification.from_pretrained(FOLDER, num_labels=1)""",
}
"""How each folder of an export is loaded."""


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
    losses = np.array([row.loss for row in history])
    tenth = -(-len(losses) // 10)
    shown = config.model_dump(mode="json", exclude={"arms"})
    if arm.correction is Correction.NONE:
        del shown["correction"]
    facts = {
        "base": config.model.base,
        "name": arm.name,
        "targets": arm.targets.value,
        "correction": arm.correction.value,
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
        "first_loss": _mean(losses[:tenth]),
        "last_loss": _mean(losses[-tenth:]),
        "optimizer_steps": len(losses),
        "config": json.dumps(shown, indent=2),
    }
    return {
        folder: CARD.format(
            library="peft" if folder == "adapter" else "transformers", load=load, **facts
        )
        for folder, load in LOAD.items()
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0
