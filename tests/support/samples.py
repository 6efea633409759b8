"""Sample manifests for tests of cards and plots.

The figures are made up: sizes follow the nominal bits per weight, divergence falls by a fixed law with the bits.
None of them was measured.
"""

from __future__ import annotations

import hashlib
import math
from typing import TypedDict, Unpack

from quantpress.record.manifest import Artifact, Entry, File, Manifest, SourceRecord, Verdict
from quantpress.record.measurement import Divergence, Evaluation, Protocol
from quantpress.record.recipe import Calibration, Recipe

SHA = "12fd25f77366fa6b3b4b768ec3050bf629380bac"
WEIGHTS = 134_515_008
PROTOCOL = Protocol(text="wikitext-2-raw-test", text_sha256="a" * 64, windows=40)
CALIBRATION = Calibration(text="pydoc-topics", sha256="b" * 64, samples=128, length=512)

#: The first issue's rungs (GGUF variants), with the real bits per weight of a model whose widths 256 does not divide.
FOURTEEN = {
    "Q2_K": 5.10, "Q3_K_S": 5.02, "IQ3_M": 5.08, "IQ4_XS": 5.29, "Q3_K_M": 5.49, "Q4_0": 5.40, "Q3_K_L": 5.64,
    "Q4_K_S": 6.00, "Q4_K_M": 6.17, "Q5_0": 6.20, "Q5_K_S": 6.40, "Q5_K_M": 6.58, "Q6_K": 8.15, "Q8_0": 8.51,
}  # fmt: skip
#: A full ladder (all rungs) with nominal bits per weight.
THIRTY_FOUR = {
    "IQ1_S": 1.78, "IQ1_M": 1.95, "TQ1_0": 2.0, "IQ2_XXS": 2.20, "IQ2_XS": 2.43, "IQ2_S": 2.55, "IQ2_M": 2.76,
    "Q2_K_S": 2.79, "Q2_K": 2.96, "IQ3_XXS": 3.07, "IQ3_XS": 3.32, "Q3_K_S": 3.50, "IQ3_S": 3.52, "IQ3_M": 3.63,
    "Q3_K_M": 3.91, "Q3_K_L": 4.27, "IQ4_XS": 4.42, "Q4_0": 4.63, "IQ4_NL": 4.64, "Q4_K_S": 4.65, "Q4_K_M": 4.83,
    "Q4_1": 5.10, "Q4_K_L": 5.15, "Q5_0": 5.54, "Q5_K_S": 5.55, "Q5_K_M": 5.68, "Q5_1": 6.0, "Q5_K_L": 5.95,
    "Q6_K": 6.56, "Q6_K_L": 6.75, "Q8_0": 8.50, "Q8_K_L": 8.7, "BF16": 16.0, "F16": 16.0,
}  # fmt: skip
#: Weights by type of a rung with fallbacks, much like SmolLM2-135M's Q4_K_M.
FALLBACKS = {"Q4_K": 0, "Q5_0": 92_340_224, "Q8_0": 42_140_000, "F32": 34_784}


def source(**changes: object) -> SourceRecord:
    values: dict[str, object] = {
        "repo": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "sha": SHA,
        "license": "apache-2.0",
        "language": ["en"],
        "pipeline_tag": "text-generation",
        "tags": ["transformers", "safetensors", "llama", "base_model:quantized:x", "region:us", "smol"],
    }
    return SourceRecord.model_validate(values | changes)


def evaluation(
    perplexity: float, divergence: float | None = None, engine: str = "llama.cpp", protocol: Protocol = PROTOCOL
) -> Evaluation:
    found = divergence and Divergence(
        mean=divergence,
        mean_error=divergence * 0.03,
        median=divergence * 0.6,
        p99=divergence * 9,
        p999=divergence * 30,
        maximum=divergence * 90,
        same_top=1 / (1 + math.sqrt(divergence) * 0.42),
        same_top_error=0.003,
    )
    return Evaluation(
        protocol=protocol,
        engine=engine,
        engine_version="b9999" if engine == "llama.cpp" else "5.17.0",
        perplexity=perplexity,
        perplexity_error=perplexity * 0.012,
        scored_tokens=protocol.windows * 255,
        token_sha256="c" * 64,
        divergence=found or None,
        seconds=60.0,
        peak_memory_bytes=400_000_000,
        tokens_per_second=900.0,
    )


class Changes(TypedDict, total=False):
    """How an entry differs from the usual one."""

    perplexity: float | None
    branch: str
    files: list[str] | None
    weights: int
    types: dict[str, int] | None
    parameters: dict[str, object] | None
    withheld: str | None
    protocol: Protocol


def entry(format: str, variant: str, *, bits: float, divergence: float | None, **changes: Unpack[Changes]) -> Entry:
    weights, withheld = changes.get("weights", WEIGHTS), changes.get("withheld")
    recipe = Recipe(
        format=format,
        variant=variant,
        source="HuggingFaceTB/SmolLM2-135M-Instruct",
        source_sha=SHA,
        quantizer="llama.cpp b9999" if format == "gguf" else "gptqmodel 7.6.0",
        parameters=changes.get("parameters") or {},
        calibration=CALIBRATION,
    )
    names = changes.get("files") or [f"SmolLM2-135M-Instruct-{variant}.gguf"]
    size = int(weights * bits / 8 / len(names))
    return Entry(
        recipe=recipe,
        fingerprint=recipe.fingerprint,
        branch=changes.get("branch", "main"),
        status="withheld" if withheld else "published",
        artifact=Artifact(
            files=[File(path=name, size=size, sha256=hashlib.sha256(name.encode()).hexdigest()) for name in names],
            bits_per_weight=bits,
            tensor_types=changes.get("types")
            or {variant.rsplit("_", 1)[0] if variant.count("_") > 1 else variant: weights},
        ),
        evaluation=evaluation(
            changes.get("perplexity") or 16.1 * (1 + 1.1 * (divergence or 0.01)),
            divergence,
            "llama.cpp" if format == "gguf" else "transformers",
            changes.get("protocol", PROTOCOL),
        ),
        verdict=Verdict(passed=withheld is None, reasons=[withheld] if withheld else []),
        seconds=12.0,
        peak_memory_bytes=700_000_000,
    )


def gguf(ladder: dict[str, float] = FOURTEEN, *, weights: int = WEIGHTS, **changes: object) -> Manifest:
    """The manifest of a GGUF repo with these rungs. Divergence falls as the bits rise. IQ rungs do a little better."""
    entries = []
    for index, (variant, bits) in enumerate(ladder.items()):
        advantage = 0.75 if variant.startswith("IQ") else 1.0 + 0.12 * (index % 3)
        divergence = 2.2 * advantage * math.exp(-bits * 0.9)
        stands_in = ladder is FOURTEEN and variant not in ("Q4_0", "Q5_0", "Q8_0")
        entries.append(
            entry(
                "gguf",
                variant,
                bits=bits,
                divergence=divergence,
                weights=weights,
                types=FALLBACKS if stands_in else None,
            )
        )
    values: dict[str, object] = {
        "format": "gguf",
        "model_name": "SmolLM2-135M-Instruct",
        "source": source(),
        "toolchain": {"llama.cpp": "b9999", "quantpress": "0.1.0"},
        "baselines": [evaluation(16.1), evaluation(16.11, engine="transformers")],
        "entries": entries,
        "shared": [
            File(path=name, size=1000, sha256="d" * 64)
            for name in ("SmolLM2-135M-Instruct.imatrix.gguf", "perplexity.png", "divergence.png")
        ],
    }
    return Manifest.model_validate(values | changes)


def gptq(**changes: object) -> Manifest:
    """The manifest of a GPTQ repo with three branches."""
    files = ["config.json", "model.safetensors", "tokenizer.json"]
    common: dict[str, object] = {"sym": True, "damp_percent": 0.05}
    entries = [
        entry("gptq", variant, bits=bits, divergence=divergence, branch=branch, files=files, parameters=common | own)
        for variant, branch, bits, divergence, own in [
            ("gptq-4bit-64g-actorder_True", "main", 5.93, 0.081,
             {"bits": 4, "group_size": 64, "desc_act": True}),
            ("gptq-4bit-32g-actorder_True", "gptq-4bit-32g-actorder_True", 6.21, 0.064,
             {"bits": 4, "group_size": 32, "desc_act": True}),
            ("gptq-8bit-64g-actorder_True", "gptq-8bit-64g-actorder_True", 9.98, 0.0006,
             {"bits": 8, "group_size": 64, "desc_act": True}),
        ]
    ]  # fmt: skip
    return _checkpoints("gptq", entries, changes)


def awq(**changes: object) -> Manifest:
    """The manifest of an AWQ repo with one variant."""
    parameters = {"bits": 4, "group_size": 64, "zero_point": True, "version": "gemm"}
    only = entry("awq", "awq-4bit-64g", bits=5.95, divergence=0.092, files=["model.safetensors"], parameters=parameters)
    return _checkpoints("awq", [only], changes)


def _checkpoints(format: str, entries: list[Entry], changes: dict[str, object]) -> Manifest:
    values: dict[str, object] = {
        "format": format,
        "model_name": "SmolLM2-135M-Instruct",
        "source": source(),
        "toolchain": {"gptqmodel": "7.6.0", "torch": "2.13.0", "transformers": "5.17.0"},
        "baselines": [evaluation(16.11, engine="transformers")],
        "entries": entries,
        "shared": [File(path=name, size=1000, sha256="d" * 64) for name in ("perplexity.png", "divergence.png")]
        if len(entries) > 1
        else [],
    }
    return Manifest.model_validate(values | changes)
