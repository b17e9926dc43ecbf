"""Types of options on the command line: one clear error for what is no such value."""

import argparse
import datetime
from pathlib import Path
from typing import Any

from pipeline.files import is_local

_MOST = 1e12
"""Larger numbers are slips of the hand, and products of them overflow."""


def day(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date such as 2024-08-01") from None


def positive(kind: type[int] | type[float]) -> Any:
    """A type of numbers above 0."""

    def parse(text: str) -> float:
        value = _number(text, kind)
        if not 0 < value <= _MOST:
            whole = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"{text!r} is no {whole} above 0 (up to {_MOST:g})")
        return value

    return parse


def not_negative(text: str) -> float:
    value = _number(text, float)
    if not 0 <= value <= _MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 on (up to {_MOST:g})")
    return value


def share(text: str) -> float:
    value = _number(text, float)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share from 0 to 1")
    return value


def folder(text: str) -> Path:
    """A folder, of a job that works on local files alone."""
    if is_local(text):
        return Path(text)
    raise argparse.ArgumentTypeError(
        f"{text!r} is a URI, and this job writes to a folder: name one, on a shared volume or a "
        "mounted bucket, and copy it afterwards"
    )


def cluster_address(text: str) -> str:
    """Of a running Ray cluster. Empty, as an environment variable may be, is none."""
    host, _, port = text.removeprefix("ray://").rpartition(":")
    is_host = bool(host) and "/" not in host
    if text in ("", "auto") or (is_host and port.isdecimal() and 0 < int(port) < 1 << 16):
        return text
    raise argparse.ArgumentTypeError(
        f"{text!r} is no address of a Ray cluster: HOST:PORT as `ray start` prints it (its port is "
        "usually 6379), ray://HOST:PORT (usually 10001), or `auto` on one of its nodes"
    )


def _number(text: str, kind: type[int] | type[float]) -> float:
    """NaN, which is in no range, where the text is no number."""
    try:
        return kind(text)
    except ValueError:
        return float("nan")
