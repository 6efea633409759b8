"""What formats have in common if each of their variants is a whole checkpoint. An installed package makes the variants
one by one, and quantpress measures each variant with transformers."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from quantizers.checkpoint.one_by_one import OneByOne
from quantizers.protocol import Job, Parameters
from quantpress.errors import BadInput, Refused
from quantpress.hints import hint
from quantpress.record.measurement import Engine
from quantpress.source.config import model_config, single


class CheckpointFormat(OneByOne):
    """The part of :class:`quantizers.protocol.Quantizer` that all checkpoint formats share."""

    format: str
    suffix: str
    engine: Engine = "transformers"
    #: The pip names of the packages that make the files. The recipe holds only the version of the first package.
    packages: tuple[str, ...]
    #: The extra (pip's optional dependencies) of quantpress that installs these packages.
    extra: str

    def known_names(self) -> list[str]:
        """Returns every name that :meth:`variant` accepts."""
        raise NotImplementedError

    def check_name(self, name: str) -> None:
        known = self.known_names()
        if name not in known:
            raise BadInput(f"unknown {self.suffix} variant {name!r}: {hint(name, known)}")

    def version(self) -> str:
        return f"{self.packages[0]} {self._installed(self.packages[0])}"

    def tools(self) -> dict[str, str]:
        return {package: self._installed(package) for package in self.packages}

    def unquantized(self, job: Job) -> Path:
        return job.source

    def shared_files(self, job: Job) -> list[Path]:
        return []

    def prepare(self, job: Job) -> None:
        """Does nothing, because the variants share no work."""

    def _installed(self, package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            raise Refused(
                f"{package} is not installed: in the checkout of quantpress, "
                f"run `make setup` or `pip install -e '.[{self.extra}]'`"
            ) from None


def refuse_experts(config: Parameters, what: str) -> None:
    """Raises :class:`Refused` if the model is a mixture of experts.

    transformers holds the experts of a layer as one tensor. The tool ``what`` does not quantize this tensor, so nearly
    all weights would stay unquantized.
    """
    text = model_config(config).text
    said = (single(counts) or 0 for counts in (text.num_experts, text.num_local_experts, text.n_routed_experts))
    if count := next((count for count in said if count > 1), None):
        raise Refused(f"{what} quantizes only linears, not the {count} experts of this model: use gguf or gptq")
