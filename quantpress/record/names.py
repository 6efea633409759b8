"""The names of published repositories: a model's, and the one for the comparison of its formats."""

from __future__ import annotations

#: The suffix of the comparison's repository: ``{namespace}/{Model}-quantized``.
COMPARISON_SUFFIX = "quantized"


def model_name(repo: str) -> str:
    """Returns the name under which a model is published: the repo id without its namespace."""
    return repo.partition("/")[2]


def comparison_repo(namespace: str, model_name: str) -> str:
    """Returns the repository of a model's comparison. The model's other repos link to it."""
    return f"{namespace}/{model_name}-{COMPARISON_SUFFIX}"
