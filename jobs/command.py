"""What the command lines of several jobs share: the options of a config, and how a job ends."""

import argparse
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

from rich.console import Console
from rich.markup import escape

from jobs.terminal import Terminal, library_output_to
from pipeline.files import is_local
from pipeline.settings import options

Result = TypeVar("Result")


def config_parser(job: str, description: str | None, section: str = "") -> argparse.ArgumentParser:
    """A parser with `--config`, whose help lists the options of a config, or of one `section` of
    it. Parse by `parse_known_args`: what is left over are overrides for `load_config`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m jobs.{job}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # An abbreviation could be meant for an option of the config.
        allow_abbrev=False,
        epilog="options of a config, as `--key value` (defaults in brackets):\n"
        + "\n".join(
            f"  --{key} [{default}]  {meaning}"
            for key, default, meaning in options()
            if key.startswith(section)
        ),
    )
    parser.add_argument("--config", required=True, help="YAML file; see jobs/configs/")
    return parser


class Terminated(KeyboardInterrupt):
    """SIGTERM, where it ends the work as Ctrl-C does."""


STOPPED = "the same command resumes"
"""What a job that was interrupted says."""


def exit_status(stop: KeyboardInterrupt) -> int:
    """Of a job that was interrupted: 130 by Ctrl-C, 143 by SIGTERM, as shells and Kubernetes know
    them."""
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM (of Kubernetes, `timeout`, `ray job stop`) ends the work inside as Ctrl-C does: what
    is done is kept, locks are given back. Raises Terminated then."""

    def interrupt(*_: object) -> NoReturn:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with _time_to_end():
            yield
    except SystemExit as end:  # of Ray's own handler, which `ray.init` puts in the place of ours
        if end.code == signal.SIGTERM:
            raise Terminated from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _time_to_end() -> Iterator[None]:
    """Where Ray was started, SIGTERM sets an alarm that aborts the process 3 s later, amid its own
    clean end. The alarm is taken back as soon as Python hears of the signal: by a thread, for in
    the place of our handler there is one of Ray's by then."""
    heard, told = socket.socketpair()
    told.setblocking(False)

    def take_back() -> None:
        while signals := heard.recv(64):
            if signal.SIGTERM in signals:
                signal.alarm(0)

    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=take_back, name="sigterm", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        told.close()
        thread.join()
        heard.close()


def absolute(out: str) -> str:
    """A folder, from the root, or a URI; without the slash at its end."""
    return os.path.abspath(out) if is_local(out) else out.rstrip("/")


def log_of(out: str) -> Path:
    """Where the libraries' output goes: below `out`, or, where that is a URI, which nothing can be
    appended to, into a new folder of this machine."""
    return Path(out if is_local(out) else tempfile.mkdtemp(prefix="log-")) / "log.txt"


def carry_out(
    log: Path,
    expected: tuple[type[Exception], ...],
    work: Callable[[Terminal], Result],
    show: Callable[[Console, Result], None],
) -> int:
    """Do the work with a terminal, libraries' output going to `log`, then show its result. The exit
    code. `expected` errors say everything in their own words: no traceback."""
    with library_output_to(log) as console:
        console.print(f"[dim]library logs: {log}[/dim]", highlight=False, soft_wrap=True)
        try:
            with sigterm_as_ctrl_c(), Terminal(console) as terminal:
                result = work(terminal)
        except expected as error:
            console.print("[bold red]stopped:[/bold red]", escape(str(error)), soft_wrap=True)
            return 1
        except KeyboardInterrupt as stop:
            console.print(f"[bold red]stopped[/bold red]; {STOPPED}")
            return exit_status(stop)
        show(console, result)
        return 0
