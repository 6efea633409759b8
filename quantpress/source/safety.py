"""Checks the small files of a source before anything large is downloaded. The files are not trusted, because a stranger
wrote them.

Code from model repositories is never run. A chat template must not be too long. A file that should be JSON must be
JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantpress.errors import Refused

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CONFIG_FILE = "config.json"
#: In these files, ``auto_map`` can name classes in the repo's own Python files. transformers would import the files and
#: run their code.
_MAY_NAME_CODE = (CONFIG_FILE, "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
_CODE_KEY = "auto_map"
#: The largest size of a JSON file, in bytes. The largest published one, Gemma 3's tokenizer_config.json, has 1.2 MB.
_LARGEST = 10_000_000
#: The largest length of a chat template, in characters. For a file that holds only a template, the limit is in bytes.
#: The longest published templates, with tools, have some 30,000 characters.
LONGEST_TEMPLATE = 1_000_000
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")


def check_small_files(api: HfApi, repo: str, sha: str, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Checks the source's small files and returns its config.json. ``sizes`` maps a file's path to its size in bytes.

    Raises :class:`Refused` if a file fails a check.
    """
    for name in _TEMPLATE_FILES:
        if sizes.get(name, 0) > LONGEST_TEMPLATE:
            raise Refused(_too_long(sizes[name]))
    read = {name: _read(api, repo, sha, name, sizes[name]) for name in _MAY_NAME_CODE if name in sizes}
    _check_contents(read)
    return read[CONFIG_FILE]


def check_folder(folder: Path) -> dict[str, Any]:
    """Checks a model in a folder on this machine, as :func:`check_small_files` does for a repo. The folder must have a
    config.json."""
    for name in _TEMPLATE_FILES:
        if (folder / name).is_file() and (size := (folder / name).stat().st_size) > LONGEST_TEMPLATE:
            raise Refused(_too_long(size))
    read = {name: _parsed(folder / name) for name in _MAY_NAME_CODE if (folder / name).is_file()}
    _check_contents(read)
    return read[CONFIG_FILE]


def _check_contents(read: dict[str, dict[str, Any]]) -> None:
    for name, content in read.items():
        if _names_code(content):
            raise Refused(f"its {name} has an {_CODE_KEY}: code from model repositories is never run")
        length = _template_length(content.get("chat_template"))
        if length > LONGEST_TEMPLATE:
            raise Refused(_too_long(length))


def _too_long(length: int) -> str:
    return (
        f"its chat template has {length} characters, and templates of more than {LONGEST_TEMPLATE} characters are not "
        "read"
    )


def _read(api: HfApi, repo: str, sha: str, name: str, size: int) -> dict[str, Any]:
    if size > _LARGEST:
        raise Refused(f"its {name} is larger than {_LARGEST} bytes")
    path = Path(api.hf_hub_download(repo, name, revision=sha))
    if path.stat().st_size != size:
        raise Refused(f"its {name} is not as large as the Hub says")
    return _parsed(path)


def _parsed(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LARGEST:
        raise Refused(f"its {path.name} is larger than {_LARGEST} bytes")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise Refused(f"its {path.name} is not JSON") from None
    if not isinstance(content, dict):
        raise Refused(f"its {path.name} is not a JSON object")
    return content


def _names_code(content: object) -> bool:
    """Whether ``content`` has an ``auto_map`` at any depth. A model's configuration contains the configurations of its
    parts."""
    match content:
        case dict():
            return _CODE_KEY in content or any(_names_code(value) for value in content.values())
        case list():
            return any(_names_code(value) for value in content)
    return False


def _template_length(template: object) -> int:
    """Returns the length of a chat template in characters. If there are several named templates, returns their total
    length."""
    match template:
        case str():
            return len(template)
        case list():
            return sum(_template_length(each.get("template")) for each in template if isinstance(each, dict))
    return 0
