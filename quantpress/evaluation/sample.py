"""The smoke test of generation: what a model writes when it continues a prompt, and whether that is text."""

from __future__ import annotations

#: Broken off within a sentence, so that every language model has something to go on with.
PROMPT = "Once upon a time, in a small village by the sea, there lived"
#: Enough to see whether a model speaks.
TOKENS = 16
#: A healthy model may repeat a word two or three times; all of the sample's words being one is no text.
_FEWEST_WORDS = 4


def speaks(sample: str | None) -> bool:
    """Whether a sample is more than nothing, one character or one word over and over; so is one that was not taken.

    It is a test for ruined weights, not for quality: whatever holds two different words passes.
    """
    if sample is None:
        return True
    characters = set("".join(sample.split()))
    words = sample.split()
    return len(characters) > 1 and not (len(words) >= _FEWEST_WORDS and len(set(words)) == 1)
