"""The worker that scores programs with a trained PRM."""

from typing import TYPE_CHECKING, Any

from pipeline.config import ArmConfig
from pipeline.plan import Plan
from pipeline.quarantine import Slice
from pipeline.records import ScoredSolution
from pipeline.store import StageStore
from pipeline.workers.making import Make, PartWorker, Row

if TYPE_CHECKING:
    from pipeline.prm.scoring import Scorer


class ScoreParts(PartWorker):
    """Examples -> PRM scores of the arm that the row names; one model is held at a time."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        # Told, because an actor without GPUs may see those of others.
        self.device = "cuda" if plan.config.training.use_gpu else "cpu"
        self.arms = {arm.name: arm for arm in plan.config.training.arms}
        self.loaded: tuple[str, Scorer] | None = None

    def stages(self, row: Row) -> list[tuple[StageStore[Any], Make]]:
        arm = self.arms[row["arm"]]
        return [(self.plan.scores(arm), lambda piece: self.scores(arm, piece))]

    def scores(self, arm: ArmConfig, piece: Slice) -> list[ScoredSolution]:
        # torch and transformers take seconds to import, which the other workers start without.
        from pipeline.prm.scoring import Scorer

        if self.loaded is None or self.loaded[0] != arm.name:
            self.loaded = None  # before the next is loaded: two may not fit
            self.loaded = (arm.name, Scorer(self.plan.prm_model(arm), device=self.device))
        return self.loaded[1].score(piece.read(self.plan.examples))
