"""The base class of everything that is read from or written to JSON or YAML."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen model. An unknown key is an error."""

    # JSON has no NaN. The text "NaN" can be read back; the null that pydantic writes by default cannot.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
