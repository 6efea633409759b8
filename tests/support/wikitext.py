"""A stand-in for WikiText-2's archive. The real archive is only on huggingface.co, which no test reaches."""

from __future__ import annotations

import io
import zipfile

from huggingface_hub import HfApi

TEST = " = Robert Boulter = \n\n Robert Boulter is an English film , television and theatre actor . \n"
TRAIN = "".join(f" Sentence {number} of an article on Valkyria Chronicles . \n" for number in range(20_000))
DATASET, ARCHIVE = "ggml-org/ci", "wikitext-2-raw-v1.zip"


def archive() -> bytes:
    """Makes an archive with the form of the real one. It has other texts, so its hash differs."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("wikitext-2-raw/wiki.test.raw", TEST)
        file.writestr("wikitext-2-raw/wiki.train.raw", TRAIN)
    return content.getvalue()


def upload(api: HfApi, content: bytes) -> None:
    """Uploads an archive to where a source Hub has the real archive."""
    api.create_repo(DATASET, repo_type="dataset")
    api.upload_file(repo_id=DATASET, path_in_repo=ARCHIVE, path_or_fileobj=io.BytesIO(content), repo_type="dataset")
