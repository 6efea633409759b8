"""A stage as a Prefect task. The task is named after what it works on, and fails with one line."""

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
    """A stage did not succeed. The text is that of the error."""


def stage(run_name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Returns a decorator that turns a function into a stage.

    ``run_name`` may use the function's parameters: ``{plan.format}: publish``. An expected error
    (:class:`QuantpressError`) becomes a failed task run with the error's message and no stack trace. In the flow it is
    raised as :class:`StageFailed`. Fingerprints decide what is reused, not Prefect.
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
