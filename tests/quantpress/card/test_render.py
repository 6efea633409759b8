"""Cards as readers and the Hub see them: front matter parsed by huggingface_hub, Markdown rendered to HTML."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCardData

from quantpress.errors import QuantpressError
from quantpress.record.manifest import Alias, Manifest
from tests.support import samples
from tests.support.cards import CHATML, card, context, front_matter_of, html_of, table_rows


def test_the_hub_reads_the_front_matter() -> None:
    data = front_matter_of(card(samples.gguf(), chat_template=CHATML))
    assert data == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "base_model_relation": "quantized",
        "quantized_by": "press",
        "license": "apache-2.0",
        "language": ["en"],
        "pipeline_tag": "text-generation",
        "library_name": "gguf",
        "tags": ["gguf", "quantpress", "imatrix", "conversational", "llama", "smol"],
    }
    assert yaml.safe_load(str(ModelCardData(**data))) == data


@pytest.mark.parametrize(
    ("manifest", "library", "tag"), [(samples.gptq(), "transformers", "gptq"), (samples.awq(), "transformers", "awq")]
)
def test_checkpoints_are_for_transformers(manifest: Manifest, library: str, tag: str) -> None:
    data = front_matter_of(card(manifest))
    assert data["library_name"] == library
    assert data["tags"] == [tag, "quantpress", "llama", "smol"]


def test_a_relative_licence_link_leads_to_the_source() -> None:
    source = samples.source(license="other", license_name="smol-license", license_link="LICENSE")
    data = front_matter_of(card(samples.gguf(source=source)))
    assert data["license_link"] == (
        f"https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct/blob/{samples.SHA}/LICENSE"
    )


def test_the_table_shows_what_was_measured() -> None:
    rows = table_rows(card(samples.gguf(), source_bytes=269_060_552), "Variant")
    assert rows[0] == ["Variant", "Bits per weight", "Size", "Perplexity", "Mean KLD", "Same top", "Note"]
    assert rows[1] == ["unquantized", "\u2013", "269 MB", "16.10 ± 0.19", "0", "100 %", ""]
    assert rows[2] == ["Q8_0", "8.51", "143 MB", "16.12 ± 0.19", "0.0012", "98.6 %", ""]
    assert len(rows) == 16
    sizes = [float(row[2].split()[0]) for row in rows[2:]]
    assert sizes == sorted(sizes, reverse=True)


def test_every_variant_links_to_its_file() -> None:
    page = html_of(card(samples.gguf()))
    base = "https://huggingface.co/press/SmolLM2-135M-Instruct-GGUF/resolve/main/SmolLM2-135M-Instruct"
    for variant in samples.FOURTEEN:
        assert f'<a href="{base}-{variant}.gguf">{variant}</a>' in page


def test_withheld_variants_stand_with_their_reason_and_nowhere_else() -> None:
    withheld = samples.entry("gguf", "Q2_K", bits=5.1, divergence=2.0, withheld="mean KLD 2.0 is above 0.5")
    manifest = samples.gguf()
    text = card(manifest.model_copy(update={"entries": [*manifest.entries[1:], withheld]}))
    rows = table_rows(text.split("## Withheld")[1].join(["---\n---\n", ""]), "Variant")
    assert [(row[0], row[-1]) for row in rows[1:]] == [("Q2_K", "mean KLD 2.0 is above 0.5")]
    assert text.count("Q2") == 1


def test_commands_use_a_recommended_variant() -> None:
    text = card(samples.gguf())
    assert "llama-cli -hf press/SmolLM2-135M-Instruct-GGUF:Q3_K_S\n" in text
    assert "ollama run hf.co/press/SmolLM2-135M-Instruct-GGUF:Q3_K_S\n" in text
    assert "hf download press/SmolLM2-135M-Instruct-GGUF SmolLM2-135M-Instruct-Q3_K_S.gguf --local-dir .\n" in text


def test_a_sharded_variant_is_not_offered_to_ollama() -> None:
    parts = [f"Big-Q8_0-0000{part}-of-00002.gguf" for part in (1, 2)]
    text = card(samples.gguf(entries=[samples.entry("gguf", "Q8_0", bits=8.5, divergence=0.001, files=parts)]))
    assert "Ollama" not in text
    assert "--include '*Q8_0*.gguf'" in text
    assert "(2 parts)" in text


def test_another_hub_is_named_and_ollama_takes_the_file() -> None:
    text = card(samples.gguf(), target_endpoint="http://127.0.0.1:8421/")
    assert "export HF_ENDPOINT=http://127.0.0.1:8421\n" in text
    assert "hf.co/" not in text
    assert "ollama create smollm2-135m-instruct -f Modelfile" in text
    assert "](/press/SmolLM2-135M-Instruct-GGUF/resolve/main/SmolLM2-135M-Instruct-Q8_0.gguf)" in text
    assert "HF_ENDPOINT" not in card(samples.gguf(), target_endpoint="https://huggingface.co")


def test_gptq_lists_branches_with_their_settings() -> None:
    text = card(samples.gptq())
    rows = table_rows(text.split("How they were made:")[1].join(["---\n---\n", ""]), "Branch")
    assert rows[0] == [
        "Branch", "Bits", "Group size", "Act order", "Damp", "Symmetric", "Calibration text", "Samples \u00d7 tokens",
    ]  # fmt: skip
    assert rows[2] == ["gptq-4bit-32g-actorder_True", "4", "32", "yes", "0.05", "yes", "pydoc-topics", "128 \u00d7 512"]
    assert "llama" not in text.split("## Download and run")[1].split("## What")[0].lower()


def test_the_card_says_where_what_is_calibrated_on_is_of_the_collection_that_is_measured_on() -> None:
    note = "What was calibrated on is of the same collection: other articles, from its training split."
    manifest = samples.gptq()
    train = manifest.entries[0].recipe.calibration.model_copy(update={"text": "wikitext-2-raw-train"})
    entries = [
        entry.model_copy(update={"recipe": entry.recipe.model_copy(update={"calibration": train})})
        for entry in manifest.entries
    ]
    assert note in card(manifest.model_copy(update={"entries": entries}))
    assert note not in card(manifest)


def test_a_branch_card_shows_its_own_variant_and_asks_for_its_revision() -> None:
    branch = "gptq-4bit-32g-actorder_True"
    text = card(samples.gptq(), branch=branch)
    assert [row[0] for row in table_rows(text, "Branch")[1:]] == ["unquantized", branch]
    assert f"hf download press/SmolLM2-135M-Instruct-GPTQ --revision {branch} --local-dir" in text
    assert f"vllm serve press/SmolLM2-135M-Instruct-GPTQ --revision {branch}\n" in text
    assert f"quantpress verify press/SmolLM2-135M-Instruct-GPTQ --revision {branch}\n" in text
    assert "Which one" not in text


def test_gptq_commands_take_main_unless_another_branch_dominates_it() -> None:
    assert "vllm serve press/SmolLM2-135M-Instruct-GPTQ\n" in card(samples.gptq())
    worse = samples.entry("gptq", "worse", bits=7.0, divergence=0.5, branch="main")
    manifest = samples.gptq()
    text = card(manifest.model_copy(update={"entries": [worse, *manifest.entries[1:]]}))
    assert "vllm serve press/SmolLM2-135M-Instruct-GPTQ --revision gptq-8bit-64g-actorder_True\n" in text


def test_hashes_are_those_of_the_branch() -> None:
    text = card(samples.gptq())
    sums = text.split("<summary>SHA-256 of the files of this branch</summary>")[1].split("</details>")[0]
    assert sums.count("model.safetensors") == 1
    assert card(samples.gguf()).count("  SmolLM2-135M-Instruct-Q8_0.gguf\n") == 1


@pytest.mark.parametrize("template", [None, CHATML])
@pytest.mark.parametrize("manifest", [samples.gptq(), samples.awq()], ids=["gptq", "awq"])
def test_the_python_of_a_card_compiles(manifest: Manifest, template: str | None) -> None:
    snippets = re.findall(r"```python\n(.*?)```", card(manifest, chat_template=template), re.S)
    assert len(snippets) == 2  # one with the program, one with the kernel that always loads
    for snippet in snippets:
        compile(snippet, "card", "exec")


def test_plots_stand_only_where_they_are_published() -> None:
    assert card(samples.gguf()).count("\n![") == 2
    assert "\n![" not in card(samples.gguf(shared=[]))


def test_a_card_without_published_variants_is_still_a_card() -> None:
    only = samples.entry("gguf", "Q2_K", bits=2.9, divergence=9.0, withheld="does not load")
    text = card(samples.gguf(entries=[only], shared=[]))
    assert "## Withheld" in text and "does not load" in text
    assert "## Download" not in text and "## Files" not in text


def test_what_was_found_faulty_after_upload_is_told_before_all_advice() -> None:
    manifest = samples.gguf({"Q4_K_M": 6.17, "Q8_0": 8.51})
    assert "Found faulty" not in card(manifest)
    faulty = manifest.entries[0].model_copy(update={"problems": ["does not load and generate", "a|b"]})
    text = card(samples.gguf(entries=[faulty, manifest.entries[1]]))
    assert table_rows(text, "Variant")[1:] == [["Q4_K_M", "does not load and generate; a|b"]]
    assert text.index("## Found faulty") < text.index("## Which one")


def test_equal_input_gives_equal_cards_whatever_the_order_of_sets() -> None:
    program = (
        "import sys; from tests.support import samples; from tests.support.cards import CHATML, card; "
        "sys.stdout.write(card(samples.gptq(), chat_template=CHATML) + card(samples.gguf()))"
    )
    first, second = (
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[3],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    )
    assert first.count(b"# SmolLM2-135M-Instruct") == 2
    assert first == second


def test_a_format_without_template_is_one_clear_line() -> None:
    with pytest.raises(QuantpressError, match=r"no card template exl9\.md\.jinja in .*: add one for the format"):
        card(samples.gguf(format="exl9"))


def test_the_templates_are_found_in_the_repository(tmp_path: Path) -> None:
    assert {path.name for path in context(samples.gguf()).templates.glob("*.jinja")} >= {
        "base.md.jinja", "gguf.md.jinja", "gptq.md.jinja", "awq.md.jinja",
    }  # fmt: skip
    with pytest.raises(QuantpressError, match="no card template"):
        card(samples.gguf(), templates=tmp_path)


def test_what_would_be_the_same_file_is_named_once() -> None:
    manifest = samples.gguf({"Q3_K_S": 3.5, "Q8_0": 8.5})
    entry = manifest.entries[0]
    recipe = entry.recipe.model_copy(update={"variant": "Q2_K"})
    alias = Alias(recipe=recipe, fingerprint=recipe.fingerprint, same_as="Q3_K_S")
    text = card(manifest.model_copy(update={"aliases": [alias]}))
    assert "of the same type as in another file of this model: `Q2_K` (take `Q3_K_S`)." in text
    assert "of the same type as in another file" not in card(manifest)


def test_an_alias_of_a_withheld_rung_is_not_to_be_taken() -> None:
    manifest = samples.gguf({"Q8_0": 8.5})
    withheld = samples.entry("gguf", "Q3_K_S", bits=3.5, divergence=2.0, withheld="too far")
    recipe = withheld.recipe.model_copy(update={"variant": "Q2_K"})
    alias = Alias(recipe=recipe, fingerprint=recipe.fingerprint, same_as="Q3_K_S")
    text = card(manifest.model_copy(update={"entries": [*manifest.entries, withheld], "aliases": [alias]}))
    assert "`Q2_K` (not published, like `Q3_K_S`)" in text
