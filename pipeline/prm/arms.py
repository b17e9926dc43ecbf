"""One arm, from examples to published results, on one of any number of ranks. No Ray here."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.config import ArmConfig, Targets, TrainingConfig
from pipeline.prm.checkpoint import ArmState, load_state, save_state
from pipeline.prm.crossfit import beliefs, halves, share
from pipeline.prm.export import export
from pipeline.prm.fitting import Fit, StepReport
from pipeline.prm.flat_parameters import pieces
from pipeline.prm.label_table import initial_labels, label_estimates
from pipeline.prm.model_card import model_cards
from pipeline.prm.parallel import Ranks
from pipeline.prm.parallelize import parallelize
from pipeline.prm.results import Outcome, Pace, write_pace, write_results
from pipeline.prm.scoring import score_encoded
from pipeline.prm.training_set import TrainingSet
from pipeline.records import content_hash

Labels = list[list[float | None]]


@dataclass(frozen=True, slots=True)
class ArmTraining:
    """One arm on this rank; all ranks hold the same but for `ranks` and `device`."""

    config: TrainingConfig
    arm: ArmConfig
    data: TrainingSet
    storage: str
    fingerprint: str
    ranks: Ranks
    device: torch.device
    on_step: Callable[[str, StepReport], None]
    """Told the name of what is trained, and how far it is."""

    def run(self) -> float:
        """Train, resuming from the last checkpoint, and publish. The last loss."""
        labels = self._labels()
        fit = self._fit(self.arm, self.data, labels, self.storage, self.fingerprint)
        corrected = fit.corrected_labels()
        weights = fit.flat.whole(fit.flat.values.data)
        if self.ranks.rank == 0:
            outcome = Outcome(
                fingerprint=self.fingerprint,
                steps=fit.step,
                trained=len(self.data.examples),
                too_long=self.data.too_long,
                correction_stopped_at=fit.correction.stopped_at,
                adapter=self.config.model.lora is not None,
            )
            estimates = label_estimates(self.data.examples, labels, corrected)
            with tempfile.TemporaryDirectory() as directory:
                export(self.config.model, pieces(fit.flat.layout, weights), Path(directory))
                cards = model_cards(self.config, self.arm, self.data, estimates, fit.history)
                for folder in Path(directory).iterdir():
                    (folder / "README.md").write_text(cards[folder.name], encoding="utf-8")
                write_results(self.storage, Path(directory), estimates, fit.history, outcome)
        return fit.history[-1].loss

    def _labels(self) -> Labels:
        """The labels of every example before any correction."""
        believed: dict[str, float] = {}
        if self.arm.targets is Targets.CROSSFIT:
            first, second = halves(self.data.examples)
            for half, (taught, judged) in enumerate([(first, second), (second, first)]):
                believed.update(self._judge(half, taught, judged))
        strength = self.config.crossfit_strength
        return [
            initial_labels(example, self.arm.targets, believed, strength)
            for example in self.data.examples
        ]

    def _judge(self, half: int, taught: list[int], judged: list[int]) -> dict[str, float]:
        """What a PRM trained on the rollouts of some examples believes of the steps of others."""
        arm = ArmConfig(name=f"{self.arm.name}_half_{half + 1}", targets=Targets.SOFT)
        data = self.data.part(taught)
        labels = [initial_labels(example, arm.targets) for example in data.examples]
        fit = self._fit(
            arm,
            data,
            labels,
            f"{self.storage}/half-{half + 1}",
            content_hash(self.fingerprint, half),
        )
        mine = share(judged, self.data.solutions, self.ranks)
        scores = score_encoded(
            fit.scorer,
            [self.data.solutions[index] for index in mine],
            self.device,
            together=fit.flat.inner.shards,
        )
        believed = beliefs(self.data.examples, mine, scores)
        return {
            step: belief for part in self.ranks.gather(believed) for step, belief in part.items()
        }

    def _fit(
        self, arm: ArmConfig, data: TrainingSet, labels: Labels, storage: str, fingerprint: str
    ) -> Fit:
        """Trained to the end, from the last checkpoint where there is one."""
        scorer, flat = parallelize(self.config, self.ranks, self.device)
        fit = Fit(self.config, arm, data, labels, scorer, flat, self.ranks, fingerprint)
        checkpoint = load_state(storage, fingerprint)
        if checkpoint:
            fit.restore(checkpoint)
        del checkpoint  # as large as weights and moments together
        first, began = fit.step, time.monotonic()

        def save(state: ArmState) -> None:
            if self.ranks.rank == 0:
                save_state(storage, state)
                seconds = time.monotonic() - began
                write_pace(storage, Pace(state.step, fit.total, state.step - first, seconds))

        for report in fit.run(save):
            self.on_step(arm.name, report)
        return fit
