"""Which messages of a conversation lead to one of them.

Mostly all that stand before it. But a conversation may go on from an older answer, and then what was said after that
answer is no part of the new branch, although it stands in the same file. So the way to a message is kept as the ranges
of the numbers of the messages on it: ascending, and joined where they touch.
"""

Spans = tuple[tuple[int, int], ...]  # the first and the last number of each range


def extend(spans: Spans, first: int, last: int) -> Spans:
    """The way that goes on with these messages."""
    if spans and spans[-1][1] == first - 1:
        return (*spans[:-1], (spans[-1][0], last))
    return (*spans, (first, last))


def length(spans: Spans) -> int:
    """How many messages are on the way."""
    return sum(last - first + 1 for first, last in spans)
