"""What every part of the configuration shares, and the kinds of values in it."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"must be a regular expression: {error}") from None
    return pattern


Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Pattern = Annotated[str, AfterValidator(_compiles)]


class Section(BaseModel):
    """What every part of the configuration shares: nothing unknown is accepted and nothing changes afterwards."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True, validate_default=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_numbers(cls, value: Any, info) -> Any:
        # Pydantic reads `true` as 1; in a configuration that is a slip of the pen.
        kind = cls.model_fields[info.field_name].annotation
        if isinstance(value, bool) and bool not in (kind, *get_args(kind)):
            raise ValueError("must be a number or text, not true or false")
        return value


def unfit(key: str, said: str) -> PydanticCustomError:
    """The error of a check over several settings: what does not fit, and the dotted key that was set so."""
    return PydanticCustomError("unfit", said, {"key": key})


def refuse_unread(section: Section, name: str, readers: Mapping[str, tuple[str, bool]]) -> None:
    """Refuses a setting that is not at its default where nothing would read it: a slip that no run should hide.

    Args:
        name: the section's, dotted.
        readers: of each setting: who reads it, and whether they are there.
    """
    for key, (reader, is_there) in readers.items():
        default = type(section).model_fields[key].get_default(call_default_factory=True, validated_data=vars(section))
        if not is_there and getattr(section, key) != default:
            said = f"`{name}.{key}` is {getattr(section, key)} but only {reader} reads it"
            raise unfit(f"{name}.{key}", said)
