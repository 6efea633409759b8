"""Measures a GGUF file with llama-perplexity.

The tool is run once. Its log-probabilities always leave through a file or a named pipe, for they alone hold the
token ids and show which positions are not finite. A divergence run reads the base's file instead; only when its
figures are not finite is the model run again to count how many positions are not.

The tool exits 0 on most failures, so its exit code proves nothing: what it prints is parsed, and a figure that
is not there is an error.
"""

from __future__ import annotations

import math
import os
import re
import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from quantpress.errors import BadInput, ChildFailed
from quantpress.evaluation.job import EvaluationJob
from quantpress.evaluation.logits import LogitsHeader, read_header, scored_positions, token_sha256
from quantpress.evaluation.logits_stream import StreamFigures, figures_of, figures_of_pipe
from quantpress.evaluation.record import Divergence, Evaluation
from quantpress.evaluation.sample import PROMPT, TOKENS
from quantpress.files import atomic
from quantpress.toolchain.llama_cpp import LlamaCpp, install
from quantpress.toolchain.options import processor_options
from quantpress.toolchain.run import run_tool

#: llama-perplexity prints no divergence statistics for fewer values.
_FEWEST_VALUES = 100
#: The physical batch; llama.cpp's default.
_UBATCH = 512
_NUMBER = r"(-?(?:\d+(?:\.\d+)?|nan|inf))"
_ESTIMATE = re.compile(rf"Final estimate: PPL = {_NUMBER} \+/- {_NUMBER}")
_TOO_FEW = re.compile(r"the data file you provided tokenizes to only (\d+) tokens")
_STARTED = re.compile(r"(?:calculating perplexity|computing) over (\d+) chunks, n_ctx=(\d+)")
_FATAL = re.compile(r"inconsistent vocabulary|failed to (?:decode|open|load)|failed reading|unable to load model")
#: Heads the figures of a run against a base.
_STATISTICS = "====== KL divergence statistics ======"


def evaluate(job: EvaluationJob) -> Evaluation:
    """Measures ``job.model`` as ``job.protocol`` says.

    Raises :class:`BadInput` when the text has too few tokens for the windows or the base file is of another
    protocol, :class:`ChildFailed` when the tool fails or does not print what it should.
    """
    tools = install()
    measured = _measured(tools, job)
    sample = generate(tools, job.model, PROMPT, TOKENS, job.threads, job.device)
    return measured.model_copy(update={"sample": sample})


def _measured(tools: LlamaCpp, job: EvaluationJob) -> Evaluation:
    if job.base_logits is not None:
        return _divergence(tools, job, job.base_logits)
    run = _Run(tools, job)
    if job.save_logits is not None:
        with atomic(job.save_logits) as temporary:
            run.go(["--file", str(job.text), "--save-all-logits", str(temporary)])
            figures = figures_of(temporary)
    else:
        figures = run.go_streaming()
    if figures.non_finite:
        return run.evaluation(figures.perplexity, figures.perplexity_error, figures)
    perplexity, error = parse_estimate(run.said)
    return run.evaluation(perplexity, error, figures)


def check_tokens(tokens: int, n_ctx: int, windows: int) -> None:
    """Raises :class:`BadInput` unless ``tokens`` suffice for ``windows`` (and for two: the tool asks that)."""
    needed = n_ctx * max(windows, 2)
    if tokens < needed:
        remedy = f"ask for {tokens // n_ctx} windows" if tokens >= 2 * n_ctx else "give a longer text"
        raise BadInput(
            f"the evaluation text has {tokens} tokens, and {windows} windows of {n_ctx} need {needed}: {remedy}"
        )


def check_base(header: LogitsHeader, n_ctx: int, windows: int) -> None:
    """Raises :class:`BadInput` unless a base file is of this protocol and long enough for statistics."""
    if (header.n_ctx, header.windows) != (n_ctx, windows):
        raise BadInput(
            f"the base file has {header.windows} windows of {header.n_ctx} tokens, the protocol {windows} of {n_ctx}: "
            "measure the unquantized model again"
        )
    if windows * scored_positions(n_ctx) < _FEWEST_VALUES:
        raise BadInput(
            f"{windows} windows of {n_ctx} tokens score {windows * scored_positions(n_ctx)} positions, and divergence "
            f"needs {_FEWEST_VALUES}: ask for more windows"
        )


def parse_estimate(said: str) -> tuple[float, float]:
    """Perplexity and its standard error from a plain run. Raises :class:`ChildFailed` where they are absent."""
    found = _ESTIMATE.findall(said)
    if len(found) != 1:
        raise ChildFailed(f"llama-perplexity printed {len(found)} final estimates, not one{_tail(said)}")
    return float(found[0][0]), float(found[0][1])


def parse_divergence(said: str) -> tuple[float, float, Divergence]:
    """Perplexity, its error and the divergence from a run against a base.

    Raises :class:`ChildFailed` where one of the figures is absent.
    """

    def figure(label: str, after: str = "") -> tuple[float, ...]:
        found = re.findall(rf"^{label}:\s+{_NUMBER}{after}", said, re.MULTILINE)
        if len(found) != 1:
            raise ChildFailed(f"llama-perplexity printed {len(found)} lines {label!r}, not one{_tail(said)}")
        return tuple(float(value) for value in (found[0] if isinstance(found[0], tuple) else (found[0],)))

    error = rf" ±\s+{_NUMBER}"
    perplexity, perplexity_error = figure(r"Mean PPL\(Q\)\s*", error)
    mean, mean_error = figure("Mean    KLD", error)
    same_top, same_top_error = figure("Same top p", error)
    divergence = Divergence(
        mean=mean,
        mean_error=mean_error,
        median=figure("Median  KLD")[0],
        p99=figure("99.0%   KLD")[0],
        p999=figure("99.9%   KLD")[0],
        maximum=figure("Maximum KLD")[0],
        same_top=same_top / 100,
        same_top_error=same_top_error / 100,
    )
    return perplexity, perplexity_error, divergence


def generate(
    tools: LlamaCpp, model: Path, prompt: str, tokens: int, threads: int, device: Literal["cpu", "cuda"] = "cpu"
) -> str:
    """The greedy continuation of ``prompt`` by up to ``tokens`` tokens, without a chat template; prompt left out."""
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "prompt.txt").write_text(prompt, encoding="utf-8")
        command: list[str | Path] = [tools.completion, "--model", model.absolute(), "--file", "prompt.txt"]
        command += ["--n-predict", str(tokens), "--temp", "0", "--seed", "1", "--ctx-size", "2048"]
        command += ["-no-cnv", "--no-display-prompt", "--simple-io", "--no-perf", "--no-warmup", "--log-verbosity", "0"]
        said = run_tool([*command, *processor_options(threads, device)], Path(scratch))
    return said.strip().removesuffix("[end of text]").strip()


def _divergence(tools: LlamaCpp, job: EvaluationJob, base: Path) -> Evaluation:
    header = read_header(base)
    check_base(header, job.protocol.n_ctx, job.protocol.windows)
    options = ["--kl-divergence", "--kl-divergence-base", str(base.resolve())]
    run = _Run(tools, job)
    run.go(options)
    if _STATISTICS not in run.said:
        # Seen once in some 300 runs, on 2 cores at load 8: exit code 0, and the output ended after the first window.
        run = _Run(tools, job)
        run.go(options)
    perplexity, error, divergence = parse_divergence(run.said)
    if not (math.isfinite(perplexity) and math.isfinite(divergence.mean)):
        again = _Run(tools, job)
        figures = again.go_streaming()
        return again.evaluation(figures.perplexity, figures.perplexity_error, figures)
    sound = StreamFigures(token_sha256(header.tokens), 0, perplexity, error)
    return run.evaluation(perplexity, error, sound, divergence)


class _Run:
    """One run of llama-perplexity, watched: it is ended as soon as it says that it cannot do what was asked."""

    def __init__(self, tools: LlamaCpp, job: EvaluationJob) -> None:
        self.tools = tools
        self.job = job
        self.said = ""
        self._began = self._ended = time.monotonic()
        self._scoring_began: float | None = None

    def go(self, options: list[str]) -> None:
        """Runs the tool over the protocol's windows; ``said`` is all it printed."""
        protocol = self.job.protocol
        command: list[str | Path] = [self.tools.perplexity, "--model", self.job.model.resolve(), *options]
        command += ["--chunks", str(protocol.windows), "--ctx-size", str(protocol.n_ctx)]
        # One window per batch: the memory for logits stays that of one window.
        command += ["--batch-size", str(protocol.n_ctx), "--ubatch-size", str(min(protocol.n_ctx, _UBATCH))]
        command += processor_options(self.job.threads, self.job.device)
        environment = {"OMP_NUM_THREADS": str(self.job.threads)}
        self._began = time.monotonic()
        self.said = run_tool(command, Path.cwd(), self._watch, environment)
        self._ended = time.monotonic()
        if self._scoring_began is None:
            raise ChildFailed(f"llama-perplexity began no evaluation{_tail(self.said)}")

    def go_streaming(self) -> StreamFigures:
        """Runs the tool over the text with its log-probabilities read from a pipe, so that none reach the disk."""
        with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(max_workers=1) as reader:
            pipe = Path(scratch) / "logits"
            os.mkfifo(pipe)
            # Held open for writing here, the reader's open does not wait, and its end comes when this closes.
            held = os.open(pipe, os.O_RDWR)
            figures = reader.submit(figures_of_pipe, pipe)
            try:
                self.go(["--file", str(self.job.text), "--save-all-logits", str(pipe)])
            finally:
                os.close(held)
            return figures.result()

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
        """The record of this run."""
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


def _tail(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()][-4:]
    return "".join(f"\n  | {line[-300:]}" for line in lines)
