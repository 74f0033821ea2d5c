"""The contents of config.json, checked strictly."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mixtura.sections import DecisionSection, EncoderSection


class SubclassConfig(BaseModel):
    """The named subclasses in config.json; the tensors say whose they are."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    names: Annotated[list[str], Field(min_length=2)]
    temperature: Annotated[float, Field(gt=0, strict=True)]


class Config(BaseModel):
    """The exact contents of config.json: unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    layout: Literal[2]
    classes: Annotated[list[str], Field(min_length=2)]
    encoder: EncoderSection
    identity: dict[str, str]
    dimension: Annotated[int, Field(ge=1, strict=True)]
    projection: dict[str, Any]
    family: str
    temperature: Annotated[float, Field(gt=0, strict=True)]
    decision: DecisionSection
    facts: dict[str, Any]
    head: dict[str, Any] | None = None
    score: str | None = None
    subclasses: "SubclassConfig | None" = None
    prior: Annotated[list[Annotated[float, Field(gt=0, le=1, strict=True)]], Field(min_length=2)] | None = None
    encoder_sha256: str | None = None
    sha256: str

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: list[str]) -> list[str]:
        if len(set(classes)) < len(classes):
            raise ValueError("two classes have the same name")
        return classes
