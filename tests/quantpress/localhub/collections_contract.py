"""Client contract: collections of models."""

from __future__ import annotations

from tests.quantpress.localhub.contract_client import nobody, press, reader, refused_with, run_checks

REPOS = [f"press/Tiny-{suffix}" for suffix in ("GGUF", "GPTQ", "AWQ", "EXL3", "EXL2")]


def slug() -> str:
    return next(iter(nobody.list_collections(owner="press"))).slug


def items() -> list[str]:
    return [item.item_id for item in nobody.get_collection(slug()).items]


def check_create() -> None:
    for repo_id in REPOS:
        press.create_repo(repo_id)
    made = press.create_collection("Tiny, quantized", namespace="press", description="maker/Tiny in several formats")
    assert made.slug.startswith("press/tiny-quantized-")
    assert (made.title, made.description, made.items) == ("Tiny, quantized", "maker/Tiny in several formats", [])
    assert refused_with(lambda: press.create_collection("Tiny, quantized", namespace="press")) == 409
    assert press.create_collection("Tiny, quantized", namespace="press", exists_ok=True).slug == made.slug
    assert refused_with(lambda: press.create_collection("x" * 60, namespace="press")) == 400
    assert refused_with(lambda: reader.create_collection("Mine", namespace="reader")) == 403
    assert refused_with(lambda: nobody.create_collection("Mine", namespace="nobody")) == 401


def check_items() -> None:
    for repo_id in REPOS:
        press.add_collection_item(slug(), repo_id, "model", note="4 bits" if repo_id.endswith("AWQ") else None)
    assert items() == REPOS
    assert refused_with(lambda: press.add_collection_item(slug(), REPOS[0], "model")) == 409
    press.add_collection_item(slug(), REPOS[0], "model", exists_ok=True)
    assert refused_with(lambda: press.add_collection_item(slug(), "press/absent", "model")) == 404
    assert refused_with(lambda: press.add_collection_item(slug(), "press/set", "dataset")) == 400
    assert nobody.get_collection(slug()).items[2].note == "4 bits"


def check_list() -> None:
    press.create_collection("Another", namespace="other")
    assert [each.title for each in nobody.list_collections()] == ["Another", "Tiny, quantized"]
    assert [each.title for each in nobody.list_collections(owner="press")] == ["Tiny, quantized"]
    (listed,) = nobody.list_collections(item=f"models/{REPOS[4]}")
    assert len(listed.items) == 4
    assert list(nobody.list_collections(item="models/press/absent")) == []
    assert len(list(nobody.list_collections(limit=1))) == 1


def check_order() -> None:
    last = nobody.get_collection(slug()).items[-1]
    press.update_collection_item(slug(), last.item_object_id, note="new", position=0)
    assert items() == [REPOS[4], *REPOS[:4]]
    assert nobody.get_collection(slug()).items[0].note == "new"
    press.delete_collection_item(slug(), last.item_object_id)
    assert refused_with(lambda: press.delete_collection_item(slug(), last.item_object_id)) == 404
    press.delete_collection_item(slug(), last.item_object_id, missing_ok=True)
    assert items() == REPOS[:4]


def check_repos_that_move_or_go() -> None:
    press.move_repo(REPOS[3], "press/Moved")
    press.delete_repo(REPOS[0])
    assert items() == [*REPOS[1:3], "press/Moved"]


def check_metadata() -> None:
    before = slug()
    changed = press.update_collection_metadata(before, title="Tiny", description="all of it")
    assert (changed.title, changed.description) == ("Tiny", "all of it")
    assert changed.slug != before
    assert nobody.get_collection(before).slug == changed.slug
    assert refused_with(lambda: press.update_collection_metadata(before, title="")) == 400


def check_private() -> None:
    of_press = slug()
    press.update_collection_metadata(of_press, private=True)
    assert list(nobody.list_collections(owner="press")) == []
    assert refused_with(lambda: nobody.get_collection(of_press)) == 404
    assert reader.get_collection(of_press).private is True


def check_delete() -> None:
    of_press = next(iter(reader.list_collections(owner="press"))).slug
    press.delete_collection(of_press)
    assert refused_with(lambda: press.delete_collection(of_press)) == 404
    press.delete_collection(of_press, missing_ok=True)
    assert refused_with(lambda: nobody.get_collection("press/nonsense")) == 404


if __name__ == "__main__":
    run_checks(globals())
