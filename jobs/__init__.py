"""One file per job: `python -m jobs.<name> --help`.

Importing a job turns the usage reports of Ray and vLLM off, before either is imported, for this
process and for the workers that inherit its environment. A value that is already set is kept.
"""

import os

for _variable, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}.items():
    os.environ.setdefault(_variable, _value)
