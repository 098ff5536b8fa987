"""Results that are computed once per process, even if several threads request them at the same time."""

import threading
from collections.abc import Callable, Hashable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def once(function: Callable[P, R]) -> Callable[P, R]:
    """Caches the results of a function with hashable arguments.

    All threads get the same object. With `functools.cache`, threads that make the first call at the same time could
    each get a different object, such as a different lock.
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
