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

from pipeline.files import FileState, listing, read_bytes, write_atomically

LIVING_S = 60.0
"""A spender that has not renewed its file for longer settles nothing any more."""

_ACCOUNT = ".json"
_SETTLED_S = 60.0
"""A file younger than this is read again though it looks the same: object stores tell its time in
whole seconds, by a clock of their own."""


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
    """The accounts of a directory, local or behind a URI."""

    def __init__(self, directory: Path | str) -> None:
        self._directory = str(directory)
        self._known: dict[str, tuple[FileState, Account]] = {}

    def write(self, spender: str, account: Account) -> None:
        """Durable when it returns. Raises StoreError."""
        write_atomically(self._path(spender), json.dumps(asdict(account)).encode())

    def read(self, spender: str) -> Account:
        data = read_bytes(self._path(spender))
        return Account(0.0, 0.0) if data is None else Account(**json.loads(data))

    def others(self, spender: str) -> Others:
        """All accounts but one's own, as they are now."""
        now = time.time()
        accounts: dict[str, tuple[FileState, Account]] = {}
        for file, state in listing(self._directory).items():
            name = file.removesuffix(_ACCOUNT)
            if name in (spender, file):
                continue
            known = self._known.get(name)
            settled = now - state.modified_ns / 1e9 > _SETTLED_S
            accounts[name] = (
                known if known and known[0] == state and settled else (state, self.read(name))
            )
        self._known = accounts
        return Others(
            spent_usd=sum(account.spent_usd for _, account in accounts.values()),
            promised_usd=sum(account.promised_usd for _, account in accounts.values()),
            settling=any(
                account.promised_usd > 0 and now - account.renewed < LIVING_S
                for _, account in accounts.values()
            ),
        )

    def _path(self, spender: str) -> str:
        return f"{self._directory}/{spender}{_ACCOUNT}"
