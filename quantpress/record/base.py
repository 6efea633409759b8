"""The base class of everything that is read from or written to JSON or YAML."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen pydantic model. An unknown key in the input is an error."""

    # JSON has no NaN. "strings" writes NaN as the text "NaN", which can be read back. By default pydantic writes null,
    # which cannot be read back.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
