"""Makes a published variant again, using only the manifest and the inputs that it names, and compares the bytes.

The recipe names the source's commit, the quantizer's version and parameters, and the hash of the calibration text.
Nothing else should decide the bytes. A rebuild finds out whether that is true. Every step runs again, in an empty
folder.

If the source has a new commit with the same weights, a press keeps a variant's weights and renews the variant's
metadata. The weights are then from an earlier commit than the metadata. In this case, a rebuild first quantizes the
variant from the earlier commit. Then it writes the metadata of the recipe's commit into the variant, as the press did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantizers import quantizer
from quantizers.protocol import CalibrationText, Job, Quantizer, Result, Variant
from quantizers.traits import traits_of
from quantpress.errors import BadInput, QuantpressError, Refused
from quantpress.evaluation.text import PYDOC, WIKITEXT_TRAIN, EvaluationText, calibration_text
from quantpress.evaluation.wikitext import archive_in, fetch_wikitext
from quantpress.files import place, sha256_of
from quantpress.hints import hint
from quantpress.hub.client import explained
from quantpress.hub.hubs import Hubs
from quantpress.machine.child import run_child
from quantpress.machine.scratch import scratch
from quantpress.machine.workspace import Workspace, alone, require_disk
from quantpress.plan.estimate import estimate_variant
from quantpress.press.refresh import WEIGHTS_FROM
from quantpress.press.unquantized import provide
from quantpress.record.manifest import MANIFEST_FILE, Entry, Manifest, parse_manifest
from quantpress.record.recipe import Calibration, Recipe
from quantpress.repo_id import check_repo_id
from quantpress.settings import Settings
from quantpress.source.source import Source, fetch, look_up_source
from quantpress.toolchain.progress import plain_lines
from quantpress.toolchain.registry import install_on_demand
from quantpress.upkeep.parameters import require_known

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class Compared:
    """A file of the variant, with its SHA-256 in the manifest and in the rebuild.

    ``published`` is empty if the manifest does not list the file. ``rebuilt`` is empty if the rebuild did not make it.
    """

    path: str
    published: str
    rebuilt: str

    @property
    def equal(self) -> bool:
        return self.published == self.rebuilt


@dataclass(frozen=True)
class Rebuilt:
    """The result of a rebuild. ``other_tools`` describes the accepted differences between the tools then and now."""

    repo_id: str
    variant: str
    files: list[Compared]
    other_tools: list[str]

    @property
    def different(self) -> list[Compared]:
        return [file for file in self.files if not file.equal]


@dataclass(frozen=True)
class RebuildOrder:
    """A request for a rebuild of one variant of a repo. The manifest is read at ``revision``.

    ``texts`` are calibration texts to try in addition to our own. If ``any_toolchain`` is true, other versions of the
    tools are accepted. ``out`` is the folder for the rebuilt files. If ``out`` is None, the files are not kept.
    """

    repo_id: str
    variant: str
    revision: str
    texts: tuple[Path, ...] = ()
    any_toolchain: bool = False
    out: Path | None = None


def rebuild(
    hubs: Hubs, order: RebuildOrder, settings: Settings, report: Callable[[str], None] = lambda what: None
) -> Rebuilt:
    """Makes a published variant again, as the manifest at ``order.revision`` describes it. Calls ``report`` at each
    step.

    Raises :class:`BadInput`, before any model is downloaded, if the variant does not exist, the tools have other
    versions, or the calibration text cannot be found. Raises :class:`QuantpressError` if a step fails.
    """
    check_repo_id(order.repo_id)
    if order.out is not None and order.out.exists() and any(order.out.iterdir()):
        raise BadInput(f"{order.out} is not empty: give an empty folder, or one that is not there yet")
    manifest = _read_manifest(hubs.target, order.repo_id, order.revision)
    entry = _entry(manifest, order.repo_id, order.variant)
    recipe = entry.recipe
    chosen = quantizer(recipe.format, str(recipe.parameters.get("backend") or "") or None)
    other_tools = differing_tools(chosen, manifest, recipe)
    if other_tools and not order.any_toolchain:
        raise BadInput(
            f"{'; '.join(other_tools)}: install the tools that made the variant, or give --any-toolchain to try the "
            "installed ones"
        )
    text = provide_text(recipe.calibration, order.texts, settings, hubs.source)
    sources = _sources(hubs.source, entry)
    made = _variant(chosen, entry, sources[0], settings)
    disk = sum(each.weight_bytes + estimate_variant(each, made).disk + 2 * entry.artifact.size for each in sources)
    require_disk(settings.home, disk)
    install_on_demand(traits_of(chosen).toolchain, plain_lines(report))
    with (
        # A press deletes downloads of other commits of its model, so no press of this model may run during a rebuild.
        alone(settings.home, recipe.source, lambda: report("waiting for a press that works on this model here")),
        scratch(settings.home, "rebuild") as place_of_work,
    ):
        fetched = [(_fetch(hubs.source, each, settings.home, report), each) for each in sources]
        folders = [provide(chosen, at, each.config, place_of_work / each.record.sha[:12]) for at, each in fetched]
        job = _job(_Original(manifest, entry, made), folders[0], text, place_of_work, settings)
        out, names = _make(job, place_of_work, report)
        for later in folders[1:]:
            out, names = _refresh(job, later, place_of_work, report)
        files = compare(entry, out, names)
        if order.out is not None:
            for name in names:
                place(out / name, order.out / name)
    return Rebuilt(order.repo_id, order.variant, files, other_tools)


def _sources(hub: HfApi, entry: Entry) -> list[Source]:
    """Returns a list. Its first item is the source at the commit that the weights were quantized from. If the recipe
    names another commit, the source at that commit is the second item."""
    recipe = entry.recipe
    quantized_from = str(entry.artifact.details.get(WEIGHTS_FROM, recipe.source_sha))
    return [look_up_source(hub, recipe.source, sha) for sha in dict.fromkeys([quantized_from, recipe.source_sha])]


def _fetch(hub: HfApi, source: Source, home: Path, report: Callable[[str], None]) -> Path:
    record = source.record
    report(f"fetching {record.repo}@{record.sha[:12]}")
    return fetch(hub, source, Workspace(home, record.repo, record.sha).source)


def _read_manifest(api: HfApi, repo_id: str, revision: str) -> Manifest:
    from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    with explained(api.endpoint, f"reading {repo_id}@{revision}"):
        try:
            path = Path(api.hf_hub_download(repo_id, MANIFEST_FILE, revision=revision))
        except RevisionNotFoundError:
            raise BadInput(f"{repo_id} has no revision {revision!r}") from None
        except RepositoryNotFoundError:
            raise BadInput(f"{api.endpoint} has no repository {repo_id} (or it is private and needs a token)") from None
        except RemoteEntryNotFoundError:
            raise BadInput(
                f"{repo_id}@{revision} has no {MANIFEST_FILE}: only what quantpress made can be rebuilt"
            ) from None
    return parse_manifest(path.read_bytes(), f"{repo_id}@{revision}")


def _entry(manifest: Manifest, repo_id: str, variant: str) -> Entry:
    entry = manifest.entry(variant)
    if entry is not None:
        return entry
    alias = next((alias for alias in manifest.aliases if alias.variant == variant), None)
    if alias is not None:
        raise BadInput(f"{variant} of {repo_id} has no file of its own: it is the same as {alias.same_as}")
    raise BadInput(
        f"{repo_id} has no variant {variant!r}: {hint(variant, [each.variant for each in manifest.entries])}"
    )


def differing_tools(chosen: Quantizer, manifest: Manifest, recipe: Recipe) -> list[str]:
    """Describes how the tools here differ from those that made the variant. The quantizer comes first."""
    version, here = chosen.version(), chosen.tools()
    found = (
        [f"the variant was made by {recipe.quantizer}, and {version} is installed here"]
        if version != recipe.quantizer
        else []
    )
    return found + [
        f"{name} was {there}, here it is {here[name]}"
        for name, there in manifest.toolchain.items()
        if name in here and here[name] != there and there not in recipe.quantizer
    ]


def provide_text(wanted: Calibration, texts: Iterable[Path], settings: Settings, source_hub: HfApi) -> EvaluationText:
    """Returns the calibration text: one that is already here, or else WikiText-2 from the source Hub.

    Raises the same errors as :func:`find_text` and :func:`fetch_wikitext`.
    """
    folder = settings.home / "texts"
    try:
        return find_text(wanted, texts, folder, archive_in(folder))
    except BadInput:
        if wanted.text != WIKITEXT_TRAIN:
            raise
    return find_text(wanted, texts, folder, fetch_wikitext(source_hub, settings.home))


def find_text(wanted: Calibration, texts: Iterable[Path], folder: Path, archive: Path | None = None) -> EvaluationText:
    """Returns the calibration text whose hash is in the recipe.

    This is either one of our own texts or one of ``texts``. If it is one of our own, it is written into ``folder``.
    Raises :class:`BadInput`, with the name of the calibration text, if none of these texts has the hash.
    """
    for setting in (None, Path(PYDOC), *texts):
        text = calibration_text(setting, folder, archive)
        if text.sha256 == wanted.sha256:
            return EvaluationText(wanted.text, text.path, text.sha256)
    why = " (it changes with Python's version)" if wanted.text == PYDOC else ""
    raise BadInput(
        f"the variant was calibrated on {wanted.text}{why}, SHA-256 {wanted.sha256}, and that text is not here: "
        "give that file with --calibration-text"
    )


def _variant(chosen: Quantizer, entry: Entry, source: Source, settings: Settings) -> Variant:
    """Returns the variant with the parameters of the recipe, even if the format's defaults have changed."""
    now = chosen.variant(entry.variant, source.config)
    require_known(chosen, entry.recipe, source.config)
    if now.needs_cuda and settings.compute_device() != "cuda":
        raise Refused(f"{entry.variant} can be made only on a machine with a CUDA GPU")
    return now.model_copy(update={"parameters": entry.recipe.parameters, "branch": entry.branch})


@dataclass(frozen=True)
class _Original:
    """The variant to make again, the manifest that lists it, and its entry in that manifest. ``variant`` has the
    recipe's parameters."""

    manifest: Manifest
    entry: Entry
    variant: Variant


def _job(original: _Original, source: Path, text: EvaluationText, place_of_work: Path, settings: Settings) -> Job:
    calibration = original.entry.recipe.calibration
    return Job(
        step="prepare",
        variant=original.variant,
        model_name=original.manifest.model_name,
        source=source.resolve(),
        prepared=place_of_work / "prepared",
        out=place_of_work / "files",
        calibration=CalibrationText(
            name=calibration.text,
            path=text.path.resolve(),
            sha256=text.sha256,
            samples=calibration.samples,
            length=calibration.length,
        ),
        threads=settings.thread_count(),
        device=settings.compute_device(),
        # A variant of one file was smaller than the limit for splitting, so it must not be split now.
        split_above=settings.split_above if len(original.entry.artifact.files) > 1 else None,
    )


def _make(job: Job, folder: Path, report: Callable[[str], None]) -> tuple[Path, list[str]]:
    """Quantizes the variant again. Returns the folder of the made files, and the names of these files."""
    for step, what in (("check", "looking at the source"), ("prepare", "calibrating")):
        report(what)
        run_child("quantizers.job", job.model_copy(update={"step": step}), Result, folder / step)
    report(f"quantizing {job.variant.name}")
    result = run_child("quantizers.job", job.model_copy(update={"step": "quantize"}), Result, folder / "quantize")
    if result.output is None:
        raise QuantpressError(f"the quantizer of {job.variant.name} did not report which files it made")
    return job.out, result.output.files


def _refresh(made: Job, source: Path, folder: Path, report: Callable[[str], None]) -> tuple[Path, list[str]]:
    """Copies the files of the job ``made`` into a new folder, with the metadata of ``source``. Returns the new folder
    and the names of the files."""
    report(f"giving {made.variant.name} the metadata of the recipe's commit")
    job = made.model_copy(update={"source": source.resolve(), "prepared": folder / "refresh-prepared"})
    job = job.model_copy(update={"published": made.prepared})  # prepare copies the imatrix from here
    run_child("quantizers.job", job, Result, folder / "refresh-prepare")
    job = job.model_copy(update={"step": "refresh", "published": made.out, "out": folder / "refreshed"})
    result = run_child("quantizers.job", job, Result, folder / "refresh")
    if result.obstacle is not None:
        raise QuantpressError(f"{made.variant.name} cannot have the metadata of the recipe's commit: {result.obstacle}")
    return job.out, sorted(path.name for path in job.out.iterdir())


def compare(entry: Entry, folder: Path, made: Iterable[str]) -> list[Compared]:
    """Compares every file that the manifest lists or that the rebuild made. The result is sorted by name."""
    published = {file.path: file.sha256 for file in entry.artifact.files}
    rebuilt = {name: sha256_of(folder / name) for name in made}
    return [Compared(path, published.get(path, ""), rebuilt.get(path, "")) for path in sorted({*published, *rebuilt})]
