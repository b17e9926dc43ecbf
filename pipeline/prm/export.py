"""A trained PRM as folders that others load.

model/      `AutoModelForTokenClassification.from_pretrained`; adapters merged into the base, in
            the base's own dtype: in bfloat16 the scores differ from training's by its rounding,
            in float32 they are the same. The head is float32. `prm_compute_dtype` in config.json
            names the dtype that training computed in, and `pipeline.prm.scoring` does
adapter/    adapters and head alone, in float32, for the same call or
            `peft.AutoPeftModelForTokenClassification`, either with `num_labels=1`: only where LoRA
            was trained. Its base goes by the name that the config gives it; one behind a URI must
            be fetched before
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.config import ModelConfig
from pipeline.prm.model import build_scorer, quiet
from pipeline.prm.parallel import CPU


def export(config: ModelConfig, trained: Mapping[str, Tensor], directory: Path) -> None:
    """Write the folders below `directory`, from the trained weights by name.

    The model is built anew in host memory: the one that was trained may be cut over ranks, and
    merging would change it.
    """
    scorer, tokenizer = build_scorer(config, 0, CPU)
    weights = {name: p for name, p in scorer.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(trained[name])
    if config.lora:
        adapted: Any = scorer.network
        # Not where this machine has it: that may be a download in a temporary folder.
        adapted.peft_config["default"].base_model_name_or_path = config.base
        with quiet():
            # Embeddings are never resized; to find out, peft would look the base up on the hub.
            adapted.save_pretrained(directory / "adapter", save_embedding_layers=False)
        tokenizer.save_pretrained(directory / "adapter")
        scorer.network = adapted.merge_and_unload()
    with quiet():
        scorer.classifier.save_pretrained(directory / "model")
    tokenizer.save_pretrained(directory / "model")
