"""``quantpress hub --check``: wrong objects are set aside and named, and uploading their files again heals them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download

from quantpress.localhub.server import running_hub

LARGE, SMALL = b"\0" * 100_000, b"a small file\n"
NAMES = {"model.gguf": LARGE, "notes.txt": SMALL}


def check(root: Path) -> tuple[int, list[str], str]:
    """Runs the command. Returns its exit status, the lines of its standard output, and its standard error."""
    quantpress = "from quantpress.cli.app import main; main()"
    command = [sys.executable, "-c", quantpress, "hub", "--check", "--root", str(root)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines(), done.stderr


class Served:
    """A Hub with two repos that have the same two files: a large one in LFS and a small one."""

    def __init__(self, root: Path, api: HfApi, cache: Path) -> None:
        self.root, self.api, self.cache = root, api, cache

    def upload(self, repo: str) -> None:
        for path, content in NAMES.items():
            self.api.upload_file(path_or_fileobj=content, path_in_repo=path, repo_id=repo)

    def object(self, content: bytes) -> Path:
        sha256 = hashlib.sha256(content).hexdigest()
        return self.root / "objects" / sha256[:2] / sha256

    def download(self, repo: str, path: str) -> bytes:
        """Returns a file's bytes as the Hub serves them now."""
        folder = self.cache / str(len(list(self.cache.iterdir())))
        file = hf_hub_download(repo, path, endpoint=self.api.endpoint, token=self.api.token, local_dir=folder)
        return Path(file).read_bytes()

    def check(self) -> tuple[int, list[str], str]:
        return check(self.root)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "downloads").mkdir()
    with running_hub(tmp_path / "hub") as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.create_token("press", "write"))
        found = Served(tmp_path / "hub", api, tmp_path / "downloads")
        for repo in ("press/one", "press/two"):
            api.create_repo(repo)
            found.upload(repo)
        yield found


def test_wrong_objects_are_named_and_an_upload_heals_every_commit(served: Served) -> None:
    assert served.check() == (0, [f"{served.root}: every object is of its hash"], "")
    served.object(LARGE).write_bytes(b"\1" * 100_000)  # of the same size
    served.object(SMALL).write_bytes(b"a small")  # cut short
    code, lines, error = served.check()
    assert code == 1
    assert error == f"quantpress: {served.root}: objects that are wrong or missing: 2; upload their files again\n"
    named = {line.split()[0]: line.partition(" ")[2] for line in lines}
    large, small = (hashlib.sha256(content).hexdigest() for content in (LARGE, SMALL))
    assert named == {
        large: f"has 100000 bytes of SHA-256 {hashlib.sha256(bytes([1]) * 100_000).hexdigest()}: set aside as "
        f"{served.root}/set-aside/{large}; it is press/one: model.gguf, press/two: model.gguf",
        small: f"has 7 bytes of SHA-256 {hashlib.sha256(b'a small').hexdigest()}: set aside as "
        f"{served.root}/set-aside/{small}; it is press/one: notes.txt, press/two: notes.txt",
    }
    assert served.check()[1] == [
        f"{large} is missing; it is press/one: model.gguf, press/two: model.gguf",
        f"{small} is missing; it is press/one: notes.txt, press/two: notes.txt",
    ]
    served.upload("press/two")
    assert served.check()[0] == 0
    for repo in ("press/one", "press/two"):
        assert {path: served.download(repo, path) for path in NAMES} == NAMES


def test_a_small_file_that_was_cut_short_is_healed_without_the_check(served: Served) -> None:
    served.object(SMALL).write_bytes(b"")
    served.upload("press/one")
    assert served.download("press/two", "notes.txt") == SMALL


def test_a_folder_without_a_hub_is_bad_input(tmp_path: Path) -> None:
    said = f"quantpress: {tmp_path}/typo: holds no Hub's data; give the Hub's folder by --root\n"
    assert check(tmp_path / "typo") == (2, [], said)
    assert not (tmp_path / "typo").exists()
