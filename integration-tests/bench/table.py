"""From measured rows to a table: medians, ranges, ratios, and the bars that Strandline wants to reach."""

from dataclasses import dataclass
from statistics import median

GIB = 1 << 30
KAFKA, FLUSH, LOCAL, S3 = "Kafka, page cache", "Kafka, flush.messages=1", "Strandline, local directory", "Strandline, S3 model"
ARMS = (KAFKA, FLUSH, LOCAL, S3)


@dataclass
class Line:
    """One line of the table: how to get its number out of a measurement, and its bar."""

    title: str
    row: str
    value: object
    at_most: float | None = None  # bar on Strandline's own number
    ratio_at_most: float | None = None  # bar on Strandline / Kafka with the page cache
    ratio_at_least: float | None = None
    throughput: bool = False  # counts only where the broker and not the client uses most of the CPU


def cpu_per_gib(side):
    return lambda m: m[side] * GIB / m["bytes"]


def lines():
    """All lines, in the table's order."""
    yield Line("start to first acknowledged record, s", "start", lambda m: m["start_s"], ratio_at_most=0.1)
    yield Line("resident when idle, MiB", "idle", lambda m: m["rss"] / 2**20, at_most=30)
    yield Line("resident after load, MiB", "loaded", lambda m: m["rss"] / 2**20)
    yield Line("resident at most, MiB", "loaded", lambda m: m["peak"] / 2**20)
    yield Line("quiet, send to ack p50, ms", "trip", lambda m: m["ack"]["p50_ms"], at_most=5)
    yield Line("quiet, send to ack p99, ms", "trip", lambda m: m["ack"]["p99_ms"], at_most=15)
    yield Line("quiet, send to consumed p99, ms", "trip", lambda m: m["consumed"]["p99_ms"], at_most=20)
    for row, words in (("trip_create", "topics of 10,000 partitions are created"), ("trip_snapshot", "snapshots are written")):
        yield Line(f"ack p99 while {words}, ms", row, lambda m: m["during"]["p99_ms"])
        yield Line(f"ack p99 while {words} / calm", row, lambda m: m["during"]["p99_ms"] / m["calm"]["p99_ms"], at_most=1.2)
    elsewhere = "the same, while they are created on another broker of this machine / calm"
    yield Line(elsewhere, "trip_create", lambda m: m["elsewhere"]["p99_ms"] / m["calm"]["p99_ms"])
    for protocol in ("classic", "consumer"):
        row, what = f"group_{protocol}", f"300 members, 1,000 partitions, {protocol} protocol"
        for key, words in (
            ("mass_join_s", "all join"), ("one_leaves_s", "one leaves"), ("one_joins_s", "one joins"),
            ("rolling_restart_of_20_s", "20 restart one by one"),
        ):  # fmt: skip
            yield Line(f"{what}: {words}, s", row, lambda m, key=key: m[key], ratio_at_most=1.0)
    yield Line("500 consumers commit each 100 ms: commit p99, ms", "group_commit", lambda m: m["commit"]["p99_ms"], at_most=25)
    yield Line("500 consumers commit each 100 ms: journal appends/s", "group_commit", lambda m: m["appends_per_s"], at_most=100)
    yield Line("500 consumers commit each 100 ms: broker CPU-s", "group_commit", lambda m: m["broker_cpu_s"])
    for verb, clients in (("produce", "producers"), ("consume", "consumers")):
        for shape, words in (("big", "1 KiB records, 128 KiB batches"), ("small", "100 B records, 16 a batch")):
            for count in (1, 8):
                row, what = f"{verb}_{shape}_{count}", f"{verb}, {words}, {count} {clients[:-1] if count == 1 else clients}"
                yield Line(f"{what}: MB/s", row, lambda m: m["mb_per_s"], ratio_at_least=1.0, throughput=True)
                yield Line(f"{what}: broker CPU-s/GiB", row, cpu_per_gib("broker_cpu_s"), ratio_at_most=0.7)
                yield Line(f"{what}: client CPU-s/GiB", row, cpu_per_gib("client_cpu_s"))


def render(measurements):
    """The Markdown table, and the list of (bar, verdict)."""
    out = [
        "| | " + " | ".join(ARMS) + " | local / page cache | local / flush | bar | |",
        "|---|" + "---|" * (len(ARMS) + 4),
    ]
    verdicts = []
    for line in lines():
        of = {arm: [m for m in measurements if m["arm"] == arm and m["row"] == line.row] for arm in ARMS}
        if not any(of.values()):
            continue
        values = {arm: [line.value(m) for m in found] for arm, found in of.items()}
        bar, verdict = judge(line, of, values)
        if verdict:
            verdicts.append((f"{line.title}: {bar}", verdict))
        ratios = [show_ratio(ratio(values, LOCAL, base)) for base in (KAFKA, FLUSH)]
        cells = [cell(values[arm]) for arm in ARMS]
        out.append(f"| {line.title} | " + " | ".join([*cells, *ratios, bar, verdict]) + " |")
    return "\n".join(out), verdicts


def judge(line, of, values):
    """The bar in words, and whether Strandline on the local directory meets it."""
    own = median(values[LOCAL]) if values[LOCAL] else None
    against = ratio(values, LOCAL, KAFKA)
    if line.at_most is not None:
        return f"≤ {line.at_most:g}", verdict(own, own is not None and own <= line.at_most)
    if line.ratio_at_most is not None:
        return f"≤ {line.ratio_at_most:g} ×", verdict(against, against is not None and against <= line.ratio_at_most)
    if line.ratio_at_least is not None:
        bar = f"≥ {line.ratio_at_least:g} ×"
        if line.throughput and not all(broker_works_most(of[arm]) for arm in (KAFKA, LOCAL)):
            return bar, "" if against is None else "does not count: the client used more CPU"
        return bar, verdict(against, against is not None and against >= line.ratio_at_least)
    return "", ""


def verdict(number, met):
    return "" if number is None else "pass" if met else "**miss**"


def broker_works_most(found):
    return bool(found) and median(m["broker_cpu_s"] - m["client_cpu_s"] for m in found) > 0


def ratio(values, arm, base):
    if not values[arm] or not values[base] or not median(values[base]):
        return None
    return median(values[arm]) / median(values[base])


def cell(values):
    if not values:
        return ""
    return f"{show(median(values))} ({show(min(values))}–{show(max(values))})"


def show(number):
    """Three digits, or what stands before the point."""
    digits = 0 if number >= 100 else 1 if number >= 10 else 2 if number >= 1 else 3
    return f"{number:.{digits}f}"


def show_ratio(number):
    return "" if number is None else f"{show(number)} ×"
