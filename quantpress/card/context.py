"""The card's context: the facts that a card needs and its manifest does not hold.

:func:`gather_context` gets the context from the Hubs, for a published repo whose source is not on disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from quantizers import usable
from quantpress.card import markdown
from quantpress.card.templates import TEMPLATES
from quantpress.errors import QuantpressError
from quantpress.hub.client import explained
from quantpress.hub.hubs import Hubs
from quantpress.record.base import Record
from quantpress.record.manifest import Manifest
from quantpress.record.names import comparison_repo
from quantpress.settings import HUGGING_FACE, Settings
from quantpress.source.source import chat_template, look_up_source

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: Files that can hold a chat template; see :func:`quantpress.source.source.chat_template`.
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")


class CardContext(Record):
    """What a card needs besides the manifest.

    ``repo_id`` and ``branch`` say where the card will be published. ``siblings`` maps each of the model's other formats
    to its repo. ``comparison`` is the repo that compares all formats. ``target_endpoint`` and ``source_endpoint`` are
    None for huggingface.co. ``source_bytes`` is the size of the unquantized weights, if known. ``templates`` is the
    folder of the Jinja templates.
    """

    repo_id: str = Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")
    branch: str = "main"
    quantized_by: str
    chat_template: str | None = None
    siblings: dict[str, str] = {}
    comparison: str | None = None
    target_endpoint: str | None = None
    source_endpoint: str | None = None
    source_bytes: int | None = None
    templates: Path = TEMPLATES

    @field_validator("target_endpoint", "source_endpoint")
    @classmethod
    def _without_slash(cls, endpoint: str | None) -> str | None:
        """Returns None for huggingface.co, else the address without a trailing slash."""
        if endpoint is None or endpoint.rstrip("/") == HUGGING_FACE:
            return None
        if not markdown.is_web_address(endpoint) or "@" in endpoint:
            raise ValueError("an endpoint is an http or https address without credentials")
        return endpoint.rstrip("/")


@dataclass(frozen=True)
class SourceFacts:
    """What a card takes from the source alone: the chat template, and the size of the unquantized weights.

    Each fact is None if the source lacks it or cannot be reached.
    """

    chat_template: str | None = None
    weight_bytes: int | None = None


def card_context(repo_id: str, model_name: str, settings: Settings, facts: SourceFacts) -> CardContext:
    """Returns the context of the card on a repo's ``main``. Asks no Hub, and therefore leaves ``siblings`` empty."""
    namespace = repo_id.partition("/")[0]
    return CardContext(
        repo_id=repo_id,
        quantized_by=namespace,
        chat_template=facts.chat_template,
        comparison=comparison_repo(namespace, model_name),
        target_endpoint=settings.target_endpoint,
        source_endpoint=settings.source_endpoint,
        source_bytes=facts.weight_bytes,
    )


def gather_context(manifest: Manifest, repo_id: str, settings: Settings, hubs: Hubs) -> tuple[CardContext, str | None]:
    """Returns the context of the card on ``main``, and the reason if facts of the source are missing (else None).

    If the source is gone or cannot be reached, the chat template and the size of the unquantized weights are missing.
    Raises :class:`QuantpressError` if the target Hub cannot be reached.
    """
    facts, missing = SourceFacts(), None
    try:
        facts = _facts_of(hubs.source, manifest)
    except QuantpressError as error:
        missing = f"the card goes without chat template and size of the source: {error}"
    context = card_context(repo_id, manifest.model_name, settings, facts)
    return with_siblings(context, manifest.model_name, manifest.format, hubs.target), missing


def _facts_of(api: HfApi, manifest: Manifest) -> SourceFacts:
    repo, sha = manifest.source.repo, manifest.source.sha
    source = look_up_source(api, repo, sha)
    there = {file.path for file in source.files}
    with tempfile.TemporaryDirectory(prefix="quantpress-card-") as folder, explained(api.endpoint, f"reading {repo}"):
        for name in there.intersection(_TEMPLATE_FILES):
            api.hf_hub_download(repo, name, revision=sha, local_dir=folder)
        return SourceFacts(chat_template(Path(folder)), source.weight_bytes)


def with_siblings(
    context: CardContext, model_name: str, format_name: str, api: HfApi, coming: Collection[str] = ()
) -> CardContext:
    """Returns the context with ``siblings`` filled in: the repos of the model's other formats.

    These are the repos that already exist, and the repos in ``coming``. This run of quantpress makes the repos in
    ``coming``.
    """
    namespace = context.repo_id.partition("/")[0]
    others = {
        name: f"{namespace}/{model_name}-{chosen.suffix}" for name, chosen in usable().items() if name != format_name
    }
    with explained(api.endpoint, f"looking for the other formats of {model_name}"):
        siblings = {name: other for name, other in others.items() if other in coming or api.repo_exists(other)}
    return context.model_copy(update={"siblings": siblings})
