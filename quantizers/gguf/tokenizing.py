"""Compares the tokenizers of llama.cpp and of transformers before a source is converted.

Both tokenize the texts of the run, and strings that are hard for tokenizers. If llama.cpp aborts, or gives other ids
for a text of the run, no GGUF variant can be made or measured. If it gives other ids for a hard string, the cards say
so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantpress.errors import ChildFailed, Refused
from quantpress.evaluation.engines.llama_cpp_tokens import FEWEST_TOKENS, tokens_of
from quantpress.evaluation.engines.transformers import added_bos, load_tokenizer
from quantpress.toolchain.llama_cpp import LlamaCpp

#: Strings on which tokenizers differ, by what they hold. The public reports of wrong tokenizers are about these.
HARD = {
    "numbers": "3.14159 1,000,000 0x1F 2026-11-30 12345678901234567890 ½ ²³",
    "contractions": "I'm you're WE'LL she'd don't o'clock 'tis isn\u2019t",
    "spaces and line breaks": "a  b   c    d\n\n\n  e \t\tf \r\n g\u00a0h\u3000i \n",
    "code": "def f(x):\n    if x!=0:\n\t\treturn {'a': [1, 2]}  # ok\n#include <stdio.h>\n",
    "capitals": "HELLO helloWorld XMLHttpRequest iPhone MacBook camelCase_snake_CASE",
    "punctuation": "?!... ---*** (a)[b]{c} <|> @#$%^&~` «»„“”—…",
    "Chinese, Japanese and Korean": "你好\uff0c世界。 東京タワーへ行きました\uff01 안녕하세요 세계",
    "other scripts": "Привет мир שלום עולם مرحبا بالعالم नमस्ते दुनिया สวัสดีชาวโลก Καλημέρα",
    "combining marks": "e\u0301 n\u0303 a\u0308\u0323 क\u094dष",
    "emoji": "😀🏽 👩‍👩‍👧‍👦 🇩🇪 ❤️",
    "rare characters": "\U0001f700\U00013000\U0001d11e\u2603\ufffd\u0f3a",
    "invisible characters": "a\u200bb\u200dc\ufeffd\u00ade\u2028f",
    "special tokens written out": "<s> </s> <|im_start|> <|endoftext|> [INST] <unk> <pad> <0x41>",
}
_FILLER = "\n\n" + "one two three four five six seven eight nine ten " * (FEWEST_TOKENS // 5)
_REMEDY = "take a newer llama.cpp (QUANTPRESS_LLAMA_CPP), ask upstream, or leave gguf out of the model's formats"


@dataclass(frozen=True)
class _Both:
    """The two tokenizers of a source. ``stand_in`` is a GGUF file with llama.cpp's (quantizers.gguf.stand_in)."""

    tools: LlamaCpp
    tokenizer: Any
    stand_in: Path
    scratch: Path

    def difference(self, text: str) -> str | None:
        """Returns where the token ids of a text differ, or None if they are equal. Raises :class:`ChildFailed` if
        llama.cpp aborts."""
        file = self.scratch / "text.txt"
        file.write_text(text + _FILLER, encoding="utf-8", newline="")
        theirs = tokens_of(self.tools, self.stand_in, file)
        ours = self._tokens(text + _FILLER)[: len(theirs)]
        if ours == theirs:
            return None
        place = next((at for at, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), len(ours))
        around = self.tokenizer.decode(ours[max(0, place - 2) : place + 4])
        return f"at token {place + 1}, in {around!r}"

    def _tokens(self, text: str) -> list[int]:
        bos = added_bos(self.tokenizer)
        plain = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        return list(plain) if bos is None else [bos, *plain]


def compare_tokenizers(tools: LlamaCpp, source: Path, stand_in: Path, texts: Mapping[str, Path]) -> list[str]:
    """Returns the names of the hard strings that the two tokenizers give other ids for. ``texts`` are the run's texts,
    by name.

    Raises :class:`Refused`, with the name of the text, if the ids of one of the texts differ or if llama.cpp aborts.
    """
    with tempfile.TemporaryDirectory() as scratch:
        both = _Both(tools, load_tokenizer(source), stand_in, Path(scratch))
        different = _different_strings(both)
        for name, path in texts.items():
            if place := _difference(both, name, path.read_text(encoding="utf-8")):
                raise Refused(
                    f"llama.cpp and transformers give other token ids for {name}, first {place}, so its tokenizer "
                    f"was not converted rightly: {_REMEDY}"
                )
    return different


def _different_strings(both: _Both) -> list[str]:
    """Returns the names of the hard strings with other ids. Looks at each alone only if all together show something,
    because every look starts llama-perplexity."""
    try:
        if both.difference("\n\n".join(HARD.values())) is None:
            return []
    except ChildFailed as failure:
        print(f"llama.cpp aborts on one of the hard strings: {failure}")
    return [name for name, text in HARD.items() if _difference(both, name, text)]


def _difference(both: _Both, name: str, text: str) -> str | None:
    try:
        return both.difference(text)
    except ChildFailed as failure:
        why = failure.cause or str(failure).splitlines()[0]
        raise Refused(f"llama.cpp cannot use its tokenizer: it aborts on {name} ({why}): {_REMEDY}") from None
