"""What the formats ``gptq`` and ``awq`` have in common because GPTQModel makes them."""

from __future__ import annotations

from quantizers.checkpoint.format import CheckpointFormat
from quantizers.gptqmodel.architectures import architectures
from quantizers.protocol import Job, Parameters
from quantpress.errors import Refused


class GPTQModelFormat(CheckpointFormat):
    """The part of :class:`quantizers.protocol.Quantizer` that is the same for ``gptq`` and ``awq``."""

    packages = ("gptqmodel",)
    extra = "gptq"
    #: Every variant has a kernel on a CPU, because GPTQModel's torch kernels pack and load 3, 4 and 8 bits on any
    #: device (SUPPORTS_BITS and SUPPORTS_DEVICES of TorchLinear and AwqTorchLinear, gptqmodel 7.6.0).
    needs_cuda = False

    def prepare(self, job: Job) -> None:
        """Does nothing, because the variants share no work, not even the Hessians.

        GPTQ and AWQ both quantize layer by layer, and calibrate each layer on the outputs of the quantized layers
        before this layer. So two variants have the same inputs, Hessians and scales only in the first layer. GPTQModel
        also cannot quantize a model for several configurations in one pass.
        """

    def check_architecture(self, config: Parameters) -> None:
        """Raises :class:`Refused` for an architecture that GPTQModel does not know, because GPTQModel would guess the
        parts of its layers."""
        check_known(config, architectures(), "GPTQModel")


def check_known(config: Parameters, known: frozenset[str], library: str) -> None:
    """Raises :class:`Refused` if the config's ``model_type`` is not in ``known``. If ``known`` is empty or the config
    has no ``model_type``, checks nothing."""
    kind = config.get("model_type")
    if known and isinstance(kind, str) and kind.lower() not in known:
        raise Refused(f"{library} does not know the architecture {kind!r}")
