"""Checks the small files of a source before anything large is downloaded. The files are not trusted, because a stranger
wrote them.

Code from model repositories is never run. A chat template must not be too long. A file that should be JSON must be
JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantpress.errors import Refused
from quantpress.foreign_json import LARGEST, Foreign, read_object, validated
from quantpress.source.config import CONFIG_FILE, ModelConfig
from quantpress.source.tokenizer import (
    GENERATION_FILE,
    TEMPLATE_FILE,
    TOKENIZER_CONFIG_FILE,
    ChatTemplateFile,
    GenerationConfig,
    TokenizerConfig,
)
from quantpress.source.weight_files import LARGEST_INDEX

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: In these files, ``auto_map`` can name classes in the repo's own Python files. transformers would import the files and
#: run their code.
_MAY_NAME_CODE = (CONFIG_FILE, TOKENIZER_CONFIG_FILE, "preprocessor_config.json", "processor_config.json")
_CODE_KEY = "auto_map"
#: The types of the files whose values quantpress uses.
_TYPES: dict[str, type[Foreign]] = {
    CONFIG_FILE: ModelConfig,
    TOKENIZER_CONFIG_FILE: TokenizerConfig,
    GENERATION_FILE: GenerationConfig,
    TEMPLATE_FILE: ChatTemplateFile,
}
#: The JSON files that are read before anything large is downloaded.
_SMALL = tuple(dict.fromkeys((*_MAY_NAME_CODE, *_TYPES)))
#: The largest length of a chat template, in characters. For a file that holds only a template, the limit is in bytes.
#: The longest published templates, with tools, have some 30,000 characters.
LONGEST_TEMPLATE = 1_000_000
_TEMPLATE_FILES = ("chat_template.jinja", TEMPLATE_FILE)


def check_small_files(api: HfApi, repo: str, sha: str, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Checks the source's small files and returns its config.json. ``sizes`` maps a file's path to its size in bytes.

    Raises :class:`Refused` if a file fails a check.
    """
    for name in _TEMPLATE_FILES:
        if sizes.get(name, 0) > LONGEST_TEMPLATE:
            raise Refused(_too_long(sizes[name]))
    read = {name: _read(api, repo, sha, name, sizes[name]) for name in _SMALL if name in sizes}
    _check_contents(read)
    return read[CONFIG_FILE]


def check_folder(folder: Path) -> dict[str, Any]:
    """Checks a model in a folder on this machine, as :func:`check_small_files` does for a repo. The folder must have a
    config.json."""
    for name in _TEMPLATE_FILES:
        if (folder / name).is_file() and (size := (folder / name).stat().st_size) > LONGEST_TEMPLATE:
            raise Refused(_too_long(size))
    read = {name: read_object(folder / name) for name in _SMALL if (folder / name).is_file()}
    _check_contents(read)
    return read[CONFIG_FILE]


def _check_contents(read: dict[str, dict[str, Any]]) -> None:
    for name, content in read.items():
        if name in _MAY_NAME_CODE and _names_code(content):
            raise Refused(f"its {name} has an {_CODE_KEY}: code from model repositories is never run")
        typed = validated(_TYPES[name], content, name) if name in _TYPES else None
        if isinstance(typed, ChatTemplateFile) and typed.template_length > LONGEST_TEMPLATE:
            raise Refused(_too_long(typed.template_length))


def _too_long(length: int) -> str:
    return (
        f"its chat template has {length} characters, and templates of more than {LONGEST_TEMPLATE} characters are not "
        "read"
    )


def read_index(api: HfApi, repo: str, sha: str, name: str, size: int) -> bytes:
    """Returns the content of an index of weights. ``size`` is what the Hub says. Raises :class:`Refused` if the index
    is too large or has another size."""
    return _downloaded(api, repo, sha, name, size, LARGEST_INDEX).read_bytes()


def _read(api: HfApi, repo: str, sha: str, name: str, size: int) -> dict[str, Any]:
    return read_object(_downloaded(api, repo, sha, name, size, LARGEST))


def _downloaded(api: HfApi, repo: str, sha: str, name: str, size: int, largest: int) -> Path:
    if size > largest:
        raise Refused(f"its {name} is larger than {largest} bytes")
    path = Path(api.hf_hub_download(repo, name, revision=sha))
    if path.stat().st_size != size:
        raise Refused(f"its {name} is not as large as the Hub says")
    return path


def _names_code(content: object) -> bool:
    """Whether ``content`` has an ``auto_map`` at any depth. A model's configuration contains the configurations of its
    parts."""
    match content:
        case dict():
            return _CODE_KEY in content or any(_names_code(value) for value in content.values())
        case list():
            return any(_names_code(value) for value in content)
    return False
