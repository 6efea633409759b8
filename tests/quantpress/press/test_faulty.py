"""A commit records what verification found of each variant, on the branch that the next plan reads."""

from __future__ import annotations

from quantpress.card.context import CardContext
from quantpress.plan.steps import FormatPlan
from quantpress.press.compose import CommitContent, compose_commits, compose_manifest
from quantpress.record.manifest import Entry, Manifest, parse_manifest
from quantpress.record.shelf import Shelf
from tests.support import samples

REPO = "press/SmolLM2-135M-Instruct-GPTQ"
DEFAULT, SECOND, THIRD = (entry.variant for entry in samples.gptq().entries)
COMMIT = "a" * 40


def committed(before: Manifest, content: CommitContent) -> dict[str, Manifest]:
    """Returns a dict from branch to the manifest committed to it. The repo holds what ``before`` lists."""
    branches = {entry.branch: [entry] for entry in before.entries} | {"main": before.entries}
    manifests = {branch: before.model_copy(update={"entries": own}) for branch, own in branches.items()}
    plan = FormatPlan("gptq", Shelf(REPO, dict.fromkeys(manifests, COMMIT), manifests), (), ())
    manifest = compose_manifest(plan, before.model_name, before.source, content, [])
    commits = compose_commits(plan, manifest, content, [], CardContext(repo_id=REPO, quantized_by="press"))
    texts = {commit.branch: commit.uploads["quantpress.json"] for commit in commits}
    return {branch: parse_manifest(text, branch) for branch, text in texts.items() if isinstance(text, bytes)}


def content(before: Manifest, verified: dict[str, str], faulty: dict[str, list[str]]) -> CommitContent:
    return CommitContent([], [], {}, [], before.baselines, before.toolchain, verified=verified, faulty=faulty)


def entry(manifests: dict[str, Manifest], branch: str, variant: str) -> Entry:
    found = manifests[branch].entry(variant)
    assert found is not None
    return found


def test_what_was_found_is_on_record_on_the_variants_branch() -> None:
    before = samples.gptq()
    found = committed(before, content(before, {SECOND: COMMIT}, {THIRD: ["does not load"]}))
    assert list(found) == [SECOND, THIRD, "main"]
    for branch in (SECOND, "main"):
        assert entry(found, branch, SECOND).verified == COMMIT
    for branch in (THIRD, "main"):
        assert entry(found, branch, THIRD).problems == ["does not load"]
    assert entry(found, "main", DEFAULT) == before.entries[0]


def test_a_variant_is_either_verified_or_faulty() -> None:
    before = samples.gptq()
    sound = before.entries[0].model_copy(update={"verified": COMMIT})
    faulty = before.entries[1].model_copy(update={"problems": ["does not load"]})
    before = samples.gptq(entries=[sound, faulty])
    found = committed(before, content(before, {SECOND: COMMIT}, {DEFAULT: ["writes no text"]}))
    assert (entry(found, "main", DEFAULT).verified, entry(found, "main", DEFAULT).problems) == (
        None,
        ["writes no text"],
    )
    assert (entry(found, SECOND, SECOND).verified, entry(found, SECOND, SECOND).problems) == (COMMIT, [])
