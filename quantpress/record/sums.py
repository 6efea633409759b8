"""The file ``SHA256SUMS``, with which ``sha256sum -c`` checks a download."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from quantpress.record.manifest import File

SUMS_FILE = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def sha256sums(files: list[File]) -> str:
    """Returns the text that ``sha256sum -c`` reads, sorted by path."""
    return "".join(f"{file.sha256}  {file.path}\n" for file in sorted(files, key=lambda file: file.path))


def difference(text: str, known: Mapping[str, str], there: Collection[str]) -> str:
    """Returns what is wrong with the sums in ``text``, in words; empty if nothing.

    ``known`` maps the path of each file that must be named to its SHA-256. ``there`` are all paths of the revision.
    """
    found = [_LINE.fullmatch(line) for line in text.splitlines()]
    sums = {line[2]: line[1] for line in found if line}
    parts = {
        "gives another SHA-256 for": [path for path in known if path in sums and sums[path] != known[path]],
        "lacks": [path for path in known if path not in sums],
        "names what is not there:": [path for path in sums if path not in there],
    }
    said = [f"{what} {', '.join(sorted(paths))}" for what, paths in parts.items() if paths]
    return "; ".join([*said, *(["has lines that sha256sum cannot read"] if None in found else [])])
