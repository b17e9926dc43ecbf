"""`make test` in several processes: each takes whole groups of tests."""

from xdist.scheduler import LoadScopeScheduling

from tests.order import group


class ByGroup(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)
