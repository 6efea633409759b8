"""Makes transformers raise an error for a model that its files do not fill.

If a tensor that the model's class needs is in no file, transformers fills it with random numbers and only logs a
warning. Such a model would be quantized, measured and published.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from quantpress.errors import Refused
from quantpress.text import one_line

#: The number of tensors that a message names.
_NAMED = 3


@dataclass(frozen=True)
class Fit:
    """How the tensors of a model's files fit the model's class.

    ``missing`` are tensors that the class needs and no file has. ``unused`` are tensors of the files that the class has
    no place for. The class itself names some tensors that it ignores, and these are in neither list. ``wrong`` maps a
    tensor that cannot be put into the model to the reason.
    """

    model_class: str
    missing: list[str]
    unused: list[str]
    wrong: dict[str, str]

    def require_whole(self) -> None:
        """Raises :class:`Refused` if a tensor is missing or cannot be put into the model."""
        if self.wrong:
            name, reason = next(iter(self.wrong.items()))
            raise Refused(
                f"{self.model_class} cannot take {named([name, *list(self.wrong)[1:]])} from its files: {reason}; "
                "ask upstream, or pin a revision that loads"
            )
        if self.missing:
            beside = f", and have {named(self.unused)}, which it does not use" if self.unused else ""
            raise Refused(
                f"its files lack {named(self.missing)}, which {self.model_class} needs and would fill with random "
                f"numbers{beside}: ask upstream for the missing files, or pin a revision that is whole"
            )


def named(tensors: Collection[str]) -> str:
    """Returns the first names as text, and says how many more there are."""
    shown = ", ".join(one_line(name) for name in list(tensors)[:_NAMED])
    more = len(tensors) - _NAMED
    return f"{shown} (and {more} more)" if more > 0 else shown


@contextmanager
def strict_loading() -> Iterator[None]:
    """While the block runs, every load of transformers raises :class:`Refused` if the model's files do not fill it.

    This also holds for loads by libraries that call transformers, such as GPTQModel.
    """
    with _reporting_to(Fit.require_whole):
        yield


@contextmanager
def noting_fits() -> Iterator[list[Fit]]:
    """While the block runs, no load of transformers fails because of its tensors. The list gets a :class:`Fit` for each
    load."""
    fits: list[Fit] = []
    with _reporting_to(fits.append):
        yield fits


@contextmanager
def _reporting_to(receive: Callable[[Fit], None]) -> Iterator[None]:
    """Replaces the function that transformers calls at the end of each load, to log what did not fit.

    transformers gives the caller of ``from_pretrained`` no other access to the failed conversions
    (``log_state_dict_report`` of transformers 5.17, utils/loading_report.py).
    """
    from transformers import modeling_utils

    theirs = modeling_utils.log_state_dict_report

    def report(model: Any, *_: Any, loading_info: Any, **__: Any) -> None:
        receive(_fit(type(model).__name__, loading_info))

    modeling_utils.log_state_dict_report = report
    try:
        yield
    finally:
        modeling_utils.log_state_dict_report = theirs


def _fit(model_class: str, info: Any) -> Fit:
    wrong = {name: _reason(error) for name, error in sorted(info.conversion_errors.items())}
    for name, found, wanted in sorted(info.mismatched_keys):
        wrong[name] = f"its shape is {list(found)}, and the class needs {list(wanted)}"
    if info.error_msgs:
        wrong[model_class] = one_line(info.error_msgs[0])
    return Fit(model_class, sorted(info.missing_keys - wrong.keys()), sorted(info.unexpected_keys), wrong)


def _reason(error: str) -> str:
    """Returns the exception's own message. transformers puts it between a stack trace and a line that names the
    tensor."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return one_line(next((line for line in reversed(lines) if not line.startswith("Error: ")), "")).rstrip(".")
