"""Programs that are right, wrong or hostile, and the verdict that each must get.

`python -m tests.sandbox.hostile` runs them all in one container and prints what became of each.
"""

from tests.sandbox.hostile.clock import TIME_ATTACKS
from tests.sandbox.hostile.entry import Category, Entry
from tests.sandbox.hostile.forgeries import FORGERIES
from tests.sandbox.hostile.idioms import IDIOMS
from tests.sandbox.hostile.machine import MACHINE_ATTACKS
from tests.sandbox.hostile.runner import RUNNER_ATTACKS

ENTRIES = (*IDIOMS, *FORGERIES, *RUNNER_ATTACKS, *MACHINE_ATTACKS, *TIME_ATTACKS)

__all__ = ["ENTRIES", "Category", "Entry"]
