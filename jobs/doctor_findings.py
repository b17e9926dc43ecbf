"""What the doctor says: one line per thing, with the mend."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    OK = "ok"
    ABSENT = "absent"  # not needed by the demo
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `mend` says what to do where `state` is not ok."""

    name: str
    state: State
    detail: str
    mend: str = ""

    def __str__(self) -> str:
        mend = f" -> {self.mend}" if self.mend else ""
        return f"{self.state:8} {self.name:15} {self.detail}{mend}"
