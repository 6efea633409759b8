"""Compares the tensors that a model's class wants with those in the model's files, both ways.

The model is built on PyTorch's meta device, where tensors have a shape and no values. So only the headers of the
safetensors files are read, and the comparison takes seconds for a model of any size. transformers itself renames,
stacks and ties the tensors, as it does when it loads the model. The comparison runs in a child process, because
importing transformers takes seconds: ``python -m quantpress.evaluation.tensors JOB.json RESULT.json``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from quantpress.evaluation.engines.architecture import model_class
from quantpress.evaluation.engines.strict import Fit, named, noting_fits
from quantpress.files import write_text
from quantpress.machine.child import explained_exit
from quantpress.record.base import Record
from quantpress.source.weights import tensors_of


class TensorsJob(Record):
    """The job for the child process. ``source`` is the folder of a model with its safetensors files."""

    source: Path


class TensorsReport(Record):
    """What the comparison found in a model that is whole. ``unused`` are tensors of the files that ``model_class``, the
    class of transformers, has no place for."""

    model_class: str
    unused: list[str]

    @property
    def in_words(self) -> str:
        """A sentence that names the unused tensors. It is empty if there are none."""
        if not self.unused:
            return ""
        return f"its files have {named(self.unused)}, which {self.model_class} does not use"


def compare_tensors(source: Path) -> TensorsReport:
    """Compares the tensors of the model in ``source`` with its class.

    Raises :class:`~quantpress.errors.Refused`, which names the tensors, if the class needs a tensor that is in no file,
    or cannot take one. Also raises it if transformers has no class for the model, or if a file is damaged.
    """
    fit = fit_of(source)
    fit.require_whole()
    return TensorsReport(model_class=fit.model_class, unused=fit.unused)


def fit_of(source: Path) -> Fit:
    """Returns how the tensors in the headers of the files in ``source`` fit the model's class."""
    import torch
    from safetensors.torch import _TYPES

    # The comparison needs no types, so it does not matter that PyTorch lacks some of them.
    found = {
        tensor.name: torch.empty(tensor.shape, dtype=_TYPES.get(tensor.dtype, torch.uint8), device="meta")
        for tensor in tensors_of(source)
    }
    chosen, config = model_class(source)
    with noting_fits() as fits:
        chosen.from_pretrained(None, config=config, state_dict=found, device_map={"": "meta"}, dtype=torch.float32)
    (fit,) = fits
    return fit


def main(job_file: Path, result_file: Path) -> None:
    job = TensorsJob.model_validate_json(job_file.read_bytes())
    write_text(result_file, compare_tensors(job.source).model_dump_json(indent=1))


if __name__ == "__main__":
    with explained_exit():
        main(Path(sys.argv[1]), Path(sys.argv[2]))
