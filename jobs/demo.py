"""The whole method on the scale model, on this machine, without key, GPU or network.

python -m jobs.demo [--key value ...]     # options as in `python -m jobs.run --help`
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.run import STAGES, execute
from pipeline.settings import ConfigError, load_config
from sandbox import SandboxUnavailable
from sandbox.image import ensure_image

CONFIG = Path(__file__).parent / "configs" / "demo.yaml"

UNSAFE = """\
************************************************************************************************
*  NOT ISOLATED: {reason}
*
*  The demo goes on with the process sandbox: model-written programs run as ordinary processes
*  with resource limits ONLY. They can read your files. Every verdict is stamped isolation=none.
*  Only the demo does this by itself, because its programs come from a tiny model that was
*  trained on arithmetic. `python -m jobs.doctor` says how to get an engine.
************************************************************************************************"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _, overrides = parser.parse_known_args(arguments)
    try:
        config = load_config(CONFIG, overrides)
        why_not = _why_no_docker(config.sandbox.image)
        if config.sandbox.isolation == "docker" and why_not:
            print(UNSAFE.format(reason=why_not), file=sys.stderr)
            config = load_config(CONFIG, [*overrides, "--sandbox.isolation", "unsafe-process"])
        return execute(config, STAGES)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


def _why_no_docker(image: str) -> str | None:
    """Why programs cannot run in Docker here; None where they can."""
    if os.environ.get("DOCKER") == "skip":
        return "DOCKER=skip declines the Docker engine"
    try:
        ensure_image(image, on_notice=print)
    except SandboxUnavailable as reason:
        return str(reason)
    return None


if __name__ == "__main__":
    sys.exit(main())
