"""Measures a GGUF file with llama-perplexity.

To measure perplexity, llama-perplexity runs once. The tool writes its log-probabilities to a file or a named pipe,
because only this output holds the token ids and shows which positions are not finite.

To measure divergence, the tool reads the base, the file of the unquantized model's log-probabilities. An earlier, short
run writes the token ids that the tokenizer in the GGUF file gives. They must equal the token ids in the base. If the
figures of the divergence run are not finite, the tool runs again without the base, to count the positions that are not
finite.

An exit code of 0 proves nothing, because the tool also exits 0 on most failures. Its output is parsed, and a missing
figure is an error. On a busy machine the end of a tool's output can be lost, because llama.cpp's tools do not wait for
the thread that prints (common/log.cpp: nobody destroys the log that ``common_log_main`` returns, so nobody waits for
the log's thread). If the output ends early, the run is repeated.
"""

from __future__ import annotations

import math
import os
import re
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from quantpress.errors import ChildFailed
from quantpress.evaluation.engines.llama_cpp_checks import check_base, check_own_tokens, check_tokens
from quantpress.evaluation.engines.llama_cpp_output import (
    RunFigures,
    parse_divergence,
    parse_estimate,
    parse_run,
    tail,
)
from quantpress.evaluation.engines.llama_cpp_tokens import header_of
from quantpress.evaluation.job import EvaluationJob
from quantpress.evaluation.logits import (
    Tokens,
    read_header,
    scored_positions,
    token_sha256,
)
from quantpress.evaluation.logits_stream import StreamFigures, figures_of, figures_of_pipe
from quantpress.evaluation.runner import runner_name
from quantpress.evaluation.sample import PROMPT, TOKENS
from quantpress.files import atomic
from quantpress.record.measurement import Divergence, Evaluation
from quantpress.source.gguf import check_gguf
from quantpress.toolchain.llama_cpp import LlamaCpp, install
from quantpress.toolchain.options import processor_options
from quantpress.toolchain.run import run_tool

#: The most tokens in one physical batch. This is llama.cpp's default.
_UBATCH = 512
_TOO_FEW = re.compile(r"the data file you provided tokenizes to only (\d+) tokens")
_STARTED = re.compile(r"(?:calculating perplexity|computing) over (\d+) chunks, n_ctx=(\d+)")
_FATAL = re.compile(r"inconsistent vocabulary|failed to (?:decode|open|load)|failed reading|unable to load model")
#: The words with which an output ends if it is whole. There is one text for each output: a run against a base (the
#: unquantized model's log-probabilities), a run without a base, and llama-completion's log.
_LAST_STATISTIC, _LAST_ESTIMATE, _LAST_OF_COMPLETION = "Same top p:", "Final estimate:", "total time ="
#: How often a tool is run at most to get a whole output. At load 5 on 2 cores, one output in about 100 is cut.
_TRIES = 5

_R = TypeVar("_R")


def evaluate(job: EvaluationJob) -> Evaluation:
    """Measures ``job.model`` as ``job.protocol`` says.

    Raises :class:`BadInput` if the text has too few tokens for the windows, or if the base was made under another
    protocol or from other token ids. Raises :class:`ChildFailed` if the tool fails or does not print what it should.
    Raises :class:`Refused` if the model is no sound GGUF file.
    """
    tools = install()
    measured = _measured(tools, job)
    sample = generate(tools, job.model, PROMPT, TOKENS, job.threads, job.device)
    # If the tools were built without GPU support, they use the CPU even if the job asks for a GPU.
    device = job.device if sample.run.device_bytes else "cpu"
    return measured.model_copy(
        update={
            "sample": sample.text,
            "generation_tokens_per_second": sample.run.tokens_per_second,
            "weights_bytes": sample.run.weights_bytes,
            "peak_device_memory_bytes": sample.run.device_bytes,
            "runner": runner_name(device, job.threads),
        }
    )


def _measured(tools: LlamaCpp, job: EvaluationJob) -> Evaluation:
    check_gguf(job.model)
    if job.base_logits is not None:
        return _divergence(tools, job, job.base_logits)

    def go() -> tuple[_Run, StreamFigures]:
        run = _Run(tools, job)
        if job.save_logits is None:
            return run, run.go_streaming()
        with atomic(job.save_logits) as temporary:
            run.go(["--file", str(job.text), "--save-all-logits", str(temporary)])
            return run, figures_of(temporary)

    run, figures = _to_the_end(go, lambda both: both[0].said, _LAST_ESTIMATE)
    if figures.non_finite:
        return run.evaluation(figures.perplexity, figures.perplexity_error, figures)
    perplexity, error = parse_estimate(run.said)
    return run.evaluation(perplexity, error, figures)


@dataclass(frozen=True)
class Generated:
    """The text that a model added to a prompt, and the speed and memory of the run."""

    text: str
    run: RunFigures


def generate(
    tools: LlamaCpp, model: Path, prompt: str, tokens: int, threads: int, device: Literal["cpu", "cuda"] = "cpu"
) -> Generated:
    """Continues ``prompt`` greedily by up to ``tokens`` tokens, without a chat template. The result omits the prompt.

    The context has room for 2048 tokens. On a GPU, the context's buffer counts in the run's ``device_bytes``. Raises
    :class:`Refused` if the model is no sound GGUF file.
    """
    check_gguf(model)
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "prompt.txt").write_text(prompt, encoding="utf-8")
        command: list[str | Path] = [tools.completion, "--model", model.absolute(), "--file", "prompt.txt"]
        command += ["--n-predict", str(tokens), "--temp", "0", "--seed", "1", "--ctx-size", "2048"]
        command += ["-no-cnv", "--no-display-prompt", "--simple-io", "--no-warmup", "--log-verbosity", "4"]
        command += processor_options(threads, device)
        log = Path(scratch) / "log.txt"

        def run() -> tuple[str, str]:
            said = run_tool(command, Path(scratch), errors=log)
            return said, log.read_text(encoding="utf-8", errors="replace")

        said, logged = _to_the_end(run, lambda both: both[1], _LAST_OF_COMPLETION)
    return Generated(said.strip().removesuffix("[end of text]").strip(), parse_run(logged))


def _to_the_end(run: Callable[[], _R], said: Callable[[_R], str], last: str) -> _R:
    """Calls ``run`` until the tool's output contains the words ``last``, and returns the result of that call.

    ``said`` takes a result of ``run`` and returns the tool's output from it. After ``_TRIES`` calls, the last result is
    returned even without the words.
    """
    for _ in range(_TRIES - 1):
        done = run()
        if last in said(done):
            return done
    return run()


def _divergence(tools: LlamaCpp, job: EvaluationJob, base: Path) -> Evaluation:
    header = read_header(base)
    check_base(header, job.protocol.n_ctx, job.protocol.windows)
    check_own_tokens(_Run(tools, job).own_tokens(), header, job.model.name)
    options = ["--kl-divergence", "--kl-divergence-base", str(base.resolve())]

    def go() -> _Run:
        run = _Run(tools, job)
        run.go(options)
        return run

    run = _to_the_end(go, lambda run: run.said, _LAST_STATISTIC)
    perplexity, error, divergence = parse_divergence(run.said)
    if not (math.isfinite(perplexity) and math.isfinite(divergence.mean)):
        again = _Run(tools, job)
        figures = again.go_streaming()
        return again.evaluation(figures.perplexity, figures.perplexity_error, figures)
    sound = StreamFigures(token_sha256(header.tokens), 0, perplexity, error)
    return run.evaluation(perplexity, error, sound, divergence)


class _Run:
    """One run of llama-perplexity. When the tool prints that it cannot do its job, this class stops the tool."""

    def __init__(self, tools: LlamaCpp, job: EvaluationJob) -> None:
        self.tools = tools
        self.job = job
        self.said = ""
        self._began = self._ended = time.monotonic()
        self._scoring_began: float | None = None

    def go(self, options: list[str]) -> None:
        """Runs the tool over the protocol's windows, and puts the tool's output into ``said``."""
        protocol = self.job.protocol
        command: list[str | Path] = [self.tools.perplexity, "--model", self.job.model.resolve(), *options]
        command += ["--chunks", str(protocol.windows), "--ctx-size", str(protocol.n_ctx)]
        # A batch is one window, so that the logits of only one window take memory.
        command += ["--batch-size", str(protocol.n_ctx), "--ubatch-size", str(min(protocol.n_ctx, _UBATCH))]
        command += processor_options(self.job.threads, self.job.device)
        environment = {"OMP_NUM_THREADS": str(self.job.threads)}
        self._began = time.monotonic()
        self.said = run_tool(command, Path.cwd(), self._watch, environment)
        self._ended = time.monotonic()
        if self._scoring_began is None:
            raise ChildFailed(f"llama-perplexity began no evaluation{tail(self.said)}")

    def go_streaming(self) -> StreamFigures:
        """Runs the tool over the text, and reads the log-probabilities from a pipe, so that none reach the disk."""
        with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(max_workers=1) as reader:
            pipe = Path(scratch) / "logits"
            os.mkfifo(pipe)
            # This process holds the pipe open for writing. So the reader can open the pipe without waiting for the
            # tool, and the reader's stream ends when ``held`` is closed.
            held = os.open(pipe, os.O_RDWR)
            figures = reader.submit(figures_of_pipe, pipe)
            try:
                self.go(["--file", str(self.job.text), "--save-all-logits", str(pipe)])
            finally:
                os.close(held)
            return figures.result()

    def own_tokens(self) -> Tokens:
        """Returns the token ids that the model's own tokenizer gives, int32 ``[windows, n_ctx]``.

        The tool is stopped as soon as it has written these ids.
        """
        return header_of(lambda pipe: self.go(["--file", str(self.job.text), "--save-all-logits", str(pipe)])).tokens

    def _watch(self, line: str) -> None:
        protocol = self.job.protocol
        if found := _TOO_FEW.search(line):
            check_tokens(int(found[1]), protocol.n_ctx, protocol.windows)
        if found := _STARTED.search(line):
            self._scoring_began = time.monotonic()
            if (int(found[1]), int(found[2])) != (protocol.windows, protocol.n_ctx):
                check_tokens(int(found[1]) * int(found[2]), protocol.n_ctx, protocol.windows)
        if _FATAL.search(line):
            raise ChildFailed(f"llama-perplexity: {line.strip()}")

    def evaluation(
        self, perplexity: float, error: float, figures: StreamFigures, divergence: Divergence | None = None
    ) -> Evaluation:
        """Returns the record of what this run measured."""
        protocol = self.job.protocol
        scoring = self._ended - (self._scoring_began or self._began)
        return Evaluation(
            protocol=protocol,
            engine="llama.cpp",
            engine_version=self.tools.version,
            perplexity=perplexity,
            perplexity_error=error,
            scored_tokens=protocol.windows * scored_positions(protocol.n_ctx),
            non_finite=figures.non_finite,
            token_sha256=figures.token_sha256,
            divergence=divergence,
            seconds=self._ended - self._began,
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
            tokens_per_second=protocol.windows * protocol.n_ctx / scoring,
        )
