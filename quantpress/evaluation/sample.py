"""The smoke test of generation. A model continues a prompt, and :func:`speaks` says whether the result is text."""

from __future__ import annotations

#: The prompt stops in the middle of a sentence, so that every language model can continue.
PROMPT = "Once upon a time, in a small village by the sea, there lived"
#: The number of tokens to generate. It is enough to see whether a model writes text.
TOKENS = 16
#: If a sample consists of one word that occurs this many times or more, the sample is not text. A healthy model can
#: write a word two or three times.
_FEWEST_WORDS = 4


def speaks(sample: str | None) -> bool:
    """Whether a sample is text. An empty sample, or one that repeats a single character or word, is not text.

    If no sample was taken (None), the result is True. The test finds ruined weights and does not judge quality. Two
    different words pass.
    """
    if sample is None:
        return True
    characters = set("".join(sample.split()))
    words = sample.split()
    return len(characters) > 1 and not (len(words) >= _FEWEST_WORDS and len(set(words)) == 1)
