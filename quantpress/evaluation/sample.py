"""The smoke test of generation: what a model writes when it continues a prompt, and whether that is text."""

from __future__ import annotations

#: It breaks off within a sentence, so that every language model can go on.
PROMPT = "Once upon a time, in a small village by the sea, there lived"
#: Tokens to generate: enough to see whether a model writes text.
TOKENS = 16
#: A healthy model may repeat a word two or three times. From this number on, a sample of one repeated word is no text.
_FEWEST_WORDS = 4


def speaks(sample: str | None) -> bool:
    """Whether a sample is text: neither empty, nor one character or one word over and over.

    True also if no sample was taken (None). This tests for ruined weights, not for quality: two different words pass.
    """
    if sample is None:
        return True
    characters = set("".join(sample.split()))
    words = sample.split()
    return len(characters) > 1 and not (len(words) >= _FEWEST_WORDS and len(set(words)) == 1)
