"""What the formats that GPTQModel makes have in common, apart from being checkpoints."""

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
    #: TorchLinear and AwqTorchLinear, gptqmodel 7.6.0). So every variant has a kernel on a CPU.
    needs_cuda = False

    def prepare(self, job: Job) -> None:
        """Does nothing: the variants share no work, not even the Hessians.

        Both methods are sequential: each layer is calibrated on the outputs of the quantized layers before it. So two
        variants have the same inputs, Hessians and scales only in the first layer. GPTQModel keeps no pass over a model
        that several configurations could use.
        """

    def check_architecture(self, config: Parameters) -> None:
        """Raises :class:`Refused` for an architecture that GPTQModel does not know.

        GPTQModel would guess the parts of a layer of such an architecture.
        """
        check_known(config, architectures(), "GPTQModel")


def check_known(config: Parameters, known: frozenset[str], library: str) -> None:
    """Raises :class:`Refused` unless ``known`` has the config's ``model_type``. An empty ``known`` means no check."""
    kind = config.get("model_type")
    if known and isinstance(kind, str) and kind.lower() not in known:
        raise Refused(f"{library} does not know the architecture {kind!r}")
