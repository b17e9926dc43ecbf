"""How long a worker waits for what may pass, instead of giving up one part after another.

A sandbox or an engine that is gone fails a part at once, and who fails fast is handed the next: one
bad node would empty the queue. So its worker keeps the part, tries again after a while, and waits
longer with each failure in a row; the parts that it does not take are made elsewhere.
"""

TRIES = 3
"""Of a part, before it is handed back as failed."""

FIRST_S = 5.0
LONGEST_S = 300.0
"""The pauses double from the first to the longest: a bad worker gives up a part in 15 s, the next
in 1 min, and later one in 10 min."""


class Patience:
    """One worker's, over all of its parts."""

    def __init__(self, first_s: float = FIRST_S) -> None:
        self._first_s = first_s
        self._in_a_row = 0

    def pause_s(self) -> float:
        """How long to wait now that a try failed."""
        pause = min(self._first_s * 2.0 ** min(self._in_a_row, 30), LONGEST_S)
        self._in_a_row += 1
        return pause

    def relieve(self) -> None:
        """A try went well: whatever it was has passed."""
        self._in_a_row = 0
