"""The settings. A value comes from the environment (``QUANTPRESS_*``), else from the catalog's ``settings``, else from
the defaults in this module.

Tokens are not settings. The Hub client finds tokens where ``hf auth login`` puts them, or in ``HF_TOKEN``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import ByteSize, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from quantpress.errors import BadInput
from quantpress.repo_id import is_namespace

#: The default Hub.
HUGGING_FACE = "https://huggingface.co"
#: The default of the setting ``patience``, in seconds: longer than a Hub's restart and shorter than a night.
DEFAULT_PATIENCE = 300.0


class Settings(BaseSettings):
    """How and where quantpress works. The catalog's ``models`` say what quantpress publishes."""

    model_config = SettingsConfigDict(env_prefix="QUANTPRESS_", extra="forbid", frozen=True)

    source_endpoint: str = Field(HUGGING_FACE, description="Hub that holds the unquantized models")
    target_endpoint: str = Field(HUGGING_FACE, description="Hub on which to publish")
    namespace: str = Field("", description="user or organization under which to publish")
    home: Path = Field(Path(".quantpress"), description="folder for downloads and work in progress")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where quantizers and evaluations run")
    threads: int = Field(0, ge=0, description="threads of a child process; 0: all cores")
    windows: int = Field(64, ge=2, description="evaluation windows of 512 tokens, from the text's start")
    evaluation_text: Path | None = Field(
        None,
        description="text to measure on: a file, such as a local copy of WikiText-2's wiki.test.raw, or pydoc-topics "
        "(the offline text); default: WikiText-2's test split if the source Hub has it, else the offline text",
    )
    disk_budget: ByteSize | None = Field(
        None,
        description="disk for variants that are not published yet, such as 200GB; default: nine tenths of the space "
        "that source, unquantized GGUF and log-probabilities leave free",
    )
    logits_budget: ByteSize = Field(
        ByteSize(20_000_000_000),
        description="disk for one unquantized model's log-probabilities, such as 20GB; if all windows need more, "
        "fewer are measured, but at least two",
    )
    logits_cache: ByteSize = Field(
        ByteSize(40_000_000_000),
        description="disk for the log-probabilities of all models that are kept for the next run, such as 40GB; "
        "0 keeps none",
    )
    split_above: ByteSize = Field(
        ByteSize(48_000_000_000),
        description="files above this size are published in parts, such as 48GB (the Hub's own limit is 50GB)",
    )
    patience: float = Field(
        DEFAULT_PATIENCE,
        ge=0,
        description="seconds for which to repeat a request that a Hub does not answer or refuses for now; if the Hub "
        "itself asks to wait, up to an hour",
    )
    upload_budget: ByteSize | None = Field(
        None, description="bytes that one run may upload, such as 500GB; variants beyond it wait for the next run"
    )
    deadline: float = Field(
        20,
        ge=0,
        description="how many times its estimated time a child process may run, and two hours besides; 0: no deadline",
    )
    child_memory: ByteSize | None = Field(
        None,
        description="memory that a child process may take, such as 100GB; what takes more is ended; default: all but "
        "a reserve of the machine's memory",
    )
    private: bool = Field(False, description="make new repositories private")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Lets the environment override the catalog. The catalog's values come as keyword arguments."""
        return env_settings, init_settings

    @field_validator("namespace")
    @classmethod
    def _is_name(cls, value: str) -> str:
        if value and not is_namespace(value):
            raise ValueError(f"{value!r} is no user's or organization's name: it has letters, digits, -, _ and .")
        return value

    @field_validator("source_endpoint", "target_endpoint")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        if "@" in value:  # a password would reach logs, cards and the environment of child processes
            raise ValueError("must not hold a user or password; log in with hf auth login, or set HF_TOKEN")
        return value.rstrip("/")

    def compute_device(self) -> Literal["cpu", "cuda"]:
        """Returns the setting ``device``. Instead of ``auto``, returns ``cuda`` if the NVIDIA driver's control device
        exists, else ``cpu``."""
        if self.device != "auto":
            return self.device
        return "cuda" if Path("/dev/nvidiactl").exists() else "cpu"

    def thread_count(self) -> int:
        """Returns the setting ``threads``. If it is 0, returns the number of cores that this process may run on."""
        return self.threads or len(os.sched_getaffinity(0))


def load_settings(from_catalog: dict[str, Any]) -> Settings:
    """Returns the settings. The environment overrides ``from_catalog``.

    Raises :class:`BadInput` for an invalid value. The message names the variable or the setting.
    """
    try:
        return Settings(**from_catalog)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        variable = f"QUANTPRESS_{name.upper()}"
        where = f"environment variable {variable}" if variable in os.environ else f"setting {name}"
        raise BadInput(f"{where}: {first['msg']}") from None
