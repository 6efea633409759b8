"""Makes the model card: the README.md of a published branch, with front matter and Markdown.

Every figure in the card comes from the manifest. We wrote the templates in ``templates/``. Text from the source (names,
licence, chat template) only enters a template as a value, and :mod:`quantpress.card.markdown` escapes that value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from quantpress.card import figures, markdown
from quantpress.card.audience import audiences
from quantpress.card.context import CardContext
from quantpress.card.front_matter import front_matter, license_url
from quantpress.card.markdown import Markdown
from quantpress.card.templates import markdown_environment, template_path
from quantpress.errors import QuantpressError
from quantpress.evaluation.engines.kernels import PLAIN_KERNELS
from quantpress.evaluation.frontier import compare
from quantpress.evaluation.plots.draw import DIVERGENCE_PLOT, PERPLEXITY_PLOT
from quantpress.evaluation.sample import PROMPT
from quantpress.record.manifest import MANIFEST_FILE, Entry, Manifest
from quantpress.settings import HUGGING_FACE
from quantpress.text import one_line

#: A card cuts a chat template that has more characters than this. Templates with tool calls reach some 10,000.
LONGEST_CHAT_TEMPLATE = 16_000

_T = TypeVar("_T")

_PLOTS = {
    PERPLEXITY_PLOT: "Perplexity against size of the variants",
    DIVERGENCE_PLOT: "Divergence from the unquantized model against size of the variants",
}


class _Places:
    """Makes the addresses of repos, branches and files on the Hub at ``base``."""

    def __init__(self, base: str) -> None:
        self._base = base

    @classmethod
    def at(cls, endpoint: str | None, seen_from: str | None) -> _Places:
        """Returns the ``_Places`` for addresses on the Hub at ``endpoint``. The card is on the Hub at ``seen_from``.

        None means huggingface.co. If both name the same other Hub, addresses start with a slash, so that they work
        under any host name of that Hub.
        """
        if endpoint is None:
            return cls(HUGGING_FACE)
        return cls("" if endpoint == seen_from else endpoint)

    def repo(self, repo_id: str) -> str:
        return f"{self._base}/{markdown.path(repo_id)}"

    def tree(self, repo_id: str, revision: str) -> str:
        return f"{self.repo(repo_id)}/tree/{markdown.segment(revision)}"

    def file(self, repo_id: str, revision: str, name: str) -> str:
        return f"{self.repo(repo_id)}/resolve/{markdown.segment(revision)}/{markdown.path(name)}"


def render_card(manifest: Manifest, context: CardContext) -> str:
    """Returns the whole README.md. Raises :class:`QuantpressError` if the format has no template."""
    name, folders = f"{manifest.format}.md.jinja", template_path(manifest.format, context.templates)
    if not any((folder / name).is_file() for folder in folders):
        raise QuantpressError(f"no card template {name} in {folders[-1]}: add one for the format")
    text = markdown_environment(folders).get_template(name).render(_view(manifest, context))
    return text.strip() + "\n"


def _view(manifest: Manifest, context: CardContext) -> dict[str, Any]:
    """Returns the variables that templates can use. docs/cards.md describes them."""
    comparison = compare(manifest)
    here = _Places.at(context.target_endpoint, seen_from=context.target_endpoint)
    there = _Places.at(context.source_endpoint, seen_from=context.target_endpoint)
    source = manifest.source
    license_base = there.repo(source.repo) + f"/blob/{markdown.segment(source.sha)}"
    shown = manifest.published(None if context.branch == "main" else context.branch)
    shown.sort(key=lambda entry: (-entry.artifact.size, entry.variant))
    withheld, retracted = (
        [entry for entry in manifest.entries if entry.status == status] for status in ("withheld", "retracted")
    )
    rows = figures.rows(shown, comparison)
    everyday = figures.everyday(comparison) if context.branch == "main" else next(iter(shown), None)

    def make_front_matter(library_name: str, tags: list[str]) -> Markdown:
        return Markdown(
            front_matter(
                source,
                quantized_by=context.quantized_by,
                library_name=library_name,
                tags=[*tags, *(["conversational"] if context.chat_template else [])],
                license_base=license_base,
            )
        )

    return {
        "manifest": manifest,
        "context": context,
        "source": source,
        "entries": shown,
        "rows": rows,
        "reference": comparison.reference,
        "comparison": comparison,
        "audiences": audiences(comparison, context.source_bytes) if context.branch == "main" else [],
        "changed_limits": [(entry.variant, note) for entry in manifest.entries for note in entry.verdict.notes],
        "aliases": [(alias, alias.same_as in {entry.variant for entry in shown}) for alias in manifest.aliases],
        "details": figures.detail_rows(shown, comparison),
        "samples": [(entry.variant, entry.evaluation.sample) for entry in shown if entry.evaluation.sample],
        "prompt": PROMPT,
        "advice": figures.advice(comparison) if context.branch == "main" else [],
        "everyday": next((row for row in rows if everyday and row.variant == everyday.variant), None),
        "faulty": [(entry.variant, entry.problems) for entry in shown if entry.problems],
        "withheld": [
            (row, _why_withheld(entry)) for row, entry in zip(figures.rows(withheld, comparison), withheld, strict=True)
        ],
        "retracted": [
            (row, entry.retraction) for row, entry in zip(figures.rows(retracted, comparison), retracted, strict=True)
        ],
        "stand_ins": [found for found in map(figures.fallback, shown) if found],
        "plain_kernel": PLAIN_KERNELS.get(manifest.format),
        "plots": _plots(manifest, context, here),
        "settings": lambda labels: _settings(shown, labels),
        # A quantizer that read no calibration text reports 0 calibration tokens.
        "calibrations": _unique(
            entry.recipe.calibration for entry in shown if entry.artifact.details.get("calibration_tokens") != 0
        ),
        "quantizers": _unique(entry.recipe.quantizer for entry in shown),
        "imatrix_files": [file.path for file in manifest.shared if "imatrix" in file.path.lower()],
        "other_imatrix": _weighed_by_another(manifest, shown),
        "engines": next((found for entry in shown if (found := entry.artifact.details.get("engines"))), None),
        "projector": next((found for entry in shown if (found := entry.artifact.details.get("projector"))), None),
        "hashes": "\n".join(
            f"{file.sha256}  {one_line(file.path)}"
            for entry in shown
            if entry.branch == context.branch
            for file in entry.artifact.files
        ),
        "fingerprints": "\n".join(f"{entry.fingerprint}  {one_line(entry.variant)}" for entry in shown),
        "license_url": license_url(source, license_base),
        "front_matter": make_front_matter,
        "figures": figures,
        "here": here,
        "there": there,
        "chat_template": (context.chat_template or "")[:LONGEST_CHAT_TEMPLATE],
        "longest_chat_template": LONGEST_CHAT_TEMPLATE,
        "manifest_file": MANIFEST_FILE,
    }


def _why_withheld(entry: Entry) -> list[str]:
    """Returns why the gate withheld a variant. If the variant was retracted earlier, also says why."""
    before = [f"what was published before was retracted: {entry.retraction}"] if entry.retraction else []
    return [*entry.verdict.reasons, *before]


def _unique(values: Iterable[_T]) -> list[_T]:
    """Returns each value once, in the order of the first occurrences."""
    return list(dict.fromkeys(values))


def _weighed_by_another(manifest: Manifest, entries: list[Entry]) -> list[str]:
    """Returns the variants whose importance matrix is not among the published files.

    These variants were quantized from an earlier commit of the source.
    """
    published = {file.sha256 for file in manifest.shared}
    own = {entry.variant: entry.artifact.details.get("imatrix", {}).get("sha256") for entry in entries}
    return [variant for variant, sha256 in own.items() if sha256 is not None and sha256 not in published]


def _plots(manifest: Manifest, context: CardContext, here: _Places) -> list[tuple[str, str]]:
    """Returns pairs of description and address, one for each plot among the manifest's shared files."""
    shared = {file.path for file in manifest.shared}
    return [
        (description, here.file(context.repo_id, context.branch, name))
        for name, description in _PLOTS.items()
        if name in shared
    ]


def _settings(entries: list[Entry], labels: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Returns one column per parameter of the recipes: a label, and one value per entry.

    ``labels`` maps parameters to their labels. These parameters come first, then the others sorted by name.
    """
    keys = {key for entry in entries for key in entry.recipe.parameters}
    ordered = [key for key in labels if key in keys] + sorted(keys - set(labels))
    return [
        (labels.get(key, key), [_setting_text(entry.recipe.parameters.get(key)) for entry in entries])
        for key in ordered
    ]


def _setting_text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return figures.MISSING if value is None else str(value)
