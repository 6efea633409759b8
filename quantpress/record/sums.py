"""The file ``SHA256SUMS``. With this file, ``sha256sum -c`` checks a download."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from quantpress.record.manifest import File

SUMS_FILE = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def sha256sums(files: list[File]) -> str:
    """Returns the text that ``sha256sum -c`` reads: one line per file, sorted by path."""
    return "".join(f"{file.sha256}  {file.path}\n" for file in sorted(files, key=lambda file: file.path))


def difference(text: str, known: Mapping[str, str], there: Collection[str]) -> str:
    """Returns in words what is wrong with ``text``, the content of ``SHA256SUMS``. The result is empty if nothing is
    wrong.

    ``known`` is a dict from path to SHA-256. It holds the files that ``text`` must list. ``there`` are all paths of the
    revision.
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
