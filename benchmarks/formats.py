"""Makes, publishes and measures every variant of the demo's model that needs no GPU, all under one protocol.

Run it as ``python -m benchmarks.formats``. It makes the variants of ``benchmarks/formats.catalog.yaml`` and publishes
them on an embedded Hub in the folder ``--home``. For comparison, it also measures rounding to the nearest. It writes
the table to docs/benchmarks.md. A second run continues the work in ``--home``.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path

from benchmarks.report import write_section
from quantpress.catalog.reader import load_catalog
from quantpress.cli.demo import press_environment, upload_source
from quantpress.cli.demo_model import demo_model
from quantpress.comparison.compare import ComparedVariant, ModelComparison, compare_formats
from quantpress.comparison.report import read_manifests
from quantpress.evaluation.job import EvaluationJob
from quantpress.evaluation.round_to_nearest import evaluate_round_to_nearest
from quantpress.evaluation.text import PYDOC, evaluation_text
from quantpress.hub.client import hub_client
from quantpress.localhub.server import running_hub
from quantpress.record.manifest import Manifest
from quantpress.record.measurement import Evaluation, Protocol
from quantpress.toolchain.llama_cpp import install
from quantpress.toolchain.progress import plain_lines

CATALOG = Path("benchmarks/formats.catalog.yaml")
HEADING = "Every variant that needs no GPU"
#: Each rounding has three values: bits, weights per scale, whether it is symmetric. The calibrated variants should be
#: better than these roundings.
ROUNDED = [(4, 64, True), (4, 64, False), (4, 32, True), (4, 32, False), (3, 64, True), (3, 64, False)]


def main() -> int:
    """Runs the benchmark. Returns the exit code of the command ``quantpress run``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--home", type=Path, default=Path(".quantpress/formats"), help="folder of the press and its Hub"
    )
    home: Path = parser.parse_args().home
    install(plain_lines(print))
    model = demo_model(plain_lines(print))
    catalog = load_catalog(CATALOG)
    source = catalog.models[0].repo
    with running_hub(home / "hub", 0) as hub:
        token = hub.create_token("press", "write")
        upload_source(hub, token, model, source)
        command = [sys.executable, "-m", "quantpress", "run", "--catalog", str(CATALOG)]
        code = subprocess.run(command, env=press_environment(hub, token, home), check=False).returncode
        manifests = read_manifests(hub_client(hub.endpoint), catalog.settings["namespace"], source)
    comparison = compare_formats(manifests)
    lines = [*_lines(comparison, _rounded(comparison, model, home)), *_left_out(manifests.values())]
    write_section(Path("docs/benchmarks.md"), HEADING, lines)
    return code


def _rounded(comparison: ModelComparison, model: Path, home: Path) -> dict[str, Evaluation]:
    """Returns a dict from a rounding's name to its figures. They are measured on the windows of the comparison's
    protocol."""
    from quantpress.evaluation.engines.transformers import evaluate

    assert comparison.protocol is not None
    text = evaluation_text(Path(PYDOC), home / "texts")
    logits = home / "rounded.logits.bin"
    job = _job(model, text.path, comparison.protocol)
    evaluate(job.model_copy(update={"save_logits": logits}))
    found = {}
    for bits, group_size, symmetric in ROUNDED:
        name = f"rounded, {bits} bits, {group_size}g, {'symmetric' if symmetric else 'with zero point'}"
        found[name] = evaluate_round_to_nearest(
            job.model_copy(update={"base_logits": logits}), bits=bits, group_size=group_size, symmetric=symmetric
        )
        print(f"{name}: perplexity {found[name].perplexity:.3f}", flush=True)
    logits.unlink()
    return found


def _job(model: Path, text: Path, protocol: Protocol) -> EvaluationJob:
    return EvaluationJob(
        engine="transformers",
        model=model,
        protocol=protocol,
        text=text.resolve(),
        threads=len(os.sched_getaffinity(0)),
        device="cpu",
    )


def _lines(comparison: ModelComparison, rounded: dict[str, Evaluation]) -> Iterator[str]:
    assert comparison.protocol is not None and comparison.reference is not None
    base = comparison.reference.perplexity
    yield (
        f"`python -m benchmarks.formats`, {date.today().isoformat()}, on {platform.machine()} with "
        f"{len(os.sched_getaffinity(0))} cores. {comparison.model_name} (the demo's source), "
        f"{comparison.protocol.windows} windows of {comparison.protocol.n_ctx} tokens of `{comparison.protocol.text}`; "
        f"unquantized: {base:.3f}. Memory is the peak of the process that measured; rungs of one pass share its time."
    )
    yield ""
    yield (
        "| variant | bits per weight | MB | memory, MB | s to make | perplexity | from the base | mean KLD | same top |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    for row in sorted(comparison.variants, key=lambda each: -each.bits_per_weight):
        yield _row(row, base)
    for name, found in rounded.items():
        assert found.divergence is not None
        yield (
            f"| *{name}* | | | | | {found.perplexity:.3f} | {found.perplexity / base - 1:+.1%} | "
            f"{found.divergence.mean:.4f} | {found.divergence.same_top:.1%} |"
        )


def _left_out(manifests: Iterable[Manifest]) -> Iterator[str]:
    """Yields lines about the variants without a row in the table.

    The gate withheld them, or they have the same bytes as another variant.
    """
    for manifest in manifests:
        for entry in manifest.entries:
            if entry.status == "withheld":
                yield from ["", f"Withheld: {manifest.format} {entry.variant}: {'; '.join(entry.verdict.reasons)}."]
        if manifest.aliases:
            named = ", ".join(f"{alias.variant} (as {alias.same_as})" for alias in manifest.aliases)
            yield from ["", f"The same bytes as another, published once: {manifest.format} {named}."]


def _row(row: ComparedVariant, base: float) -> str:
    figures = [
        f"{row.bits_per_weight:.2f}",
        f"{row.size / 1e6:.1f}",
        f"{row.memory_bytes / 1e6:,.0f}",
        f"{row.seconds_to_make:,.0f}",
        f"{row.perplexity:.3f}",
        f"{row.perplexity / base - 1:+.1%}",
        "" if row.divergence is None else f"{row.divergence:.4f}",
        "" if row.same_top is None else f"{row.same_top:.1%}",
    ]
    return f"| {row.name} | {' | '.join(figures)} |"


if __name__ == "__main__":
    sys.exit(main())
