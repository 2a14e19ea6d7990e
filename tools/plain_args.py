"""What the arguments of most tools have in common: plain types, with a value for "not given".

Small models are bad at choices between types, and they send "" or null for what they mean to leave out.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class PlainArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_blanks(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {name: value for name, value in fields.items() if value is not None and value != ""}
