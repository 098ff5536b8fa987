"""A result exists once per process, also if threads ask for it at the same time."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from common.once import once


def test_threads_that_ask_at_the_same_time_get_the_same_object() -> None:
    start = threading.Barrier(8)

    @once
    def make(name: str) -> list[str]:
        time.sleep(0.05)  # with functools.cache, all threads would be in here
        return [name]

    def ask(_: int) -> list[str]:
        start.wait(10)
        return make("a")

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(ask, range(8)))
    assert all(result is results[0] for result in results)
    assert make("b") == ["b"]
    assert make("a") is results[0]
