"""Names of repositories: ``namespace/name``, as in a model's address on the Hub."""

from __future__ import annotations

import re

from quantpress.errors import BadInput

#: A namespace or a name, by the rules of huggingface_hub's ``validate_repo_id``: at most 96 letters, digits, ``-``,
#: ``_`` and ``.``.
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
PATTERN = rf"^{_PART}/{_PART}$"


def is_namespace(value: str) -> bool:
    """Says whether ``value`` can be the name of a user or an organization."""
    return re.fullmatch(_PART, value) is not None and "--" not in value and ".." not in value


def check_repo_id(value: str) -> str:
    """Returns ``value`` if it is a valid repo id. Raises :class:`BadInput` otherwise."""
    if not re.fullmatch(PATTERN, value) or "--" in value or ".." in value or value.endswith(".git"):
        raise BadInput(f"{value!r} is not a repo id: write namespace/name, as in the model's address on the Hub")
    return value
