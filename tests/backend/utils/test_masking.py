import time

import orjson
import pytest

from backend.utils.masking import MASK, mask, mask_json, may_hold_secrets

KEY = "sk-" + "a1B2" * 10
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLXNpZw"


@pytest.mark.parametrize("secret", [KEY, JWT, "Bearer " + "x" * 20, "bearer abcdefgh.ijklmnop==", "BEARER " + "x" * 20])
@pytest.mark.parametrize("around", ["{}", "key={};", '"{}"', "\n{}\n", "a {} b {} c"])
def test_a_secret_is_masked_wherever_it_stands(secret: str, around: str) -> None:
    text = around.format(secret, secret)
    assert may_hold_secrets(orjson.dumps(text))
    masked = mask(text)
    assert secret.split()[-1] not in masked
    assert masked == around.format(*[" ".join([*secret.split()[:-1], MASK])] * 2)


@pytest.mark.parametrize(
    "text",
    ["risk-management-for-everyone", "sk-short", "eyJ.eyJ.eyJ", "Bearer of bad news", "desk- eyJ earer", "", "é"],
)
def test_plain_words_are_left_as_they_are(text: str) -> None:
    assert mask(text) == text


def test_masking_takes_time_in_proportion_to_the_text_even_when_it_is_made_to_be_slow() -> None:
    for hostile in (
        "sk-",
        "eyJ",
        "eyJ.",
        "eyJaaaaaaaa.",
        "earer ",
        "Bearer a",
        "-sk-aaaaaaaaaaaaaaaaaaaa ",
        "eyJ" + "a" * 50,
    ):
        start = time.perf_counter()
        mask(hostile * (1_000_000 // len(hostile)))
        assert time.perf_counter() - start < 10


def test_a_json_value_is_masked_in_all_its_depth() -> None:
    assert mask_json({"a": [{KEY: f"x {KEY}"}, 1, None, True]}) == {"a": [{MASK: f"x {MASK}"}, 1, None, True]}
