import errno

import pytest
from aiohttp import ConnectionTimeoutError

from backend.core.errors import BackendUnavailable
from backend.core.llm.breaker import CircuitBreaker, is_unreachable, reason_of


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(5.0, clock=clock)


def test_a_new_breaker_lets_everything_through(breaker: CircuitBreaker) -> None:
    assert all(breaker.admit(object()) for _ in range(3))
    assert breaker.state == "closed"


def test_one_failed_connection_opens_it(breaker: CircuitBreaker) -> None:
    breaker.fail(unreachable=True)
    assert not breaker.admit(object())
    assert breaker.state == "open"


def test_two_failures_in_a_row_open_it_and_one_does_not(breaker: CircuitBreaker) -> None:
    breaker.fail(unreachable=False)
    assert breaker.admit(object())
    breaker.fail(unreachable=False)
    assert not breaker.admit(object())


def test_a_success_in_between_forgets_the_failure(breaker: CircuitBreaker) -> None:
    breaker.fail(unreachable=False)
    breaker.succeed()
    breaker.fail(unreachable=False)
    assert breaker.admit(object())


def test_one_trial_at_a_time_is_let_through_when_the_time_is_over(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.fail(unreachable=True)
    clock.now += 4.9
    assert not breaker.admit(object())
    clock.now += 0.1
    assert breaker.admit(object())
    assert not breaker.admit(object())
    assert breaker.state == "half_open"


def test_a_trial_that_succeeds_closes_it(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.fail(unreachable=True)
    clock.now += 5
    breaker.admit(object())
    breaker.succeed()
    assert breaker.state == "closed"
    assert all(breaker.admit(object()) for _ in range(3))


def test_a_trial_that_fails_opens_it_for_the_whole_time_again(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.fail(unreachable=True)
    clock.now += 5
    breaker.admit(object())
    breaker.fail(unreachable=False)
    clock.now += 4.9
    assert not breaker.admit(object())
    clock.now += 0.1
    assert breaker.admit(object())


def test_a_trial_whose_client_left_makes_room_for_another(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.fail(unreachable=True)
    clock.now += 5
    trial, other = object(), object()
    breaker.admit(trial)
    breaker.release(other)  # was never let through
    assert not breaker.admit(other)
    breaker.release(trial)
    assert breaker.admit(other)


def test_a_probe_ends_an_outage(breaker: CircuitBreaker) -> None:
    breaker.fail(unreachable=True)
    breaker.note_reachable()
    assert breaker.state == "closed"


def test_a_probe_does_not_end_a_series_of_failed_calls(breaker: CircuitBreaker) -> None:
    breaker.fail(unreachable=False)
    breaker.fail(unreachable=False)
    breaker.note_reachable()
    assert breaker.state == "open"


def test_failed_calls_after_an_outage_are_not_ended_by_a_probe(breaker: CircuitBreaker) -> None:
    breaker.fail(unreachable=True)
    breaker.note_reachable()
    breaker.fail(unreachable=False)
    breaker.note_reachable()
    breaker.fail(unreachable=False)
    assert breaker.state == "open"


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "no"), "refused"),
        (OSError(errno.EHOSTUNREACH, "no route to 10.1.2.3"), "unreachable"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "unreachable"),
        (ConnectionTimeoutError(), "unreachable"),
        (TimeoutError(), "timeout"),
        (ValueError("rubbish"), "failed"),
        (None, "failed"),
    ],
)
def test_a_failure_is_named_after_its_cause(cause: Exception | None, reason: str) -> None:
    error = BackendUnavailable("It failed.")
    error.__cause__ = cause
    assert reason_of(error) == reason


def test_only_a_missing_connection_counts_as_unreachable() -> None:
    assert [is_unreachable(r) for r in ("refused", "unreachable", "timeout", "failed")] == [True, True, False, False]


def test_a_bare_timeout_is_named_as_well() -> None:
    assert reason_of(TimeoutError()) == "timeout"
