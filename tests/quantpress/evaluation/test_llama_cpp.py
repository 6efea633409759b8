from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantizers.gguf.convert import convert
from quantpress.errors import BadInput, ChildFailed, Refused
from quantpress.evaluation.engines import llama_cpp as llama_cpp_engine
from quantpress.evaluation.engines.llama_cpp import Generated, evaluate
from quantpress.evaluation.engines.llama_cpp_checks import check_base, check_own_tokens, check_tokens
from quantpress.evaluation.engines.llama_cpp_output import RunFigures, parse_divergence, parse_estimate, parse_run
from quantpress.evaluation.job import EvaluationJob
from quantpress.evaluation.logits import LogitsHeader, read_header, token_sha256
from quantpress.files import sha256_of
from quantpress.record.measurement import Evaluation, Protocol
from quantpress.toolchain.llama_cpp import LlamaCpp
from quantpress.toolchain.run import run_tool
from tests.support import samples

# What llama-perplexity prints at the end of a run against a base.
DIVERGENCE = """
====== Perplexity statistics ======
Mean PPL(Q)                   :  34.835680 ±   1.615975
Mean PPL(base)                :  29.247468 ±   1.401003
Cor(ln(PPL(Q)), ln(PPL(base))):  97.50%
Mean ln(PPL(Q)/PPL(base))     :   0.174850 ±   0.010667

====== KL divergence statistics ======
Mean    KLD:   0.298168 ±   0.004880
Maximum KLD:   4.975896
99.9%   KLD:   3.543023
99.0%   KLD:   1.491002
95.0%   KLD:   0.815000
Median  KLD:   0.234477
Minimum KLD:  -0.000003

====== Token probability statistics ======
Mean    Δp: -1.917 ± 0.190 %
Same top p: 67.721 ± 0.732 %
"""


def test_all_figures_of_a_divergence_run_are_read() -> None:
    perplexity, error, divergence = parse_divergence(DIVERGENCE)

    assert (perplexity, error) == (34.83568, 1.615975)
    assert (divergence.mean, divergence.mean_error) == (0.298168, 0.00488)
    assert (divergence.median, divergence.p99, divergence.p999) == (0.234477, 1.491002, 3.543023)
    assert divergence.maximum == 4.975896
    assert divergence.same_top == pytest.approx(0.67721)
    assert divergence.same_top_error == pytest.approx(0.00732)


@pytest.mark.parametrize(
    "lost", [line for line in DIVERGENCE.splitlines() if line.startswith(("Mean PPL(Q) ", "Median"))]
)
def test_a_missing_figure_is_an_error_and_never_a_default(lost: str) -> None:
    with pytest.raises(ChildFailed, match="printed 0 lines"):
        parse_divergence(DIVERGENCE.replace(lost, ""))


def test_a_failed_run_that_exits_0_is_an_error() -> None:
    with pytest.raises(ChildFailed, match="printed 0 final estimates"):
        parse_estimate("perplexity: failed to decode\n")


def test_figures_that_are_not_finite_are_read_as_such() -> None:
    perplexity, error = parse_estimate("Final estimate: PPL = nan +/- -nan")
    assert np.isnan(perplexity)
    assert np.isnan(error)


def test_the_remedy_for_a_short_text_is_named() -> None:
    check_tokens(1024, 512, 2)
    with pytest.raises(BadInput, match="1100 tokens, and 3 windows of 512 need 1536: ask for 2 windows"):
        check_tokens(1100, 512, 3)
    with pytest.raises(BadInput, match="600 tokens, and 2 windows of 512 need 1024: give a longer text"):
        check_tokens(600, 512, 1)


def test_a_base_of_another_protocol_or_too_short_is_refused() -> None:
    header = LogitsHeader(128, 3, np.zeros((2, 128), dtype=np.int32))
    check_base(header, 128, 2)
    with pytest.raises(BadInput, match="2 windows of 128 tokens, the protocol 4 of 128"):
        check_base(header, 128, 4)
    with pytest.raises(BadInput, match="score 63 positions, and divergence needs 100: ask for more windows"):
        check_base(LogitsHeader(128, 3, np.zeros((1, 128), dtype=np.int32)), 128, 1)


# What llama-completion logs at verbosity 4 with a model on a GPU. One of the model's strings imitates a log line.
GENERATION = """
llama_model_loader: - kv   1:  general.name str = load_tensors: CPU model buffer size = 9.00 MiB
load_tensors:   CPU_Mapped model buffer size =    96.00 MiB
load_tensors:        CUDA0 model buffer size =   512.50 MiB
llama_context:  CUDA_Host  output buffer size =     0.19 MiB
llama_kv_cache:      CUDA0 KV buffer size =    45.00 MiB
sched_reserve:      CUDA0 compute buffer size =    96.00 MiB
sched_reserve:  CUDA_Host compute buffer size =     5.00 MiB
common_perf_print: prompt eval time =      88.84 ms /    15 tokens (    5.92 ms per token,   168.83 tokens per second)
common_perf_print:        eval time =      50.00 ms /     5 runs   (   10.00 ms per token,   100.00 tokens per second)
"""


def test_speed_and_memory_of_a_run_are_read() -> None:
    run = parse_run(GENERATION)

    assert run.tokens_per_second == 100
    assert run.weights_bytes == (96 + 512.5) * 2**20
    assert run.device_bytes == (512.5 + 45 + 96) * 2**20
    assert parse_run(GENERATION.replace("CUDA0", "CPU_REPACK")).device_bytes is None
    assert parse_run(GENERATION.replace(" 50.00 ms /     5", " 0.00 ms /     1")).tokens_per_second is None
    with pytest.raises(ChildFailed, match="no buffer of weights"):
        parse_run("common_perf_print:        eval time =      50.00 ms /     5 runs")


@pytest.mark.parametrize(("device_bytes", "runner"), [(None, "CPU X, 2 threads"), (700_000_000, "GPU Y")])
def test_the_runner_is_the_processor_where_no_memory_of_a_gpu_was_used(
    device_bytes: int | None, runner: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def name(device: str, threads: int) -> str:
        return "GPU Y" if device == "cuda" else f"CPU X, {threads} threads"

    run = RunFigures(tokens_per_second=9.0, weights_bytes=70_000_000, device_bytes=device_bytes)
    monkeypatch.setattr(llama_cpp_engine, "install", lambda: None)
    monkeypatch.setattr(llama_cpp_engine, "_measured", lambda tools, job: samples.evaluation(16.1))
    monkeypatch.setattr(llama_cpp_engine, "generate", lambda *_: Generated("a girl", run))
    monkeypatch.setattr(llama_cpp_engine, "runner_name", name)
    (tmp_path / "text").write_text("text")

    found = evaluate(job(tmp_path / "x.gguf", tmp_path / "text").model_copy(update={"device": "cuda"}))

    assert (found.runner, found.peak_device_memory_bytes) == (runner, device_bytes)


def test_other_token_ids_than_the_bases_are_named_by_their_window() -> None:
    base = LogitsHeader(4, 9, np.arange(12, dtype=np.int32).reshape(3, 4))
    check_own_tokens(base.tokens.copy(), base, "x.gguf")
    other = base.tokens.copy()
    other[1, 2] = 0
    with pytest.raises(BadInput, match=r"x\.gguf: its tokenizer gives other token ids .* first in window 2 of 3"):
        check_own_tokens(other, base, "x.gguf")
    with pytest.raises(BadInput, match="first in window 1 of 3"):
        check_own_tokens(base.tokens[:2], base, "x.gguf")


@pytest.fixture(scope="module")
def unquantized(llama_cpp: LlamaCpp, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "tiny-F16.gguf"
    convert(llama_cpp, tiny_model, "tiny", "F16", file)
    return file


def job(model: Path, text: Path, windows: int = 3, **more: Path) -> EvaluationJob:
    protocol = Protocol(text="english", text_sha256=sha256_of(text), n_ctx=128, windows=windows)
    return EvaluationJob(engine="llama.cpp", model=model, protocol=protocol, text=text, threads=2, device="cpu", **more)


@pytest.fixture(scope="module")
def base(unquantized: Path, english: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Evaluation]:
    file = tmp_path_factory.mktemp("logits") / "base"
    return file, evaluate(job(unquantized, english, save_logits=file))


@pytest.mark.slow
def test_saved_and_streamed_runs_agree(
    unquantized: Path, english: Path, base: tuple[Path, Evaluation], llama_cpp: LlamaCpp
) -> None:
    file, saved = base
    streamed = evaluate(job(unquantized, english))

    assert streamed.perplexity == saved.perplexity > 1
    assert streamed.token_sha256 == saved.token_sha256 == token_sha256(read_header(file).tokens)
    assert saved.scored_tokens == 3 * 63
    assert saved.non_finite == 0
    assert saved.divergence is None
    assert saved.engine_version == llama_cpp.version
    assert saved.peak_memory_bytes > 70_000_000
    assert saved.tokens_per_second > 0
    assert saved.generation_tokens_per_second is not None and saved.generation_tokens_per_second > 0
    # The tiny model has 35.3 million weights of 16 bits: embeddings of 49,152 x 576, and two layers.
    assert saved.weights_bytes == pytest.approx(2 * 35.4e6, rel=0.02)
    assert saved.peak_device_memory_bytes is None
    assert saved.memory_bytes == saved.peak_memory_bytes
    assert saved.runner is not None and saved.runner.endswith(", 2 threads")


@pytest.mark.slow
def test_token_ids_are_those_of_the_sources_tokenizer(
    tiny_model: Path, english: Path, base: tuple[Path, Evaluation]
) -> None:
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(tiny_model / "tokenizer.json")).encode(english.read_text()).ids

    assert base[1].token_sha256 == token_sha256(ids[: 3 * 128])


@pytest.mark.slow
def test_a_model_does_not_diverge_from_itself_and_a_rung_does(
    llama_cpp: LlamaCpp, unquantized: Path, english: Path, base: tuple[Path, Evaluation], tmp_path: Path
) -> None:
    run_tool([llama_cpp.quantize, unquantized, tmp_path / "q", "Q4_0", "2"], tmp_path)

    itself = evaluate(job(unquantized, english, base_logits=base[0]))
    rung = evaluate(job(tmp_path / "q", english, base_logits=base[0]))

    assert itself.divergence is not None
    assert rung.divergence is not None
    assert itself.perplexity == pytest.approx(base[1].perplexity, rel=1e-5)
    assert abs(itself.divergence.mean) < 1e-3
    assert itself.divergence.same_top == 1.0
    assert rung.divergence.mean > 10 * abs(itself.divergence.mean)
    assert 0.5 < rung.divergence.same_top < 1
    assert rung.token_sha256 == base[1].token_sha256


@pytest.mark.slow
def test_a_base_of_other_tokens_is_refused(
    unquantized: Path, english: Path, base: tuple[Path, Evaluation], tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("Another text. " + english.read_text())

    with pytest.raises(BadInput, match=r"tiny-F16\.gguf: its tokenizer gives other token ids .* in window 1 of 3"):
        evaluate(job(unquantized, tmp_path / "text", base_logits=base[0]))


@pytest.mark.slow
def test_positions_that_are_not_finite_are_counted(
    llama_cpp: LlamaCpp, tiny_model: Path, english: Path, base: tuple[Path, Evaluation], tmp_path: Path
) -> None:
    import shutil

    from safetensors.numpy import load_file, save_file

    # The embedding of one token is broken. All positions after this token in its window become NaN.
    tokens = read_header(base[0]).tokens
    broken = int(tokens[1, 100])
    expected = sum(128 - 1 - max(64, row.tolist().index(broken)) for row in tokens if broken in row)
    source = tmp_path / "source"
    shutil.copytree(tiny_model, source)
    weights = load_file(source / "model.safetensors")
    config = (source / "config.json").read_text().replace('"tie_word_embeddings": true', '"tie_word_embeddings": false')
    (source / "config.json").write_text(config)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].copy()
    weights["model.embed_tokens.weight"][broken] = np.nan
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    convert(llama_cpp, source, "broken", "F16", tmp_path / "broken.gguf")

    plain = evaluate(job(tmp_path / "broken.gguf", english))
    against = evaluate(job(tmp_path / "broken.gguf", english, base_logits=base[0]))

    assert 0 < expected < 3 * 63
    assert plain.non_finite == expected
    assert plain.perplexity > 1
    assert Evaluation.model_validate_json(plain.model_dump_json()) == plain
    assert against.non_finite == expected
    assert against.divergence is None


@pytest.mark.slow
def test_a_text_too_short_is_bad_input_before_any_window_is_scored(unquantized: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("One and two and three. " * 50)

    with pytest.raises(BadInput, match="need 640: ask for 2 windows"):
        evaluate(job(unquantized, tmp_path / "text", windows=5))
    with pytest.raises(BadInput, match="give a longer text"):
        (tmp_path / "text").write_text("One and two and three. ")
        evaluate(job(unquantized, tmp_path / "text", save_logits=tmp_path / "saved"))

    assert [path.name for path in tmp_path.iterdir()] == ["text"]


@pytest.mark.slow
def test_a_file_that_is_no_model_is_an_error(english: Path, llama_cpp: LlamaCpp) -> None:
    with pytest.raises(Refused, match=r"english.txt is truncated, damaged or no GGUF file: it does not"):
        evaluate(job(english, english))
