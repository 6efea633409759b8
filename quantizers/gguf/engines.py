"""Compares llama.cpp with transformers before a source is converted: their tokenizers and their prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from quantizers.gguf.dialogue import compare_dialogues
from quantizers.gguf.stand_in import write_stand_in
from quantizers.gguf.tokenizing import compare_tokenizers
from quantpress.errors import Refused
from quantpress.record.base import Record
from quantpress.toolchain.llama_cpp import LlamaCpp


class EnginesReport(Record):
    """What llama.cpp does otherwise than transformers, and what does not keep a rung from being published.

    ``strings`` are the names of hard strings for which llama.cpp gives other token ids. ``template`` says why llama.cpp
    cannot render the chat template, or is None.
    """

    strings: list[str] = []
    template: str | None = None

    @property
    def differs(self) -> bool:
        return bool(self.strings or self.template)


def compare_engines(tools: LlamaCpp, source: Path, vocabulary: Path, texts: Mapping[str, Path]) -> EnginesReport:
    """Compares what both engines do with a source's tokenizer and chat template. ``vocabulary`` is a GGUF file with
    both. ``texts`` are the texts of the run, by name.

    Raises :class:`Refused` if llama.cpp aborts, gives other token ids for a text, or makes another prompt of a
    dialogue.
    """
    stand_in = vocabulary.with_name("stand-in.gguf")
    write_stand_in(vocabulary, stand_in)
    strings = compare_tokenizers(tools, source, stand_in, texts)
    rendered = compare_dialogues(source, vocabulary)
    if rendered.different:
        raise Refused(
            f"llama.cpp makes another prompt of its chat template than transformers: {rendered.different}; take a "
            "newer llama.cpp (QUANTPRESS_LLAMA_CPP), ask upstream, or leave gguf out of the model's formats"
        )
    return EnginesReport(strings=strings, template=rendered.lacking)
