"""The way to a message, through a conversation that has branches."""

from backend.core.storage.spans import extend, length


def test_what_follows_at_once_makes_the_last_range_longer() -> None:
    assert extend(extend((), 1, 2), 3, 4) == ((1, 4),)


def test_a_branch_leaves_out_what_was_said_after_its_beginning() -> None:
    branch = extend(((1, 2),), 5, 6)
    assert branch == ((1, 2), (5, 6))
    assert length(branch) == 4
