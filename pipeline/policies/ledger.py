"""Who spent and who may yet spend how many dollars: one small file per spender, in the journal.

A spender is a process, or a batch, which outlives the process that submitted it. Nobody writes to
another's file, and each file appears whole or not at all, so that a sum over the folder needs no
lock. What a spender has promised stays promised when it is killed: those calls may have been
billed.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.files import write_atomically

LIVING_S = 60.0
"""A spender that has not renewed its file for longer settles nothing any more."""


@dataclass(frozen=True, slots=True)
class Account:
    """Dollars of one spender; `renewed` in seconds since the epoch, 0 for one that never will."""

    spent_usd: float
    promised_usd: float
    renewed: float = 0.0


@dataclass(frozen=True, slots=True)
class Others:
    """What all other spenders together have spent and promised."""

    spent_usd: float
    promised_usd: float
    settling: bool  # some of them are alive and may turn out cheaper


class Ledger:
    """The accounts of a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, tuple[int, Account]] = {}

    def write(self, spender: str, account: Account) -> None:
        """Durable when it returns. Raises StoreError."""
        self._directory.mkdir(parents=True, exist_ok=True)
        write_atomically(str(self._path(spender)), json.dumps(asdict(account)).encode())

    def read(self, spender: str) -> Account:
        path = self._path(spender)
        return Account(**json.loads(path.read_bytes())) if path.exists() else Account(0.0, 0.0)

    def others(self, spender: str) -> Others:
        """All accounts but one's own, as they are now."""
        accounts: dict[str, tuple[int, Account]] = {}
        for path in self._directory.glob("*.json"):
            name, changed = path.stem, path.stat().st_mtime_ns
            if name != spender:
                known = self._known.get(name)
                accounts[name] = (
                    known if known and known[0] == changed else (changed, self.read(name))
                )
        self._known = accounts
        now = time.time()
        return Others(
            spent_usd=sum(account.spent_usd for _, account in accounts.values()),
            promised_usd=sum(account.promised_usd for _, account in accounts.values()),
            settling=any(
                account.promised_usd > 0 and now - account.renewed < LIVING_S
                for _, account in accounts.values()
            ),
        )

    def _path(self, spender: str) -> Path:
        return self._directory / f"{spender}.json"
