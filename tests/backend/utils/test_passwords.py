import asyncio
import threading
import time
from collections.abc import Iterator
from statistics import median

import pytest

from backend.core.errors import Unavailable, Unprocessable
from backend.utils import passwords as module
from backend.utils.passwords import Passwords, check_password


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    opened = Passwords(4)
    yield opened
    opened.close()


async def test_a_password_matches_its_own_hash_only(passwords: Passwords) -> None:
    password_hash = await passwords.hash("correct horse")
    assert "correct horse" not in password_hash
    assert await passwords.verify("correct horse", password_hash)
    assert not await passwords.verify("correct horsf", password_hash)


async def test_the_same_password_is_hashed_differently_each_time(passwords: Passwords) -> None:
    assert await passwords.hash("same") != await passwords.hash("same")


@pytest.mark.parametrize("password", ["x", "x" * 72, "é" * 36, "🔑" * 18, " ", "a b\tc"])
async def test_a_password_of_1_to_72_bytes_is_kept_whole(passwords: Passwords, password: str) -> None:
    password_hash = await passwords.hash(password)
    assert await passwords.verify(password, password_hash)
    assert not await passwords.verify(password[:-1] + "~", password_hash)


@pytest.mark.parametrize(
    ("password", "said"),
    [
        ("", "empty"),
        ("x" * 73, "73 bytes"),
        ("🔑" * 18 + "x", "73 bytes"),
        ("é" * 37, "74 bytes"),
        ("a\0b", "NUL"),
        ("\ud800", "Unicode"),
    ],
)
async def test_a_password_that_bcrypt_would_cut_is_refused_before_hashing(
    passwords: Passwords, password: str, said: str
) -> None:
    with pytest.raises(Unprocessable, match=said) as refused:
        await passwords.hash(password)
    assert refused.value.param == "password"
    with pytest.raises(Unprocessable, match=said):
        check_password(password)


@pytest.mark.parametrize("password", ["", "x" * 73, "x" * 100_000, "a\0b", "\ud800"])
async def test_a_password_that_breaks_the_rules_is_wrong_and_no_error_at_sign_in(
    passwords: Passwords, password: str
) -> None:
    assert not await passwords.verify(password, await passwords.hash("x" * 72))
    assert not await passwords.verify(password, None)


async def test_nobody_has_every_password(passwords: Passwords) -> None:
    assert not await passwords.verify("-", None)


@pytest.mark.parametrize("damaged", ["", "rubbish", "$2b$04$short", "$2b$99$" + "." * 53])
async def test_a_damaged_hash_lets_nobody_in(passwords: Passwords, damaged: str) -> None:
    assert not await passwords.verify("anything", damaged)


async def test_unknown_names_cost_the_same_time() -> None:
    passwords = Passwords(8)
    password_hash = await passwords.hash("right")
    times: dict[str, list[float]] = {"wrong": [], "unknown": [], "too long": []}
    for _ in range(9):
        for case, (password, known) in {
            "wrong": ("wrong", password_hash),
            "unknown": ("wrong", None),
            "too long": ("x" * 99, password_hash),
        }.items():
            started = time.perf_counter()
            await passwords.verify(password, known)
            times[case].append(time.perf_counter() - started)
    passwords.close()
    medians = [median(each) for each in times.values()]
    assert max(medians) / min(medians) < 1.5


async def test_a_hash_of_another_cost_is_due_for_a_new_one(passwords: Passwords) -> None:
    dearer = Passwords(5)
    password_hash = await passwords.hash("x")
    assert not passwords.needs_rehash(password_hash)
    assert dearer.needs_rehash(password_hash)
    dearer.close()


async def test_hashing_runs_in_two_threads_and_never_on_the_loop(passwords: Passwords) -> None:
    names: set[str] = set()

    def note() -> None:
        names.add(threading.current_thread().name)
        time.sleep(0.02)

    await asyncio.gather(*(passwords._run(note) for _ in range(8)))
    assert len(names) == 2
    assert all(name.startswith("bcrypt") for name in names)


async def test_too_many_at_once_are_told_to_come_back_and_places_become_free(passwords: Passwords) -> None:
    release = threading.Event()
    places = module.THREADS + module.MAX_WAITING
    waiting = [asyncio.create_task(passwords._run(release.wait)) for _ in range(places)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as refused:
        await passwords.verify("x", None)
    assert refused.value.retry_after_s
    for task in waiting[5:]:
        task.cancel()  # callers that went away give their place back
    release.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert not await passwords.verify("x", None)
    assert passwords._places._value == places


async def test_a_wait_has_a_deadline(passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_TIMEOUT_S", 0.05)
    release = threading.Event()
    blocked = [asyncio.create_task(passwords._run(release.wait)) for _ in range(module.THREADS)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await passwords.hash("x")
    release.set()
    await asyncio.gather(*blocked, return_exceptions=True)
