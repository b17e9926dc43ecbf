"""The whole method on the scale model, on this machine, without key, GPU or network.

python -m jobs.demo [--key value ...]     # options as in `python -m jobs.run --help`
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.run import STAGES, execute
from pipeline.settings import ConfigError, load_config
from sandbox import SandboxUnavailable
from sandbox.image import ensure_image

CONFIG = Path(__file__).parent / "configs" / "demo.yaml"

NO_ENGINE = """\
************************************************************************************************
*  NO DOCKER ENGINE: {reason}
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
        if config.sandbox.isolation == "docker":
            try:
                ensure_image(config.sandbox.image)
            except SandboxUnavailable as reason:
                print(NO_ENGINE.format(reason=reason), file=sys.stderr)
                config = load_config(CONFIG, [*overrides, "--sandbox.isolation", "unsafe-process"])
        return execute(config, STAGES)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
