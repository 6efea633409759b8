"""An embedded Hub with sources on it, and plans for catalogs of them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import CommitOperationAdd, HfApi
from safetensors.numpy import save

from quantpress.card.templates import templates_fingerprint
from quantpress.catalog.reader import parse_catalog
from quantpress.comparison.state import state_of
from quantpress.evaluation.protocol import current_protocol
from quantpress.hub.hubs import Hubs
from quantpress.localhub.server import RunningHub, running_hub
from quantpress.plan.make import plan_catalog
from quantpress.plan.steps import ModelPlan
from quantpress.record.manifest import Manifest
from quantpress.settings import Settings
from tests.support import samples

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "dtype": "float16",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "num_hidden_layers": 2,
    "vocab_size": 64,
}
WEIGHTS = save({"model.embed_tokens.weight": np.zeros((64, 576), np.float16)})


@dataclass(frozen=True)
class Press:
    """An embedded Hub with sources on it, and the plan for a catalog."""

    hub: RunningHub
    api: HfApi
    home: Path

    def put(self, repo_id: str, files: dict[str, bytes], branch: str = "main") -> str:
        self.api.create_repo(repo_id, exist_ok=True)
        operations = [CommitOperationAdd(path, io.BytesIO(content)) for path, content in files.items()]
        return self.api.create_commit(repo_id, operations, commit_message="put", revision=branch).oid

    def source(self, repo_id: str, config: dict[str, Any] = CONFIG, **files: bytes) -> str:
        return self.put(repo_id, {"config.json": json.dumps(config).encode(), "model.safetensors": WEIGHTS, **files})

    def plan(
        self,
        *models: Any,
        namespace: str = "press",
        only: str | None = None,
        upload_budget: int | None = None,
        **defaults: Any,
    ) -> list[ModelPlan]:
        text = json.dumps({"models": list(models), "defaults": {"formats": ["gguf"], **defaults}})
        settings = Settings(namespace=namespace, home=self.home, upload_budget=upload_budget)
        return plan_catalog(parse_catalog(text, "c"), settings, Hubs(self.api, self.api), only=only)

    def reasons(self, *models: Any, **defaults: Any) -> list[str]:
        return [step.reason for plan in self.plan(*models, **defaults) for step in plan.steps]


@contextmanager
def running_press(folder: Path) -> Iterator[Press]:
    with running_hub(folder / "hub") as hub:
        yield Press(hub, HfApi(endpoint=hub.endpoint, token=hub.create_token("press", "write")), folder / "home")


def published_as(press: Press, repo_id: str, plan: ModelPlan, **entry: Any) -> None:
    """Publishes a manifest with one entry made from the plan's first recipe."""
    recipe = plan.formats[0].variants[0].recipe
    sample = samples.gguf({"Q8_0": 8.5})
    own = {"recipe": recipe, "fingerprint": recipe.fingerprint, "verified": "a" * 40, **entry}
    changed = sample.entries[0].model_copy(update=own)
    if changed.evaluation.protocol == samples.PROTOCOL:  # a test that sets no protocol gets the current one
        assert plan.source is not None and plan.texts is not None
        protocol = current_protocol(plan.source, Settings(home=press.home), plan.texts.evaluation)
        changed = changed.model_copy(
            update={"evaluation": changed.evaluation.model_copy(update={"protocol": protocol})}
        )
    card = templates_fingerprint("gguf")
    manifest: Manifest = sample.model_copy(update={"entries": [changed], "shared": [], "card": card})
    press.put(repo_id, {"quantpress.json": manifest.to_json().encode()})
    compared_as(press, repo_id, manifest)


def compared_as(press: Press, repo_id: str, manifest: Manifest) -> None:
    """Publishes a comparison that was made from this manifest alone."""
    comparison = repo_id.removesuffix("-GGUF") + "-quantized"
    state = state_of({repo_id: manifest}, [repo_id, comparison])
    press.put(comparison, {"made_from.json": state.to_json().encode()})
