"""Which tests belong together, and which are taken first, where several processes share them."""

ONE_CLUSTER = "tests/cluster"
ONE_ENGINE = "one vLLM engine"
ONE_TRAINING = "one training"
GROUPS = {
    "tests/policies/test_vllm.py": ONE_ENGINE,
    "tests/policies/test_vllm_actor.py": ONE_ENGINE,
    "tests/prm/test_trainer.py": ONE_TRAINING,
    "tests/prm/test_restarts.py": ONE_TRAINING,
}
"""Files with a fixture in common that takes long to set up, as have those of a cluster. Any other
file is a group of its own."""

LONGEST_FIRST = (
    ONE_CLUSTER,
    "tests/test_story.py",
    "tests/test_submit.py",
    ONE_ENGINE,
    ONE_TRAINING,
    "tests/policies/test_openai_run.py",
    "tests/test_train_job.py",
    "tests/test_tune_job.py",
    "tests/test_object_store.py",
    "tests/prm/test_ranks.py",
)
"""So that no process is left with long work at the end."""


def group(test: str) -> str:
    """Of a test, named by its node id."""
    file = test.split("::", 1)[0]
    return ONE_CLUSTER if file.startswith(f"{ONE_CLUSTER}/") else GROUPS.get(file, file)


def rank(test: str) -> int:
    mine = group(test)
    return LONGEST_FIRST.index(mine) if mine in LONGEST_FIRST else len(LONGEST_FIRST)
