"""What all JSON of requests and answers is made of: names, numbers, and the two kinds of objects."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, FailFast, Field, StringConstraints

from mixtura.web.settings import MAX_IMAGES

ID_PATTERN = r"^[a-z0-9-]{1,64}$"
NAME_PATTERN = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$"
PATTERN_HINTS = {
    ID_PATTERN: "Use at most 64 lower-case letters, digits and hyphens",
    NAME_PATTERN: "Use one line of text without blanks at its ends",
}
"""What each pattern asks for, for people."""

MAX_EXACT_INTEGER = 2**53 - 1
"""The largest number that every JSON reader holds exactly."""


def whole(value: Any) -> Any:
    """A number as JSON means it: 3.0 is a whole number too.

    >>> whole(3.0), whole(3.5), whole("3")
    (3, 3.5, '3')
    """
    return int(value) if isinstance(value, float) and value.is_integer() else value


def by_key(*keys: str) -> Discriminator:
    """Which of several forms an object has, by the key that it holds: so that a fault is named in that form."""

    def found(value: Any) -> str | None:
        return next((key for key in keys if isinstance(value, dict) and key in value), None)

    message = f"Send an object with one of {', '.join(keys)}"
    return Discriminator(found, custom_error_type="no_such_form", custom_error_message=message)


Id = Annotated[str, StringConstraints(pattern=ID_PATTERN), Field(examples=["red-kettle"])]
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=200), Field(examples=["Red kettle"])]
Number = Annotated[int, Field(ge=1, le=MAX_EXACT_INTEGER), BeforeValidator(whole)]
Share = Annotated[float, Field(ge=0, le=1)]
Base64 = Annotated[
    str,
    Field(
        min_length=4,
        description="The bytes of a JPEG, PNG, WebP, GIF, BMP or PNM file, as base64.",
        json_schema_extra={"format": "photo", "contentEncoding": "base64"},
    ),
]
Images = Annotated[list[Base64], FailFast(), Field(min_length=1, max_length=MAX_IMAGES)]


class RequestModel(BaseModel):
    """What a client sends: nothing that is not known, and no value of another kind.

    Lists end at their first fault: to name a million faults would take longer than to make them.
    """

    model_config = ConfigDict(extra="forbid", strict=True)


class ResponseModel(BaseModel):
    """What is answered, read from the records of the tasks."""

    model_config = ConfigDict(from_attributes=True)
