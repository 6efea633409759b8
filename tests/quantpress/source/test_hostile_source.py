"""A hostile source on a real embedded Hub, fetched by the real client. It is refused, or it is never more than data."""

from __future__ import annotations

import base64
import json
import sqlite3
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi

from quantpress.card.context import CardContext
from quantpress.card.render import render_card
from quantpress.catalog.reader import parse_catalog
from quantpress.errors import QuantpressError
from quantpress.hub.hubs import Hubs
from quantpress.localhub.server import RunningHub, running_hub
from quantpress.plan.make import plan_catalog
from quantpress.plan.steps import ModelPlan
from quantpress.settings import Settings
from quantpress.source.source import chat_template, fetch, link, local_source, look_up_source
from tests.support import samples
from tests.support.planned import CONFIG, WEIGHTS

MODEL = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": WEIGHTS}


@dataclass(frozen=True)
class Upstream:
    """A Hub to which a test can write what the client itself would not send."""

    hub: RunningHub
    token: str
    home: Path

    @property
    def api(self) -> HfApi:
        return HfApi(endpoint=self.hub.endpoint, token=self.token)

    def put(self, name: str, files: dict[str, bytes]) -> str:
        """Commits files past the client, because the client and the Hub that it asks first would refuse some cards."""
        repo = f"evil/{name}"
        self.api.create_repo(repo)
        lines: list[dict[str, Any]] = [{"key": "header", "value": {"summary": "put", "description": ""}}]
        for path, content in files.items():
            value = {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}
            lines.append({"key": "file", "value": value})
        request = urllib.request.Request(
            f"{self.hub.endpoint}/api/models/{repo}/commit/main",
            b"".join(json.dumps(line).encode() + b"\n" for line in lines),
            {"Authorization": f"Bearer {self.token}", "Content-Type": "application/x-ndjson"},
        )
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 200
        return repo

    def rename(self, old: str, new: str) -> None:
        """Gives a file a name that the Hub would not take from a client."""
        with closing(sqlite3.connect(self.hub.root / "hub.sqlite3")) as db, db:
            assert db.execute("UPDATE tree_entries SET path = ? WHERE path = ?", (new, old)).rowcount

    def plan(self, line: dict[str, Any]) -> ModelPlan:
        catalog = parse_catalog(json.dumps({"models": [line], "defaults": {"formats": ["gguf"]}}), "c")
        (plan,) = plan_catalog(catalog, Settings(namespace="press", home=self.home), Hubs(self.api, self.api))
        return plan

    def refusal(self, repo: str) -> str:
        """Returns the reason why the plan blocks a model."""
        (step,) = self.plan({"repo": repo}).steps
        assert step.action == "block", step
        return step.reason


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    folder = tmp_path_factory.mktemp("upstream")
    with running_hub(folder / "hub") as hub:
        yield Upstream(hub, hub.create_token("evil", "write"), folder / "home")


@pytest.mark.parametrize(
    "name",
    [
        "../../escaped.safetensors",
        "/tmp/escaped.safetensors",
        "..\\escaped.safetensors",
        "-rf.safetensors",
        ".escaped.safetensors",
        "a\nb.safetensors",
        "folder/escaped.safetensors",
    ],
)
def test_a_name_that_is_none_at_the_root_is_never_fetched(upstream: Upstream, tmp_path: Path, name: str) -> None:
    number = sum(1 for _ in upstream.api.list_models(author="evil"))
    repo = upstream.put(f"Names{number}", {**MODEL, f"renamed{number}.safetensors": b"evil"})
    upstream.rename(f"renamed{number}.safetensors", name)

    source = look_up_source(upstream.api, repo, "main")
    fetch(upstream.api, source, tmp_path / "a" / "b" / "source")

    assert [file.path for file in source.files] == ["config.json", "model.safetensors"]
    fetched = [path for path in tmp_path.rglob("*") if path.is_file() and ".cache" not in path.parts]
    assert sorted(path.name for path in fetched) == ["config.json", "model.safetensors"]
    assert not Path("/tmp/escaped.safetensors").exists()


def test_a_link_where_a_file_should_be_is_not_followed(upstream: Upstream, tmp_path: Path) -> None:
    repo = upstream.put("Linked", MODEL)
    source = look_up_source(upstream.api, repo, "main")
    folder, outside = tmp_path / "source", tmp_path / "outside.json"
    outside.write_bytes(MODEL["config.json"])
    fetch(upstream.api, source, folder)
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(outside)

    fetch(upstream.api, source, folder)

    assert not (folder / "config.json").is_symlink()
    assert outside.read_bytes() == (folder / "config.json").read_bytes() == MODEL["config.json"]


def test_a_link_in_the_repo_is_a_file_that_holds_a_path(upstream: Upstream) -> None:
    """Git stores a link as a blob that holds the link's target. The Hub serves this blob."""
    repo = upstream.put("GitLink", {**MODEL, "config.json": b"../../../etc/passwd"})
    assert upstream.refusal(repo) == "blocked: its config.json is not JSON"


def test_a_changed_small_file_is_found_by_its_hash(upstream: Upstream, tmp_path: Path) -> None:
    repo = upstream.put("Changed", MODEL)
    source = look_up_source(upstream.api, repo, "main")
    other = tuple(replace(f, git_sha1="0" * 40) if f.path == "config.json" else f for f in source.files)
    with pytest.raises(QuantpressError, match=r"the download of config\.json is damaged; it was removed, run again"):
        fetch(upstream.api, replace(source, files=other), tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_pickles_are_refused_in_the_plan(upstream: Upstream) -> None:
    repo = upstream.put("Pickles", {"config.json": MODEL["config.json"], "pytorch_model.bin": b"\x80\x04."})
    assert upstream.refusal(repo) == (
        "blocked: no safetensors: pickle checkpoints are refused; save it as safetensors, or ask upstream to"
    )


def test_pickles_beside_safetensors_are_not_fetched(upstream: Upstream, tmp_path: Path) -> None:
    repo = upstream.put("Both", {**MODEL, "pytorch_model.bin": b"\x80\x04.", "modeling_evil.py": b"raise SystemExit"})
    fetch(upstream.api, look_up_source(upstream.api, repo, "main"), tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*") if path.is_file()) == ["config.json", "model.safetensors"]


AUTO_MAP = {"auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil"}}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {**CONFIG, **AUTO_MAP}),
        ("config.json", {**CONFIG, "text_config": AUTO_MAP}),
        ("config.json", {**CONFIG, "parts": [AUTO_MAP]}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
        ("preprocessor_config.json", AUTO_MAP),
    ],
    ids=["top", "nested", "listed", "tokenizer", "preprocessor"],
)
def test_code_is_never_run(
    upstream: Upstream, name: str, content: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    repo = upstream.put(f"Code-{request.node.callspec.id}", {**MODEL, name: json.dumps(content).encode()})
    assert upstream.refusal(repo) == (f"blocked: its {name} has an auto_map: code from model repositories is never run")


TEN_MB = b"{{ messages }}" * 750_000


def test_a_chat_template_of_10_mb_is_refused(upstream: Upstream) -> None:
    inside = json.dumps({"chat_template": TEN_MB.decode()}).encode()
    several = json.dumps({"chat_template": [{"name": "default", "template": "x" * 1_000_001}]}).encode()
    assert upstream.refusal(upstream.put("File", {**MODEL, "chat_template.jinja": TEN_MB})) == (
        "blocked: its chat template has 10500000 characters, and templates of more than 1000000 characters are not read"
    )
    assert upstream.refusal(upstream.put("Inside", {**MODEL, "tokenizer_config.json": inside})) == (
        "blocked: its tokenizer_config.json is larger than 10000000 bytes"
    )
    assert upstream.refusal(upstream.put("Several", {**MODEL, "tokenizer_config.json": several})) == (
        "blocked: its chat template has 1000001 characters, and templates of more than 1000000 characters are not read"
    )


@pytest.mark.parametrize("card", ["self: me", "ignore_metadata_errors: false", "tags: 5"])
def test_metadata_that_the_client_stumbles_over_blocks_the_model_alone(upstream: Upstream, card: str) -> None:
    """The client passes the card's keys as arguments to a constructor."""
    repo = upstream.put(f"Stumble{len(card)}", {**MODEL, "README.md": f"---\n{card}\n---\n".encode()})
    assert upstream.refusal(repo) == (
        "blocked: the metadata of its card is not what the Hub documents: ask upstream to mend it"
    )


# The product is long, because a short number can stand in a commit's hash by chance.
SMUGGLED = (
    "x\n---\nlicense: mit\nextra_gated_prompt: gone\n{{ 99991*99991 }} {% include '/etc/passwd' %} ```\n# Title\n---\n"
)


def test_a_card_gives_words_and_never_keys_or_code(upstream: Upstream) -> None:
    """Through the plan's record, our card takes only known keys from a source's card, and their texts stay text."""
    upstream_card = {
        "license": "other",
        "license_name": SMUGGLED,
        "license_link": "javascript:alert(1)",
        "language": [SMUGGLED, "en"],
        "pipeline_tag": SMUGGLED,
        "tags": [SMUGGLED, "fine"],
        "library_name": SMUGGLED,
        "base_model": "victim/M",
        "widget": [{"text": SMUGGLED}],
        "extra_gated_prompt": SMUGGLED,
        "extra_gated_fields": {SMUGGLED: {"type": "select", "options": ["a", SMUGGLED]}, "Name": "text"},
        "extra_gated_eu_disallowed": True,
        "extra_gated_x: evil\nlicense": "mit",
    }
    template = "{{ 99991*99991 }}\n```\n# Title\n{% for x in range(10**9) %}{% endfor %}"
    files = {
        **MODEL,
        "README.md": f"---\n{yaml.safe_dump(upstream_card)}---\n# M\n".encode(),
        "chat_template.jinja": template.encode(),
    }
    repo = upstream.put("Smuggler", files)
    record = look_up_source(upstream.api, repo, "main").record

    context = CardContext(repo_id="press/M-GGUF", quantized_by="press", chat_template=template)
    text = render_card(samples.gguf(source=record), context)

    block = text.split("---\n")[1]
    data = yaml.safe_load(block)
    assert set(data) == {
        *("base_model", "base_model_relation", "quantized_by", "license", "license_name", "language", "library_name"),
        *("tags", "extra_gated_prompt", "extra_gated_fields", "extra_gated_eu_disallowed"),
    }
    assert (data["base_model"], data["license"], data["library_name"]) == (repo, "other", "gguf")
    assert data["tags"] == ["gguf", "quantpress", "imatrix", "conversational", "fine"]
    assert data["extra_gated_prompt"] == SMUGGLED
    assert data["extra_gated_fields"]["Name"] == "text"
    flat = " ".join(SMUGGLED.split())
    assert data["license_name"] == flat
    assert data["extra_gated_fields"][flat] == {"type": "select", "options": ["a", SMUGGLED]}
    assert "javascript" not in text and "9998200081" not in text.partition("## Which one")[0]
    assert text.count("\n# Title") == 1 and "````jinja\n{{ 99991*99991 }}\n```\n# Title" in text
    # The Hub takes our card and reads the same metadata from it.
    ours = upstream.put("Ours", {"README.md": text.encode()})
    read = upstream.api.model_info(ours).card_data
    assert read is not None
    assert {key: value for key, value in vars(read).items() if key in data} == data


def test_a_template_file_is_read_as_text(upstream: Upstream, tmp_path: Path) -> None:
    repo = upstream.put("Template", {**MODEL, "chat_template.jinja": b"{{ 99991*99991 }}\xff"})
    fetch(upstream.api, look_up_source(upstream.api, repo, "main"), tmp_path)
    assert chat_template(tmp_path) == "{{ 99991*99991 }}\N{REPLACEMENT CHARACTER}"


def test_of_a_local_folder_nothing_is_seen_but_what_a_press_reads(tmp_path: Path) -> None:
    """The folder holds a pickle and code beside the weights. An old link lies where the new links go."""
    folder, place = tmp_path / "model", tmp_path / "sources" / "local"
    folder.mkdir()
    for name, content in {**MODEL, "LICENSE": b"Mine", "pytorch_model.bin": b"x", "modeling_x.py": b"x"}.items():
        (folder / name).write_bytes(content)
    place.parent.mkdir()
    place.symlink_to(folder)
    for _ in range(2):
        link(local_source(folder), folder, place)
        assert sorted(path.name for path in place.iterdir()) == ["LICENSE", "config.json", "model.safetensors"]
    assert (place / "LICENSE").read_bytes() == b"Mine"
    assert (folder / "pytorch_model.bin").exists()
