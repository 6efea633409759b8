"""The card names what the calibration text never reached."""

from __future__ import annotations

from quantpress.card.context import CardContext
from quantpress.card.render import render_card
from tests.support import samples


def card(unused: list[str]) -> str:
    manifest = samples.gguf()
    entries = [
        entry.model_copy(
            update={"artifact": entry.artifact.model_copy(update={"details": {"imatrix": {"unused": unused}}})}
        )
        for entry in manifest.entries
    ]
    context = CardContext(repo_id="press/SmolLM2-135M-Instruct-GGUF", quantized_by="press")
    return " ".join(render_card(manifest.model_copy(update={"entries": entries}), context).split())


def test_tensors_that_no_token_reached_are_named() -> None:
    said = card(["blk.2.ffn_up_exps.weight", "blk.10.ffn_up_exps.weight"])
    assert (
        "No token of the calibration text reached 2 of the model's tensors, or some of their experts, whose rounding "
        "errors were therefore weighed evenly: `blk.10.ffn_up_exps.weight`, `blk.2.ffn_up_exps.weight`."
    ) in said


def test_rungs_that_another_imatrix_weighed_are_named() -> None:
    """The source has a new commit with the same weights. Old rungs get new metadata; the next has a new imatrix."""
    manifest = samples.gguf({"Q4_K_M": 6.17, "Q6_K": 8.15, "Q8_0": 8.51})
    weighed = {"Q4_K_M": "e" * 64, "Q6_K": "d" * 64, "Q8_0": "e" * 64}
    entries = [
        entry.model_copy(
            update={
                "artifact": entry.artifact.model_copy(
                    update={"details": {"imatrix": {"sha256": weighed[entry.variant]}}}
                )
            }
        )
        for entry in manifest.entries
    ]
    context = CardContext(repo_id="press/SmolLM2-135M-Instruct-GGUF", quantized_by="press")

    said = " ".join(render_card(manifest.model_copy(update={"entries": entries}), context).split())

    assert (
        "Not with it, but with that of an earlier commit of the source, which an earlier state of this repository "
        "holds, were made: `Q8_0`, `Q4_K_M`."
    ) in said
    assert "Not with it" not in card([])


def test_many_are_cut_short() -> None:
    said = card([f"blk.{layer:02}.ffn_up_exps.weight" for layer in range(15)])
    assert "reached 15 of the model's tensors" in said
    assert "`blk.11.ffn_up_exps.weight` and 3 more." in said.replace(", and", " and")
    assert "blk.12." not in said


def test_nothing_is_said_where_all_were_reached() -> None:
    assert "No token of the calibration text" not in card([])
