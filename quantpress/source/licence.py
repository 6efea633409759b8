"""Decides whether a quantized copy of a model may be published.

A quantized model is a changed copy of its source. So the licence must allow changed copies, and must allow passing them
on. This module reads only what the source's card says. It is no legal advice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from quantpress.errors import Refused
from quantpress.record.manifest import SourceRecord
from quantpress.text import one_line

#: Matches the Hub's identifiers of licences that forbid changed copies
#: (https://huggingface.co/docs/hub/repositories-licenses): cc-by-nd-4.0, cc-by-nc-nd-3.0, cc-by-nc-nd-4.0.
_NO_DERIVATIVES = re.compile(r"cc-by(-nc)?-nd(-[0-9.]+)?", re.IGNORECASE)
#: Patterns for licence names that themselves say what the licence forbids. On the Hub, ``license_name`` can be any
#: text.
_NAMED = {
    re.compile(r"\bno-?deriv|(^|-)nd($|-)", re.IGNORECASE): "forbids changed copies",
    re.compile(
        r"\bno-?(re)?distribut|all-rights-reserved|proprietary|confidential|(^|-)internal($|-)", re.IGNORECASE
    ): ("forbids passing copies on"),
}
_ADVICE = "if you may publish it, say why in the catalog: licence_override"


#: Matches the file with the licence's text, by the names that the Hub's clients use.
_FILES = re.compile(r"LICENSE(\.txt|\.md)?")


def is_licence(path: str) -> bool:
    """Whether this file of a repo contains the text of the repo's licence."""
    return _FILES.fullmatch(path) is not None


def most_restrictive(licences: Sequence[str]) -> str | None:
    """Returns a licence that forbids changed copies. If there is none, returns the first licence, or None without
    licences."""
    return next((each for each in licences if _NO_DERIVATIVES.fullmatch(each.strip())), next(iter(licences), None))


def require_permission(source: SourceRecord, override: str | None) -> SourceRecord:
    """Returns ``source``. If its licence seems to forbid publishing, the returned record contains ``override``.

    ``override`` is the catalog's reason to publish anyway. Raises :class:`Refused` if the licence seems to forbid
    publishing and ``override`` is None.
    """
    objection = _objection(source)
    if objection is None:
        return source
    if override is None:
        raise Refused(f"{objection}; {_ADVICE}")
    return source.model_copy(update={"licence_override": override})


def _objection(source: SourceRecord) -> str | None:
    """Returns why the licence forbids a quantized copy, or None if the card does not say that it does."""
    if source.license and _NO_DERIVATIVES.fullmatch(source.license.strip()):
        return f"its licence {one_line(source.license)} forbids changed copies, which a quantized model is"
    # In licence names, people write spaces and underscores instead of hyphens.
    name = re.sub(r"[\s_]+", "-", (source.license_name or "").strip())
    for pattern, what in _NAMED.items():
        if pattern.search(name):
            return f"its licence {one_line(name)} {what}, as its name says"
    if source.license == "other" and not source.license_link:
        return "its licence is 'other' and its card does not say where the text is, so that nobody can read the terms"
    return None
