"""From samples to a table: what each gateway did, how it compares with LiteLLM, and what was aimed at."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from tests.benchmarks.gateway import wire
from tests.benchmarks.gateway.load import Load, Sample

DIRECT, PEER, OURS = "direct", "litellm", "ours"

C1 = Load("1 connection, whole answers", wire.REPLY, 1)
C16 = Load("16 connections, whole answers", wire.REPLY, 16)
C64 = Load("64 connections, whole answers", wire.REPLY, 64)
STREAM = Load(f"1 stream of {wire.TOKENS} tokens in a burst", wire.BURST, 1)
BURSTS = Load(f"64 streams of {wire.TOKENS} tokens in bursts", wire.BURST, 64)
SPREAD = Load("64 streams, a token each 10 ms, started over a second", wire.PACED, 64, spread_s=1.0)
TOGETHER = Load("64 streams, a token each 10 ms, started at once", wire.PACED, 64)
LOADS = (C1, C16, C64, STREAM, BURSTS, SPREAD, TOGETHER)

Samples = Mapping[tuple[str, Load], Sequence[Sample]]


@dataclass(frozen=True)
class Row:
    """One figure of a load. An added one is the gateway's less the direct one of the same round."""

    load: Load
    label: str
    figure: Callable[[Sample], float]
    digits: int = 0
    added: bool = False
    more_is_better: bool = False
    at_least_times_peer: float | None = None
    under: float | None = None

    def value(self, samples: Samples, gateway: str) -> float:
        """The median over the rounds that gave one; of the direct run always the plain figure."""
        figures = [self._figure(sample) for sample in samples[gateway, self.load]]
        if self.added and gateway != DIRECT:
            direct = (self._figure(sample) for sample in samples[DIRECT, self.load])
            figures = [figure - base for figure, base in zip(figures, direct, strict=True)]
        figures = [figure for figure in figures if not math.isnan(figure)]
        return median(figures) if figures else math.nan

    def _figure(self, sample: Sample) -> float:
        return self.figure(sample) if sample.latencies_s else math.nan

    def times_better(self, value: float, peer: float) -> float:
        better, worse = (value, peer) if self.more_is_better else (peer, value)
        return better / worse if worse > 0 else math.nan

    def aim(self, value: float, times: float) -> str:
        if self.at_least_times_peer is not None:
            words, met, known = f"{self.at_least_times_peer:g}x", times >= self.at_least_times_peer, times
        elif self.under is not None:
            words, met, known = f"under {self.under:g}", value < self.under, value
        else:
            return ""
        return words if math.isnan(known) else f"{words}: {'met' if met else 'MISSED'}"


def _latency_ms(percent: int) -> Callable[[Sample], float]:
    return lambda sample: _percentile(sample.latencies_s, percent) * 1e3


def _first_token_ms(percent: int) -> Callable[[Sample], float]:
    return lambda sample: _percentile(sample.first_tokens_s, percent) * 1e3


def _percentile(values: list[float], percent: int) -> float:
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def _per_s(units: int) -> Callable[[Sample], float]:
    return lambda sample: len(sample.latencies_s) * units / sample.elapsed_s


def _cpu_us(sample: Sample) -> float:
    return sample.cpu_s / len(sample.latencies_s) * 1e6


def _rows() -> Iterator[Row]:
    for load in (C1, C16, C64):
        aim, limit = (20 if load is C64 else None), (0.9 if load is C1 else None)
        yield Row(load, "requests/s", _per_s(1), more_is_better=True, at_least_times_peer=aim)
        yield Row(load, "added p50, ms", _latency_ms(50), 2, added=True, under=limit)
        yield Row(load, "added p99, ms", _latency_ms(99), 2, added=True)
        yield Row(load, "CPU us/request", _cpu_us)
    yield Row(STREAM, "added time to first token p50, ms", _first_token_ms(50), 2, added=True)
    yield Row(STREAM, "added time to first token p99, ms", _first_token_ms(99), 2, added=True)
    yield Row(BURSTS, "chunks/s", _per_s(wire.TOKENS), more_is_better=True, at_least_times_peer=60)
    yield Row(BURSTS, "added time to first token p50, ms", _first_token_ms(50), 2, added=True)
    yield Row(BURSTS, "CPU us/stream", _cpu_us)
    for load in (SPREAD, TOGETHER):
        yield Row(load, "added time to first token p50, ms", _first_token_ms(50), 2, added=True, under=10)
        yield Row(load, "added time to first token p99, ms", _first_token_ms(99), 2, added=True)
        yield Row(load, "duration of a stream p50, ms", _latency_ms(50))
        yield Row(load, "CPU us/stream", _cpu_us)
    yield Row(TOGETHER, "resident memory after it, MiB", lambda sample: sample.resident_mib, under=100)


def table(samples: Samples, gateways: Sequence[str]) -> str:
    """The whole report. Each gateway is a column; `(…)` is the direct figure that the added ones are added to, and
    `12x` how many times better than the peer a figure is.
    """
    lines = [_line("", [(name, "") for name in gateways], "aim")]
    load = None
    for row in _rows():
        if (DIRECT, row.load) not in samples:
            continue
        if row.load is not load:
            load = row.load
            lines.append(load.name)
        lines.append(_row_line(row, samples, gateways))
    lines.append("")
    for name in gateways:
        lines += _remarks(name, [(load, s) for (owner, load), many in samples.items() if owner == name for s in many])
    return "\n".join(lines)


def _row_line(row: Row, samples: Samples, gateways: Sequence[str]) -> str:
    values = {name: row.value(samples, name) for name in gateways}
    times = {name: row.times_better(values[name], values.get(PEER, math.nan)) for name in gateways}
    cells = []
    for name in gateways:
        number = "-" if math.isnan(values[name]) else f"{values[name]:,.{row.digits}f}"
        shown = not math.isnan(times[name]) and name not in (DIRECT, PEER)
        cells.append(
            (
                f"({number})" if name == DIRECT and row.added else number,
                f"{times[name]:,.{0 if times[name] >= 10 else 1}f}x" if shown else "",
            )
        )
    return _line(f"  {row.label}", cells, row.aim(values.get(OURS, math.nan), times.get(OURS, math.nan)))


def _line(label: str, cells: Sequence[tuple[str, str]], aim: str) -> str:
    return f"{label:<36}{''.join(f'{number:>12}{times:>7}' for number, times in cells)}   {aim}".rstrip()


def _remarks(name: str, runs: Sequence[tuple[Load, Sample]]) -> Iterator[str]:
    """How many answers were whole, what the others lacked, and whether the chunks counted are those of the wire."""
    errors = Counter[str]()
    for load, sample in runs:
        errors.update({f"{load.name}: {reason}": number for reason, number in sample.errors.items()})
    answers = sum(len(sample.latencies_s) for _, sample in runs)
    yield f"{name}: {answers:,} whole answers, {errors.total()} errors"
    for reason, number in errors.most_common(5):
        yield f"    {number} x {reason}"
    bursts = [sample for load, sample in runs if load is BURSTS]
    streams, events = sum(len(sample.latencies_s) for sample in bursts), sum(sample.events for sample in bursts)
    if events < streams * wire.TOKENS:
        yield f"    {events / streams:.0f} events carry the {wire.TOKENS} tokens of a burst"
