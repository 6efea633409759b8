"""What llama-quantize says in a dry run, and the plans that follow from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantizers.gguf.dry_run import DryRun, PlannedTensor, dry_run, parse
from quantizers.gguf.ladder import RUNGS, Rung
from quantizers.gguf.llama_quantize import file_types
from quantizers.gguf.rung_plan import RungPlan, load, plan_rungs
from quantpress.errors import BadInput, QuantpressError, Refused
from quantpress.toolchain.llama_cpp import LlamaCpp
from tests.support.gguf_files import narrow, wide, with_experts, write_imatrix, write_model

SAID = """llama_model_loader: - kv   0:                       general.architecture str              = llama
[   1/   3] output_norm.weight                   - [   576,      1,      1,      1], type =    f32, size =    0.002 MiB
[   2/   3] blk.0.ffn_up_exps.weight             - [   576,    512,      4,      1], type =   bf16, \
size =     2.25 MiB ->     0.77 MiB (q5_0)
[   3/   3] output.weight                        - [   576,  49152,      1,      1], type =    f16, \
size =    54.00 MiB ->    28.69 MiB (q8_0)
llama_model_quantize_impl: model size  =    56.25 MiB (16.00 BPW)
llama_model_quantize_impl: quant size  =    29.46 MiB (8.38 BPW)
llama_model_quantize_impl: WARNING: 1 of 3 tensor(s) required fallback quantization

llama_quantize: quantize time =    24.78 ms
"""
LINES = SAID.splitlines()


def test_every_tensor_is_read() -> None:
    assert parse(SAID) == DryRun(
        tensors=(
            PlannedTensor("output_norm.weight", (576, 1, 1, 1), "F32", "F32"),
            PlannedTensor("blk.0.ffn_up_exps.weight", (576, 512, 4, 1), "BF16", "Q5_0"),
            PlannedTensor("output.weight", (576, 49152, 1, 1), "F16", "Q8_0"),
        ),
        fallbacks=1,
        needs_imatrix=False,
    )


@pytest.mark.parametrize("missing", [1, 2, 3, 5])
def test_a_line_that_is_missing_is_noticed(missing: int) -> None:
    with pytest.raises(QuantpressError, match="the answer of llama-quantize --dry-run is not understood"):
        parse("\n".join(line for number, line in enumerate(LINES) if number != missing))


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("(q5_0)", "(q5_1)", "a sum of 29.46 MiB where the tensors have 29.53 MiB"),
        ("(q5_0)", "(q9_9)", "tensor type 'Q9_9'"),
        ("(q5_0)", "q5_0", "line '[   2/   3] blk.0.ffn_up_exps.weight"),
        ("29.46 MiB", "much", "3 tensors and 0 sums"),
        ("[   3/   3]", "[   4/   3]", "line '[   4/   3] output.weight"),
    ],
)
def test_another_answer_is_not_guessed_at(old: str, new: str, what: str) -> None:
    with pytest.raises(QuantpressError) as raised:
        parse(SAID.replace(old, new))
    assert what in str(raised.value)


@settings(deadline=None)
@given(st.integers(0, len(SAID) - 1), st.characters(codec="utf-8"))
def test_a_damaged_answer_is_never_misread(position: int, character: str) -> None:
    try:
        run = parse(SAID[:position] + character + SAID[position + 1 :])
    except QuantpressError:
        return
    # An answer that still parses has the same sizes. Only names, sources and warnings can differ.
    assert [tensor.target for tensor in run.tensors][1:] == ["Q5_0", "Q8_0"]
    assert len(run.tensors) == 3


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("plans")
    for name, matrices in (("narrow", narrow(tiny_model)), ("wide", wide(tiny_model))):
        write_model(made / f"{name}.gguf", matrices, {})
        write_imatrix(made / f"{name}.imatrix.gguf", matrices)
    return made


def types(plan: RungPlan) -> dict[str, str]:
    return {tensor.name: tensor.target for tensor in plan.tensors}


def planned(llama_cpp: LlamaCpp, folder: Path, name: str, rungs: list[str]) -> dict[str, RungPlan]:
    plans = plan_rungs(llama_cpp, folder / f"{name}.gguf", folder / f"{name}.imatrix.gguf", rungs)
    return {plan.rung: plan for plan in plans}


def test_llama_cpp_decides_the_types(llama_cpp: LlamaCpp, folder: Path) -> None:
    plans = planned(llama_cpp, folder, "wide", ["Q4_K_M", "Q4_K_L", "MXFP4"])

    middle, larger, four_bits = (types(plans[name]) for name in ("Q4_K_M", "Q4_K_L", "MXFP4"))
    assert (middle["token_embd.weight"], middle["output.weight"], middle["blk.0.attn_q.weight"]) == (
        "Q4_K",
        "Q6_K",
        "Q4_K",
    )
    assert {name for name in middle if middle[name] != larger[name]} == {"token_embd.weight", "output.weight"}
    assert (larger["token_embd.weight"], larger["output.weight"]) == ("Q8_0", "Q8_0")
    assert {name: kind for name, kind in four_bits.items() if kind != "MXFP4"} == {
        "token_embd.weight": "Q8_0",
        "output.weight": "Q8_0",
        "output_norm.weight": "F32",
        **{f"blk.{layer}.{norm}.weight": "F32" for layer in (0, 1) for norm in ("attn_norm", "ffn_norm")},
    }
    assert [plan.fallbacks for plan in plans.values()] == [0, 0, 0]


def test_rungs_of_the_same_bytes_are_found(llama_cpp: LlamaCpp, folder: Path) -> None:
    plans = planned(
        llama_cpp, folder, "narrow", ["IQ1_S", "IQ4_XS", "IQ4_NL", "Q4_K_M", "Q4_K_L", "Q6_K", "Q6_K_L", "Q8_0"]
    )

    # All matrices fall back to other types. The embeddings, which are also the output, are Q8_0 in any case.
    assert plans["Q4_K_M"].fallbacks == 14
    assert {name: plan.same_bytes_as for name, plan in plans.items()} == {
        "IQ1_S": None,
        "IQ4_XS": "IQ4_NL",
        "IQ4_NL": None,
        "Q4_K_M": None,
        "Q4_K_L": "Q4_K_M",
        "Q6_K": "Q8_0",
        "Q6_K_L": "Q8_0",
        "Q8_0": None,
    }
    assert {plan.by_llama_quantize for plan in plans.values()} == {None}


def test_what_llama_quantize_would_not_finish_is_refused(
    llama_cpp: LlamaCpp, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # llama-quantize aborts midway and leaves half a file. Its dry run does not say so.
    monkeypatch.setitem(RUNGS, "X", Rung("X", "Q8_0", 8.5, ("--token-embedding-type", "q6_K")))

    plans = {plan.rung: plan for plan in plan_rungs(llama_cpp, folder / "narrow.gguf", None, ["X", "IQ2_S", "Q8_0"])}

    assert plans["X"].refusal == "token_embd.weight has rows of 576: Q6_K needs a multiple of 256"
    assert plans["IQ2_S"].refusal is None
    assert plans["Q8_0"].refusal is None
    [needy] = plan_rungs(llama_cpp, folder / "wide.gguf", None, ["IQ2_S"])
    assert needy.refusal == "IQ2_S needs an imatrix"


def test_a_model_that_is_quantized_already_is_not_quantized_twice(
    llama_cpp: LlamaCpp, folder: Path, tiny_model: Path
) -> None:
    write_model(folder / "done.gguf", narrow(tiny_model), {"attn_q.weight": "Q8_0"})

    q8, q4 = plan_rungs(llama_cpp, folder / "done.gguf", None, ["Q8_0", "Q4_0"])

    assert q4.refusal == "blk.0.attn_q.weight is Q8_0 already: it would be quantized twice"
    assert (q8.refusal, q8.by_llama_quantize) == (None, None)


def test_a_refusal_quotes_the_tool(llama_cpp: LlamaCpp, folder: Path) -> None:
    with pytest.raises(Refused, match=r"llama-quantize makes no Q8_0 of missing\.gguf: "):
        dry_run(llama_cpp, folder / "missing.gguf", None, RUNGS["Q8_0"])


def test_an_imatrix_that_fits_only_in_part_leaves_the_rung_to_llama_quantize(
    llama_cpp: LlamaCpp, tiny_model: Path, tmp_path: Path
) -> None:
    model = tmp_path / "m.gguf"
    matrices = with_experts(wide(tiny_model))
    write_model(model, matrices, {})
    known = {name: values for name, values in matrices.items() if name != "blk.1.ffn_up_exps.weight"}
    write_imatrix(tmp_path / "lacks.gguf", known)
    write_imatrix(
        tmp_path / "shape.gguf", known | {"blk.1.ffn_up_exps.weight": matrices["blk.1.ffn_up_exps.weight"][:3]}
    )

    reasons = {
        name: [plan.by_llama_quantize for plan in plan_rungs(llama_cpp, model, tmp_path / name, ["IQ3_S", "Q8_0"])]
        for name in ("lacks.gguf", "shape.gguf")
    }

    assert reasons["lacks.gguf"] == ["the imatrix has nothing for blk.1.ffn_up_exps.weight, which would be IQ3_S", None]
    assert reasons["shape.gguf"] == ["the imatrix is for another shape of blk.1.ffn_up_exps.weight"] * 2


def test_tools_without_their_library_leave_all_to_llama_quantize(
    llama_cpp: LlamaCpp, folder: Path, tmp_path: Path
) -> None:
    script = tmp_path / "bin" / "llama-quantize"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{llama_cpp.quantize}" "$@"\n')
    script.chmod(0o755)
    alone = replace(llama_cpp, quantize=script)

    [plan] = plan_rungs(alone, folder / "wide.gguf", None, ["Q8_0"])
    [usual] = plan_rungs(llama_cpp, folder / "wide.gguf", None, ["Q8_0"])

    reason = "no libggml-base lies beside llama-quantize: it was built without shared libraries"
    assert (plan.by_llama_quantize, load(alone)) == (reason, (None, reason))
    assert abs(plan.file_bytes - usual.file_bytes) < 64


def test_a_library_that_is_none(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    (tmp_path / "libggml-base.so").write_text("not a library")
    (tmp_path / "llama-quantize").write_text("")

    _, reason = load(replace(llama_cpp, quantize=tmp_path / "llama-quantize"))

    assert reason is not None and reason.startswith("libggml-base.so cannot be used: ")


def test_an_imatrix_elsewhere_or_of_another_kind(llama_cpp: LlamaCpp, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"must lie in the folder of .*wide\.gguf"):
        plan_rungs(llama_cpp, folder / "wide.gguf", tmp_path / "im.gguf", ["Q8_0"])
    with pytest.raises(BadInput, match=r"narrow\.gguf is no imatrix in GGUF form"):
        plan_rungs(llama_cpp, folder / "wide.gguf", folder / "narrow.gguf", ["Q8_0"])


def test_file_types_are_those_of_the_tool(llama_cpp: LlamaCpp) -> None:
    found = file_types(llama_cpp)

    assert {rung.type for rung in RUNGS.values()} <= found.keys()
    assert (found["F16"], found["Q4_K_M"], found["MXFP4_MOE"]) == (1, 15, 38)
    with pytest.raises(QuantpressError, match="names no file types: is it llama-quantize"):
        file_types(replace(llama_cpp, quantize=llama_cpp.gguf_split))
