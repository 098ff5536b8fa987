"""Results that exist once per process, also if several threads ask for them at the same time."""

import threading
from collections.abc import Callable, Hashable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def once(function: Callable[P, R]) -> Callable[P, R]:
    """Caches the results of a function with hashable arguments.

    `functools.cache` calls the function once per thread if threads call it at the same time for the first time: each
    gets another object, such as another lock.
    """
    results: dict[tuple[Hashable, ...], R] = {}
    lock = threading.RLock()

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        key = (*args, *sorted(kwargs.items()))
        if key not in results:
            with lock:
                if key not in results:
                    results[key] = function(*args, **kwargs)
        return results[key]

    return call
