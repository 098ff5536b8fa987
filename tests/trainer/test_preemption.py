import os
import signal
import threading

from trainer.preemption import StopRequest, stop_on_sigterm


def test_a_sigterm_makes_the_request_and_the_next_one_is_not_caught() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_sigterm(None) as request:
        assert not request.is_made
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.is_made
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_request_that_is_given_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    given = StopRequest()
    with stop_on_sigterm(given) as request:
        assert request is given
        assert signal.getsignal(signal.SIGTERM) == before
        given.make()
        assert request.is_made


def test_a_thread_that_gets_no_signals_trains_without() -> None:
    made: list[bool] = []

    def work() -> None:
        with stop_on_sigterm(None) as request:
            made.append(request.is_made)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert made == [False]
