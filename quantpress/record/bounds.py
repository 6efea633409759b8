"""The types of what a record can hold. Anybody can write and publish a manifest, so a record that is read is foreign.

A name in a record becomes a part of a path, of an address or of a line on the terminal. A number is computed with.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from quantpress.files import stays_within
from quantpress.foreign_json import problem_of
from quantpress.text import one_line

#: Numbers beyond 64 bits are neither sizes nor counts.
LARGEST_NUMBER = (1 << 63) - 1
#: The parameters of a recipe and the details of an artifact have at most four levels.
_DEEPEST = 16


def _one_line(value: str) -> str:
    if not value or one_line(value) != value:
        raise ValueError("must be one line of at most 300 characters, none of them invisible")
    return value


def _within(value: str) -> str:
    if not stays_within(value):
        raise ValueError("must stay within the folder of the repository")
    return value


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    if problem := problem_of(value, _DEEPEST, LARGEST_NUMBER):
        raise ValueError(problem)
    return value


#: A name, such as a variant's, a branch's or a tool's.
Name = Annotated[str, AfterValidator(_one_line)]
#: A name that is one part of a path.
PathPart = Annotated[Name, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
#: A format's name. A comparison has the name "all formats" instead.
FormatName = Annotated[Name, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")]
#: The path of a file in a repository.
FilePath = Annotated[Name, AfterValidator(_within)]
#: A repository, ``namespace/name``.
Repo = Annotated[Name, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
#: Bytes, or a number of things.
Size = Annotated[int, Field(ge=0, le=LARGEST_NUMBER)]
#: A figure that is always finite.
Finite = Annotated[float, Field(ge=0, le=1e15)]
#: JSON values whose keys depend on the format.
Values = Annotated[dict[str, Any], AfterValidator(_plain)]
