"""Reads the small files that say how a model's tokenizer and chat work. The card and Ollama's files need them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from quantpress.foreign_json import LARGEST, Foreign, read_object, validated

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
GENERATION_FILE = "generation_config.json"
TEMPLATE_FILE = "chat_template.json"
JINJA_FILE = "chat_template.jinja"
#: The largest size of a tokenizer.json, in bytes. Gemma 3's has 33 MB.
_LARGEST_TOKENIZER = 200_000_000

#: A token's number. GGUF stores it in 32 bits. Some files write -1 for no token.
TokenId = Annotated[int, Field(ge=-1, lt=1 << 32)]
Read = TypeVar("Read", bound=Foreign)


class Token(Foreign):
    """A token that is described by an object. ``content`` is its text."""

    id: TokenId | None = None
    content: str = ""


class NamedTemplate(Foreign):
    """One of several chat templates."""

    name: str
    template: str


class ChatTemplateFile(Foreign):
    """The typed part of chat_template.json."""

    chat_template: str | list[NamedTemplate] | dict[str, str] | None = None

    @property
    def template(self) -> str | None:
        """The chat template that transformers takes, or None if there is none. Of several, it is the one that is named
        ``default``."""
        match self.chat_template:
            case list():
                return next((each.template for each in self.chat_template if each.name == "default"), None)
            case dict():
                return self.chat_template.get("default")
        return self.chat_template

    @property
    def template_length(self) -> int:
        """The length of all chat templates together, in characters."""
        match self.chat_template:
            case str():
                return len(self.chat_template)
            case list():
                return sum(len(each.template) for each in self.chat_template)
            case dict():
                return sum(len(each) for each in self.chat_template.values())
        return 0


class TokenizerConfig(ChatTemplateFile):
    """The typed part of tokenizer_config.json."""

    bos_token: str | Token | None = None
    eos_token: str | Token | None = None
    add_bos_token: bool | None = None


class GenerationConfig(Foreign):
    """The typed part of generation_config.json. ``eos_token_id`` are the tokens that end a reply."""

    eos_token_id: TokenId | list[TokenId] | None = None

    @property
    def eos_token_ids(self) -> list[int]:
        """The numbers of the tokens that end a reply."""
        ids = self.eos_token_id
        return ids if isinstance(ids, list) else [] if ids is None else [ids]


class Vocabulary(Foreign):
    """The part of tokenizer.json that holds the tokens: their numbers by their texts, or a list of them in order."""

    vocab: dict[str, TokenId] | list[Any] = []

    @property
    def size(self) -> int:
        """The number of tokens, if there is none between them that is missing: the largest number, plus one."""
        numbers = self.vocab.values() if isinstance(self.vocab, dict) else range(len(self.vocab))
        return max(numbers, default=-1) + 1


class Tokenizer(Foreign):
    """The typed part of tokenizer.json. ``post_processor`` adds special tokens to a text."""

    added_tokens: list[Token] | None = None
    post_processor: dict[str, Any] | None = None
    model: Vocabulary | None = None

    @property
    def size(self) -> int:
        """The number of tokens, with the added ones: the largest number, plus one."""
        added = [token.id for token in self.added_tokens or [] if token.id is not None]
        return max(self.model.size if self.model else 0, max(added, default=-1) + 1)


#: The files and their types.
FILES: dict[str, type[Foreign]] = {
    TOKENIZER_CONFIG_FILE: TokenizerConfig,
    GENERATION_FILE: GenerationConfig,
    TEMPLATE_FILE: ChatTemplateFile,
    TOKENIZER_FILE: Tokenizer,
}


def token_text(token: str | Token | None) -> str:
    """Returns the text of a token of tokenizer_config.json, or "" if there is none."""
    return token.content if isinstance(token, Token) else token or ""


def tokenizer_config(folder: Path) -> TokenizerConfig:
    """Returns the tokenizer_config.json of a downloaded source. It is empty if the file is missing."""
    return _read(folder / TOKENIZER_CONFIG_FILE, TokenizerConfig)


def generation_config(folder: Path) -> GenerationConfig:
    """Returns the generation_config.json of a downloaded source. It is empty if the file is missing."""
    return _read(folder / GENERATION_FILE, GenerationConfig)


def chat_template_file(folder: Path) -> ChatTemplateFile:
    """Returns the chat_template.json of a downloaded source. It is empty if the file is missing."""
    return _read(folder / TEMPLATE_FILE, ChatTemplateFile)


def tokenizer(folder: Path) -> Tokenizer:
    """Returns the tokenizer.json of a downloaded source. It is empty if the file is missing."""
    return _read(folder / TOKENIZER_FILE, Tokenizer, _LARGEST_TOKENIZER)


def check_tokenizer_files(folder: Path) -> None:
    """Reads all these files of a downloaded source. Raises :class:`~quantpress.errors.Refused` if a file is not what
    its type says."""
    for read in (tokenizer_config, generation_config, chat_template_file, tokenizer):
        read(folder)


def _read(file: Path, model: type[Read], largest: int = LARGEST) -> Read:
    """Returns the typed part of a file. If the file is missing, returns the part that is empty.

    Raises :class:`~quantpress.errors.Refused` if the file is not JSON, or a value has a wrong type.
    """
    return validated(model, read_object(file, largest) if file.exists() else {}, file.name)
