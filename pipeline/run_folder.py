"""A run's own folder, `<output>/<name>/`, kept where the store is: its log and its curves.

The folder is on the driver's machine, which may be gone tomorrow. Where the store is behind a URI,
both are copied to `<root>/runs/<name>/`, every few minutes and at the end, and a driver that goes
on with the run elsewhere begins with what is there. (A run's id at MLflow is kept there by
`pipeline.metrics`, its report by `pipeline.outcome`.)

Log and event files only ever grow, each written by one driver at a time: of two copies the longer
is the later one.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.config import PipelineConfig
from pipeline.files import FileState, StoreError, copy, is_local, listing, tree

logger = logging.getLogger(__name__)

LOG = "log.txt"
METRICS = "metrics"

PERIOD_S = 300.0
"""Between two copies: what a machine that is lost takes with it. Each copies whole files."""

_SENT_ELSEWHERE = f"{METRICS}/wandb/"
"""What W&B's client has sent, or is about to."""


def run_folder(config: PipelineConfig) -> Path:
    """The run's folder on this machine."""
    return Path(config.output) / config.name


def fetch_log(config: PipelineConfig) -> None:
    """Go on with the log that a driver on another machine has left; before it is opened. Raises
    StoreError, OSError."""
    if not is_local(config.root):
        _bring_up_to_date(_kept(config), _here(config), _log)


@contextmanager
def kept(config: PipelineConfig) -> Iterator[None]:
    """Bring the curves that drivers on other machines have left, then copy log and curves to the
    store now and then, and at the end, however that comes. Who does it holds the run's name.

    Raises StoreError, OSError where the store cannot be read. What cannot be copied to it later is
    logged, and no failure of the run.
    """
    if is_local(config.root):
        yield
        return
    _bring_up_to_date(_kept(config), _here(config), _curves)
    stopped = threading.Event()

    def publish_now_and_then() -> None:
        while not stopped.wait(PERIOD_S):
            _publish(config)

    thread = threading.Thread(target=publish_now_and_then, name="run-folder", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        _publish(config)


def _publish(config: PipelineConfig) -> None:
    try:
        for files in (_log, _curves):
            _bring_up_to_date(_here(config), _kept(config), files)
    except (StoreError, OSError) as error:
        logger.warning("log and curves were not copied to the store: %s", error)


def _here(config: PipelineConfig) -> str:
    return str(run_folder(config).absolute())


def _kept(config: PipelineConfig) -> str:
    return f"{config.root.rstrip('/')}/runs/{config.name}"


_Files = dict[str, FileState]


def _bring_up_to_date(source: str, target: str, files_of: Callable[[str], _Files]) -> None:
    """Copy each of these files that is longer in `source`."""
    there = files_of(target)
    for name, state in files_of(source).items():
        if name not in there or there[name].size < state.size:
            copy(f"{source}/{name}", f"{target}/{name}")


def _log(folder: str) -> _Files:
    return {name: state for name, state in listing(folder).items() if name == LOG}


def _curves(folder: str) -> _Files:
    files = {f"{METRICS}/{name}": state for name, state in tree(f"{folder}/{METRICS}").items()}
    return {name: state for name, state in files.items() if not name.startswith(_SENT_ELSEWHERE)}
