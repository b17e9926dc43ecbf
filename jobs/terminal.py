"""The terminal of a job: which stage, how far, how fast, how long still; no wall of library logs.

Libraries write to file descriptors 1 and 2 as they please. Those are pointed at a log file, and
what a person should read goes to the real terminal, kept aside.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from pipeline.progress import Progress

LINE_EVERY_S = 15.0  # where the output is no terminal


@contextmanager
def library_output_to(log: Path) -> Iterator[Console]:
    """Send everything that libraries print to `log`; give the console that people read.

    The descriptors are redirected, not `sys.stdout` alone, because Ray's and vLLM's processes
    inherit them.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    terminal: TextIO = os.fdopen(os.dup(1), "w", buffering=1)
    with log.open("ab") as file:
        for descriptor in kept:
            os.dup2(file.fileno(), descriptor)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.captureWarnings(True)
    try:
        yield Console(file=terminal)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, original in kept.items():
            os.dup2(original, descriptor)
            os.close(original)
        terminal.close()


class Terminal:
    """Shows a run as it happens; see `pipeline.progress.Observer`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars: Bars | None = None
        self._works: dict[str, _Work] = {}
        self._started = time.monotonic()
        self._stage_started = self._started
        self._title = ""

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *exc: object) -> None:
        self._end_stage()

    def stage(self, title: str) -> None:
        self._end_stage()
        self._title, self._stage_started = title, time.monotonic()
        self._works = {}
        self.console.print(f"[bold]{title}[/bold]", highlight=False)
        if self.console.is_terminal:
            self._bars = Bars(
                TextColumn("  {task.description:<12}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[facts]}"),
                console=self.console,
                transient=True,
            )
            self._bars.start()

    def progress(self, progress: Progress) -> None:
        work = self._works.setdefault(progress.work, _Work(progress))
        work.move(progress)
        if self._bars is not None:
            if work.bar is None:
                work.bar = self._bars.add_task(progress.work, total=progress.total, facts="")
            self._bars.update(work.bar, completed=progress.done, facts=work.facts())
        elif time.monotonic() - work.told > LINE_EVERY_S:
            work.told = time.monotonic()
            self.console.print(f"  {progress.work:<12} {work.facts()}", highlight=False)

    def note(self, text: str) -> None:
        self.console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)

    def _end_stage(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
        if self._title:
            for work in self._works.values():
                self.console.print(f"  {work.last.work:<12} {work.summary()}", highlight=False)
            now = time.monotonic()
            self.console.print(
                f"  [dim]{_clock(now - self._stage_started)}, "
                f"{_clock(now - self._started)} since the start[/dim]",
                highlight=False,
            )
        self._title = ""


class _Work:
    """One bar: rates count what was done since it first moved, not what an earlier run did, nor
    the time that engines and actors took to start."""

    def __init__(self, first: Progress) -> None:
        self.first = self.base = self.last = first
        self.since = self.told = time.monotonic()
        self.bar: TaskID | None = None

    def move(self, now: Progress) -> None:
        if self.base.done == self.first.done < now.done:
            self.base, self.since = now, time.monotonic()
        self.last = now

    def facts(self) -> str:
        now, done = self.last, self.last.done - self.base.done
        elapsed = max(time.monotonic() - self.since, 1e-9)
        words = [f"{now.done:,}/{now.total:,} {now.unit}"]
        if now.rows:
            words.append(f"{now.rows:,} rows")
        if done and now.rows:
            words.append(f"{(now.rows - self.base.rows) / elapsed:,.0f} rows/s")
        if now.detail:
            words.append(now.detail)
        if done and now.done < now.total:
            words.append(f"{_clock(elapsed / done * (now.total - now.done))} left")
        return ", ".join(words)

    def summary(self) -> str:
        now = self.last
        words = [f"{now.done:,}/{now.total:,} {now.unit}"]
        if now.rows:
            words.append(f"{now.rows:,} rows")
        if now.detail:
            words.append(now.detail)
        if self.first.done == self.first.total:
            words.append("already there")
        return ", ".join(words)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
