"""Where a submitted job may keep what it makes.

`ray job submit` and KubeRay unpack the working directory into a temporary folder of the head node,
which Ray removes some time after the job's end. A relative path would put hours of work there.
"""

import os
from pathlib import Path

from pipeline.files import is_local
from pipeline.settings import ConfigError

_OF_A_SUBMITTED_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray for the driver of a submitted job, and for no other."""


def refuse_vanishing(**folders: str | Path) -> None:
    """Raises ConfigError in a submitted job for an option, given by its name, whose folder would
    be removed with the job."""
    if _OF_A_SUBMITTED_JOB not in os.environ:
        return
    for option, folder in folders.items():
        if is_local(str(folder)) and not Path(folder).is_absolute():
            raise ConfigError(
                f"--{option}: {str(folder)!r} is a relative path, and Ray removes the working "
                "directory of a submitted job: name an absolute one, which all nodes share "
                f"(--{option} /shared/...)"
            )
