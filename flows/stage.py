"""Runs a stage of quantpress as a Prefect task. The task's name says what the task works on. If the task fails, Prefect
shows the error's message."""

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
    """Raised in the flow if a stage failed. The message is the message of the stage's error."""


def stage(run_name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Returns a decorator that makes a function run as a Prefect task.

    ``run_name`` is the name of the task run. It can use the function's parameters, for example ``{plan.format}:
    publish``. If the function raises an expected error (:class:`QuantpressError`), the task run fails with the error's
    message and no stack trace, and the flow gets a :class:`StageFailed`. Prefect's cache is off, because the stages
    themselves find by fingerprint what an earlier run made.
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
