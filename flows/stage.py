"""A stage as a Prefect task: named after what it works on, failing with one line."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar, cast

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Failed

from quantpress.errors import QuantpressError

P = ParamSpec("P")
R = TypeVar("R")


class StageFailed(QuantpressError):
    """A stage did not succeed; the text is the error's."""


def stage(run_name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes a stage of a function. ``run_name`` may use its parameters: ``{plan.format}: publish``.

    An expected error (:class:`QuantpressError`) becomes a failed task run with that message and no stack
    trace, and is raised in the flow as :class:`StageFailed`. Reuse comes from fingerprints, not from Prefect.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R | State[R]:
            try:
                return function(*args, **kwargs)
            except QuantpressError as error:
                return Failed(message=str(error))

        runner = task(name=function.__name__, task_run_name=run_name, cache_policy=NO_CACHE, persist_result=False)(
            guarded
        )

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            state = cast("State[R]", runner(*args, return_state=True, **kwargs))
            if state.is_completed():
                return state.result()
            raise StageFailed(state.message or f"{function.__name__} ended as {state.name}")

        return call

    return decorate
