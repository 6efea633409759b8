"""The base of everything that is read from or written to JSON or YAML."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Frozen; a key that is not known is an error."""

    # JSON has no NaN: written as the text "NaN" it is read back; pydantic's own null would not be.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
