"""The schema of ``catalog.yaml``, which lists the models to publish. One line per model is enough."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from quantizers import backends, formats, quantizer
from quantpress.errors import BadInput, Refused
from quantpress.hints import hint
from quantpress.record.base import Record
from quantpress.record.names import model_name
from quantpress.repo_id import PATTERN, check_repo_id
from quantpress.settings import Settings

#: The formats to make if neither the model's line nor the catalog's defaults name formats. These formats are the most
#: downloaded, and any machine can make them. The catalog must name any other format.
_DEFAULT_FORMATS = ("gguf", "gptq", "awq")


def _known_format(name: object) -> object:
    if isinstance(name, str):
        try:
            quantizer(name)
        except BadInput as error:
            raise ValueError(str(error)) from None
    return name


def _repo_id(value: str) -> str:
    try:
        return check_repo_id(value)
    except BadInput as error:
        raise ValueError(str(error)) from None


Format = Annotated[str, BeforeValidator(_known_format), Field(json_schema_extra={"enum": formats()})]
RepoId = Annotated[str, AfterValidator(_repo_id), Field(json_schema_extra={"pattern": PATTERN})]


class PositionedError(ValueError):
    """A part of the catalog breaks a rule that concerns several parts.

    ``place`` is the path to this part, from the pydantic object that checks the rule.
    """

    def __init__(self, place: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.place = place


class CalibrationLine(Record):
    """How much calibration text to use, and which."""

    text: str | None = Field(
        None,
        description="a UTF-8 text file, or pydoc-topics (the offline text); default: WikiText-2's training split if "
        "the source Hub has it, else the offline text",
    )
    samples: int = Field(64, ge=1, le=4096, description="windows of calibration text")
    length: int = Field(512, ge=64, le=8192, description="tokens in a window")


class GateLine(Record):
    """A limit of the gate that differs from the default, and why."""

    max_divergence: float = Field(
        gt=0, description="largest mean KL divergence, in nats per token, of a variant that is published"
    )
    reason: str = Field(min_length=1, description="why the limit differs; goes to the manifest and the card")


class ModelLine(Record):
    """One model of the catalog."""

    repo: RepoId = Field(description="the model on the source Hub, namespace/name")
    revision: str = Field("main", min_length=1, description="branch, tag or commit of the source to follow")
    formats: list[Format] | None = Field(
        None, min_length=1, description="formats to make; default: the formats of `defaults`"
    )
    variants: dict[Format, list[str]] = Field({}, description="variants or named ladders per format")
    backends: dict[Format, str] = Field({}, description="library to make a format with, per format")
    calibration: CalibrationLine | None = None
    gates: dict[str, GateLine] = Field({}, description="limits of the gate per variant, each with a reason")
    licence_override: str | None = Field(
        None, min_length=1, description="reason to publish although the licence seems to forbid it; goes to the card"
    )
    priority: int = Field(0, description="models with a higher priority are pressed first")
    skip: str | None = Field(None, min_length=1, description="reason not to press this model; a link is welcome")

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Makes an editor accept a repo id alone as well as a mapping."""
        return {"anyOf": [{"type": "string", "pattern": PATTERN}, handler(schema)]}

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"repo": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _variants_are_known(self) -> ModelLine:
        for format_name, names in self.variants.items():
            if self.formats is not None and format_name not in self.formats:
                message = f"variants for {format_name!r}, which is not among this model's formats"
                raise PositionedError(("variants", format_name), message)
            check_variant_names(format_name, names)
        return self

    @model_validator(mode="after")
    def _backends_are_known(self) -> ModelLine:
        check_backends(self.backends)
        return self

    @model_validator(mode="after")
    def _gates_are_of_variants(self) -> ModelLine:
        check_gate_names(self.gates, self.formats or formats())
        return self


class Defaults(Record):
    """Values for the keys that a model line leaves out."""

    formats: list[Format] = Field(default_factory=lambda: list(_DEFAULT_FORMATS), min_length=1)
    variants: dict[Format, list[str]] = {}
    backends: dict[Format, str] = Field({}, description="library to make a format with, per format")
    calibration: CalibrationLine = CalibrationLine()
    gates: dict[str, GateLine] = Field({}, description="limits of the gate per variant, each with a reason")

    @model_validator(mode="after")
    def _variants_are_known(self) -> Defaults:
        for format_name, names in self.variants.items():
            check_variant_names(format_name, names)
        check_backends(self.backends)
        check_gate_names(self.gates, formats())
        return self


class Catalog(Record):
    """The whole file."""

    settings: dict[str, Any] = Field(
        {},
        description="settings; the environment (QUANTPRESS_*) overrides them",
        json_schema_extra={
            "properties": Settings.model_json_schema()["properties"],
            "additionalProperties": False,
        },
    )
    defaults: Defaults = Field(default_factory=Defaults)
    models: list[ModelLine]

    @model_validator(mode="after")
    def _settings_are_known(self) -> Catalog:
        for key in self.settings:
            if key not in Settings.model_fields:
                raise PositionedError(("settings", key), f"unknown key {key!r}{suggestion(key, Settings.model_fields)}")
        return self

    @model_validator(mode="after")
    def _published_names_differ(self) -> Catalog:
        """Refuses two lines that would publish to the same repository: one model twice, or two models with one name."""
        seen: dict[str, tuple[int, str]] = {}
        for position, line in enumerate(self.models):
            name = model_name(line.repo)
            first, other = seen.setdefault(name.casefold(), (position, line.repo))
            if first == position:
                continue
            if other.casefold() == line.repo.casefold():
                raise PositionedError(("models", position), f"{line.repo!r} is listed twice: keep one line")
            message = f"{line.repo!r} and {other!r} would both be published as {name}-…: keep one of them"
            raise PositionedError(("models", position), message)
        return self

    def formats_of(self, line: ModelLine) -> list[str]:
        """Returns the formats to make of a model, in the order in which quantpress lists all formats."""
        wanted = line.formats or self.defaults.formats
        return [name for name in formats() if name in wanted]

    def variants_of(self, line: ModelLine, format_name: str, config: dict[str, Any]) -> list[str]:
        """Returns the names of the variants to make of a model in a format. ``config`` is the source's config.json.

        A ladder (a named list of variants) stands for the variants in the list that this model can have. If
        :meth:`left_out` leaves nothing to make, raises :class:`Refused` with the reason for the first variant.
        """
        chosen = quantizer(format_name, self.backend_of(line, format_name))
        asked = self._asked(line, format_name)
        if not asked:
            return chosen.default_variants(config)
        ladders, left_out = chosen.ladders(), self.left_out(line, format_name, config)
        names = [name for item in asked for name in ladders.get(item, [item])]
        wanted = [name for name in dict.fromkeys(names) if name not in left_out]
        if not wanted:
            raise Refused(next(iter(left_out.values())))
        return wanted

    def left_out(self, line: ModelLine, format_name: str, config: dict[str, Any]) -> dict[str, str]:
        """Returns a dict from variant to reason, for the variants of requested ladders that the model cannot have.

        Leaves out variants that the catalog also names one by one.
        """
        chosen = quantizer(format_name, self.backend_of(line, format_name))
        asked, ladders = self._asked(line, format_name), chosen.ladders()
        reasons: dict[str, str] = {}
        for name in (name for item in asked for name in ladders.get(item, []) if name not in asked):
            try:
                chosen.variant(name, config)
            except Refused as refusal:
                reasons[name] = str(refusal)
        return reasons

    def _asked(self, line: ModelLine, format_name: str) -> list[str]:
        return line.variants.get(format_name) or self.defaults.variants.get(format_name) or []

    def backend_of(self, line: ModelLine, format_name: str) -> str | None:
        """Returns the library that makes a format of a model, or None for the format's default library."""
        asked = line.backends.get(format_name) or self.defaults.backends.get(format_name)
        return None if asked in backends(format_name)[:1] else asked

    def gates_of(self, line: ModelLine) -> dict[str, GateLine]:
        """Returns a dict from variant to limit, for the limits that the catalog changes."""
        return self.defaults.gates | line.gates

    def calibration_of(self, line: ModelLine) -> CalibrationLine:
        return line.calibration or self.defaults.calibration


def suggestion(word: str, valid: Iterable[str]) -> str:
    """Returns ``; did you mean 'X'?``, or ``; use one of`` and all valid words if none is similar to ``word``."""
    return f"; {hint(word, valid)}"


def _is_variant(format_name: str, name: str) -> bool:
    try:
        quantizer(format_name).check_name(name)
    except BadInput:
        return False
    return True


def check_gate_names(gates: Iterable[str], format_names: list[str]) -> None:
    """Raises :class:`PositionedError` for the first gate whose name is not a variant of any of the formats."""
    for name in gates:
        if not any(_is_variant(format_name, name) for format_name in format_names):
            raise PositionedError(("gates", name), f"{name!r} is no variant of the formats {', '.join(format_names)}")


def check_backends(chosen: dict[str, str]) -> None:
    """Raises :class:`PositionedError` for the first format that its chosen library cannot make."""
    for format_name, backend in chosen.items():
        try:
            quantizer(format_name, backend)
        except BadInput as error:
            raise PositionedError(("backends", format_name), str(error)) from None


def check_variant_names(format_name: str, names: list[str]) -> None:
    """Raises :class:`PositionedError` for the first name that is neither a variant nor a ladder of the format."""
    chosen = quantizer(format_name)
    for position, name in enumerate(names):
        if name not in chosen.ladders():
            try:
                chosen.check_name(name)
            except BadInput as error:
                raise PositionedError(("variants", format_name, position), str(error)) from None
