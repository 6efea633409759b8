"""What a card says beside its manifest: the object, and how it is gathered for a repo that is published already.

No source is on disk then.
"""

from __future__ import annotations

import tempfile
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

#: Where a chat template may be; see :func:`quantpress.source.source.chat_template`.
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")


class CardContext(Record):
    """What a card needs beside the manifest.

    ``repo_id`` and ``branch`` are where the card will stand, ``siblings`` maps other formats to their repos of the
    same model, ``comparison`` is the repo that compares them all. ``target_endpoint`` and ``source_endpoint`` are None
    for huggingface.co. ``source_bytes`` is the size of the unquantized weights, if known. ``templates`` is the folder
    of the Jinja templates.
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
        """None for huggingface.co; else the address without a slash at its end."""
        if endpoint is None or endpoint.rstrip("/") == HUGGING_FACE:
            return None
        if not markdown.is_web_address(endpoint) or "@" in endpoint:
            raise ValueError("an endpoint is an http or https address without credentials")
        return endpoint.rstrip("/")


def gather_context(manifest: Manifest, repo_id: str, settings: Settings, hubs: Hubs) -> tuple[CardContext, str | None]:
    """The context of the card on ``main``, and why it lacks what only the source knows (None: it lacks nothing).

    A source that has gone, or that cannot be reached, leaves the card without the chat template and the size of the
    unquantized weights. Raises :class:`QuantpressError` where the target Hub cannot be reached.
    """
    template, weight_bytes, missing = None, None, None
    try:
        template, weight_bytes = _of_source(hubs.source, manifest)
    except QuantpressError as error:
        missing = f"the card goes without chat template and size of the source: {error}"
    context = CardContext(
        repo_id=repo_id,
        quantized_by=repo_id.partition("/")[0],
        chat_template=template,
        siblings=_siblings(hubs.target, repo_id, manifest),
        comparison=comparison_repo(repo_id.partition("/")[0], manifest.model_name),
        target_endpoint=settings.target_endpoint,
        source_endpoint=settings.source_endpoint,
        source_bytes=weight_bytes,
    )
    return context, missing


def _of_source(api: HfApi, manifest: Manifest) -> tuple[str | None, int]:
    repo, sha = manifest.source.repo, manifest.source.sha
    source = look_up_source(api, repo, sha)
    there = {file.path for file in source.files}
    with tempfile.TemporaryDirectory(prefix="quantpress-card-") as folder, explained(api.endpoint, f"reading {repo}"):
        for name in there.intersection(_TEMPLATE_FILES):
            api.hf_hub_download(repo, name, revision=sha, local_dir=folder)
        return chat_template(Path(folder)), source.weight_bytes


def _siblings(api: HfApi, repo_id: str, manifest: Manifest) -> dict[str, str]:
    """The repos of the model's other formats, as far as they exist."""
    namespace = repo_id.partition("/")[0]
    others = {
        name: f"{namespace}/{manifest.model_name}-{chosen.suffix}"
        for name, chosen in usable().items()
        if name != manifest.format
    }
    with explained(api.endpoint, f"looking for the other formats of {manifest.model_name}"):
        return {name: other for name, other in others.items() if api.repo_exists(other)}
