"""What the formats that GPTQModel makes have in common beside being checkpoints."""

from __future__ import annotations

from quantizers.checkpoint.format import CheckpointFormat
from quantizers.gptqmodel.architectures import architectures
from quantizers.protocol import Job, Parameters
from quantpress.errors import Refused


class GPTQModelFormat(CheckpointFormat):
    """The part of :class:`quantizers.protocol.Quantizer` that is the same for ``gptq`` and ``awq``."""

    packages = ("gptqmodel",)
    extra = "gptq"
    #: GPTQModel's torch kernels pack and load 3, 4 and 8 bits on any device (SUPPORTS_BITS and SUPPORTS_DEVICES of
    #: TorchLinear and AwqTorchLinear, gptqmodel 7.6.0), so no variant is missing a kernel on a CPU.
    needs_cuda = False

    def prepare(self, job: Job) -> None:
        """Nothing is shared between variants, not even the Hessians.

        Both methods are sequential: a layer is calibrated on what the quantized layers before it give out, so the
        inputs, and with them Hessians and scales, are another variant's only in the first layer. GPTQModel keeps no
        pass over a model that several configurations could use.
        """

    def check_architecture(self, config: Parameters) -> None:
        """Raises :class:`Refused` for an architecture that GPTQModel does not know: it would guess a layer's parts."""
        check_known(config, architectures(), "GPTQModel")


def check_known(config: Parameters, known: frozenset[str], library: str) -> None:
    """Raises :class:`Refused` unless ``known`` has the config's ``model_type``. Nothing known means no check."""
    kind = config.get("model_type")
    if known and isinstance(kind, str) and kind.lower() not in known:
        raise Refused(f"{library} does not know the architecture {kind!r}")
