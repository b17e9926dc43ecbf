"""The actors' insides: each makes one part, from the store to the store. No Ray here.

Ray Data hands a worker rows that name a part and carry an `error` text, empty while all is well. A
worker never raises: an exception would stop every other part of the stage, so it travels to the
driver as text and is told when all that could be done is done. What may pass is waited for first.
"""

from pipeline.workers.asking import CompleteParts, PolicyWorker, SampleParts
from pipeline.workers.joining import JoinParts
from pipeline.workers.judging import JudgeRolloutParts, JudgeSolutionParts
from pipeline.workers.making import Make, PartWorker, Row, new_row
from pipeline.workers.scoring import ScoreParts

__all__ = [
    "CompleteParts",
    "JoinParts",
    "JudgeRolloutParts",
    "JudgeSolutionParts",
    "Make",
    "PartWorker",
    "PolicyWorker",
    "Row",
    "SampleParts",
    "ScoreParts",
    "new_row",
]
