"""The YAML front matter of a model card, which the Hub reads (https://huggingface.co/docs/hub/model-cards)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from quantpress.card.markdown import is_web_address
from quantpress.record.manifest import SourceRecord
from quantpress.text import one_line

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}")
#: Tags that the Hub derives from a repo's files or hosting. These tags are true only of the source's repo.
_DERIVED = frozenset({
    "autotrain_compatible", "endpoints_compatible", "text-generation-inference", "custom_code", "has_space",
    "deploy", "transformers", "pytorch", "tf", "jax", "safetensors", "onnx", "gguf", "gptq", "awq", "exl2",
    "exl3", "bitsandbytes", "compressed-tensors", "transformers.js", "mlx", "openvino", "4-bit", "8-bit",
    "conversational", "imatrix",
})  # fmt: skip


def front_matter(
    source: SourceRecord,
    *,
    quantized_by: str,
    library_name: str,
    tags: Sequence[str],
    license_base: str,
) -> str:
    """Returns the front matter with its ``---`` lines.

    A relative ``license_link`` of the source would lead nowhere in the quantized repo, so it is resolved against the
    address ``license_base``. Values that the Hub would refuse (such as a pipeline tag with a line break) are left
    out. YAML quotes all other values, and every text stays on one line.
    """
    values: dict[str, Any] = {
        "base_model": one_line(source.repo),
        "base_model_relation": "quantized",
        "quantized_by": one_line(quantized_by),
        "license": _line(source.license),
        "license_name": _line(source.license_name),
        "license_link": license_url(source, license_base),
        **source.gate_fields,
        "language": [one_line(language) for language in source.language],
        "pipeline_tag": _identifier(source.pipeline_tag),
        "library_name": library_name,
        "tags": [*tags, *_inherited_tags(source, tags)],
    }
    block = yaml.dump(
        {key: value for key, value in values.items() if value not in (None, "", [], {})},
        Dumper=_OneLine,
        sort_keys=False,
        allow_unicode=True,
        width=float("inf"),
    )
    return f"---\n{block}---"


class _OneLine(yaml.SafeDumper):
    """Writes a text of several lines on one line, quoted, with ``\\n``. So no line of the text can be read as YAML."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\n" in text else None)


_OneLine.add_representer(str, _text)


def license_url(source: SourceRecord, base: str) -> str | None:
    """Returns the address of the licence's text: the source's own link, or a file of the source's repo at ``base``.

    Returns None if the source has no link, or if the link is neither a web address nor a plain file name.
    """
    target = _line(source.license_link)
    if target is None or is_web_address(target):
        return target
    name = target.removeprefix("./")
    return f"{base}/{name}" if _IDENTIFIER.fullmatch(name) else None


def _line(text: str | None) -> str | None:
    return one_line(text) or None if text else None


def _identifier(text: str | None) -> str | None:
    return text if text and _IDENTIFIER.fullmatch(text) else None


def _inherited_tags(source: SourceRecord, own: Sequence[str]) -> list[str]:
    """Returns the source's tags that describe the model.

    Leaves out tags that the Hub derives. Leaves out language, licence and task too, because they have their own keys.
    """
    known = {*own, *source.language, *_DERIVED, source.pipeline_tag, source.license}
    return [tag for tag in dict.fromkeys(source.tags) if _IDENTIFIER.fullmatch(tag) and tag not in known]
