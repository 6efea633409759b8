"""Lets a model continue a prompt: ``python -m quantpress.evaluation.generate JOB.json RESULT.json``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Literal

from quantpress.files import write_text
from quantpress.machine.child import explained_exit
from quantpress.record.base import Record
from quantpress.record.measurement import Engine


class GenerationJob(Record):
    """A job that asks a model to continue ``prompt`` greedily by at most ``tokens`` tokens.

    If ``chat`` is True, the prompt is put into the model's chat template as a user's message. Only the engine
    transformers supports ``chat``. ``model`` is a checkpoint folder, or a GGUF file for llama.cpp.
    """

    engine: Engine = "transformers"
    model: Path
    prompt: str
    tokens: int
    chat: bool = False
    threads: int
    device: Literal["cpu", "cuda"]


class Generation(Record):
    """The text that the model added, without the prompt and without special tokens."""

    text: str


def generate(job: GenerationJob) -> Generation:
    """Loads the checkpoint folder as a user of transformers would, and continues the prompt.

    Reads safetensors only, and runs no remote code.
    """
    from quantpress.evaluation.engines.torch_runtime import continued
    from quantpress.evaluation.engines.transformers import load_model, load_tokenizer

    tokenizer = load_tokenizer(job.model)
    model = load_model(job.model, job.device, job.threads)
    if job.chat:
        said = [{"role": "user", "content": job.prompt}]
        inputs = tokenizer.apply_chat_template(said, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    else:
        inputs = tokenizer(job.prompt, return_tensors="pt")
    return Generation(text=continued(model, tokenizer, inputs, job.tokens).text)


def generate_by_llama_cpp(job: GenerationJob) -> Generation:
    """Continues the prompt as :func:`generate` does, but runs llama-completion on a GGUF file."""
    from quantpress.evaluation.engines.llama_cpp import generate as continued
    from quantpress.toolchain.llama_cpp import install

    return Generation(text=continued(install(), job.model, job.prompt, job.tokens, job.threads, job.device).text)


def generate_by_exllama(job: GenerationJob) -> Generation:
    """Continues the prompt as :func:`generate` does, but loads an EXL3 or EXL2 checkpoint with the format's package."""
    from quantpress.evaluation.engines.exllama import require_cuda, sampled

    require_cuda(job.device)
    model = import_module(f"quantpress.evaluation.engines.{job.engine}").load(job.model)
    return Generation(text=sampled(job.model, model, job.prompt, job.tokens).text)


_ENGINES = {
    "transformers": generate,
    "llama.cpp": generate_by_llama_cpp,
    "exllamav3": generate_by_exllama,
    "exllamav2": generate_by_exllama,
}


def main(job_file: Path, result_file: Path) -> None:
    with explained_exit():
        job = GenerationJob.model_validate_json(job_file.read_bytes())
        write_text(result_file, _ENGINES[job.engine](job).model_dump_json(indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
