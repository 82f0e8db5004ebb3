#!/usr/bin/env python3
"""Computes the tables of docs/explanation/scaling.md from the costs in its first tables.

    python3 docs/explanation/scaling/model.py            prints the tables
    python3 docs/explanation/scaling/model.py --write    writes them to the page
    python3 docs/explanation/scaling/model.py --check    fails if the page differs

Every run gives the same result, because random numbers come from a seed.
"""

import math
import pathlib
import random
import re
import sys

PAGE = pathlib.Path(__file__).parent.parent / "scaling.md"
BEGIN = "<!-- tables: written by docs/explanation/scaling/model.py -->\n"
END = "<!-- end of tables -->\n"

# The share of a machine's cores that may be busy.
BUSY = 0.6
# The most streams of a server (RIDEWIRE_MAX_STREAMS).
MAX_STREAMS = 100_000
# Seconds between two fallback polls: the default, and the setting of a large deployment.
POLL_PERIODS = (3, 30)
SIZES = (10_000, 100_000, 1_000_000)


def inputs(page):
    """Returns the values of the rows `| `name` | value | … |` of the page, above the tables."""
    rows = re.findall(r"^\| `(\w+)` \| ([\d.,]+) \|", page.split(BEGIN)[0], re.M)
    return {name: float(value.replace(",", "")) for name, value in rows}


def table(title, header, rows):
    lines = [f"### {title}", "", "| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def number(figure):
    """Formats a number with two significant digits. More would be more than the inputs justify."""
    if figure == 0:
        return "0"
    digits = 1 - math.floor(math.log10(abs(figure)))
    return f"{round(figure, digits):,.{max(digits, 0)}f}"


def writer(rate, i, seconds=60.0):
    """Simulates one server's writer with `rate` commands per second at random times. A batch takes all commands that arrived
    during the previous commit. Returns commits per second, and the p50 and p99 of a command's latency in ms."""
    draw = random.Random(1)
    arrivals, now = [], 0.0
    while now < seconds:
        now += draw.expovariate(rate)
        arrivals.append(now)
    free, first, waits, batches = 0.0, 0, [], 0
    while first < len(arrivals):
        start = max(free, arrivals[first])
        last = first
        while last < len(arrivals) and arrivals[last] <= start:
            last += 1
        free = start + (i["batch_ms"] + i["batch_send_ms"] * (last - first)) / 1e3
        waits += [1e3 * (free - at) for at in arrivals[first:last]]
        first, batches = last, batches + 1
    waits.sort()
    return batches / free, waits[len(waits) // 2], waits[len(waits) * 99 // 100]


def load(rides, i):
    """Returns the load of this number of open rides, per second."""
    messages = rides * i["messages_a_ride"] / (60 * i["minutes"])
    return {
        "streams": rides * i["streams_a_ride"],
        "messages": messages,
        "events": messages * (1 + i["receipts_a_message"]),
        "locations": rides / i["location_every"],
        "opened": rides * i["streams_a_ride"] * i["opens_a_ride"] / (60 * i["minutes"]),
    }


def following(servers, i):
    """Returns to how many servers a location is sent: those with a stream of the ride, except the sender. All are chosen at random."""
    return servers * (1 - (1 - 1 / servers) ** i["streams_a_ride"]) * (servers - 1) / servers


def received(rides, servers, i):
    """Returns how many heads and locations each of the servers receives per second. Heads are sent to all servers."""
    it = load(rides, i)
    return (it["locations"] * following(servers, i) + it["events"] * (servers - 1)) / servers


def cost(rides, poll_period, i):
    """Returns the servers that this number of open rides needs, and the load of Postgres."""
    it = load(rides, i)
    # Each of a ride's streams may be on another server, and each server polls the topics that it has readers for.
    polled = it["streams"] / poll_period
    server = 1e-6 * (
        it["events"] * (i["send_server_us"] + i["streams_a_ride"] * i["delivery_us"])
        + it["locations"] * (i["location_server_us"] + i["streams_a_ride"] * i["delivery_us"])
        + it["opened"] * i["open_us"]
        + it["streams"] * i["idle_server_us"] * 3 / poll_period
    )
    memory = lambda servers: servers * i["server_mb"] / 1e3 + it["streams"] * i["stream_kb"] / 1e6
    servers = 1
    while True:
        receiving = 1e-6 * i["receive_us"] * received(rides, servers, i)
        wanted = max(server / servers + receiving, it["streams"] / servers / MAX_STREAMS * BUSY * i["cores"])
        if wanted <= BUSY * i["cores"]:
            break
        if receiving >= BUSY * i["cores"]:
            servers = None
            break
        servers += 1
    return {**it, "server": server, "servers": servers, "receiving": receiving, "polled": polled,
            "postgres": cost_postgres(rides, poll_period, i), "memory": memory(servers or 0)}


def cost_postgres(rides, poll_period, i):
    """Returns the number of busy cores of Postgres."""
    it = load(rides, i)
    return 1e-6 * (
        it["events"] * i["send_postgres_us"]
        + it["locations"] * i["location_postgres_us"]
        + it["streams"] * i["idle_postgres_us"] * 3 / poll_period
        + it["opened"] * i["open_postgres_us"]
    )


def tables(i):
    loads = [load(rides, i) for rides in SIZES]
    header = ["open rides"] + [f"{rides:,}" for rides in SIZES]
    row = lambda what, key: [what] + [number(it[key]) for it in loads]
    yield table("Load", header, [
        row("streams", "streams"), row("messages per second", "messages"), row("events per second", "events"),
        row("locations per second", "locations"), row("streams opened per second", "opened"),
    ])

    def column(rides, poll_period):
        it = cost(rides, poll_period, i)
        servers = it["servers"]
        if servers is None:
            return ["impossible", number(it["server"]), "exceeded", "", number(it["polled"]),
                    number(it["postgres"]), ""]
        commits, p50, p99 = writer(it["events"] / servers, i)
        hints = commits * servers
        return [str(servers), number(it["server"]), number(it["receiving"]), number(it["memory"]), number(it["polled"]),
                number(it["postgres"]), number(hints)]

    names = ["servers", "cores busy with requests and streams, all servers", "cores busy with notifications, each server",
             "memory, GB, all servers", "topics polled per second by the fallback", "cores of Postgres",
             "commits per second, each with its NOTIFY"]
    for poll_period in POLL_PERIODS:
        columns = [column(rides, poll_period) for rides in SIZES]
        title = f"Resources with one Postgres, RIDEWIRE_FALLBACK_POLL={poll_period}s"
        yield table(title, header, [[name] + [c[at] for c in columns] for at, name in enumerate(names)])

    rows = []
    for rate in (100, 1_000, 3_000, 6_000):
        commits, p50, p99 = writer(rate, i)
        rows.append([f"{rate:,}", number(commits), number(rate / commits), number(p50), number(p99)])
    names = ["commands per second", "commits per second", "commands per commit", "p50 ms", "p99 ms"]
    yield table("One server's writer, simulated", names, rows)

    rows = sorted((largest(uses, has, i), name, has) for name, uses, has in walls(i))
    rows = [[name, number(uses_at(name, i)), number(has), number(rides)] for rides, name, has in rows]
    yield table("Limits of one Postgres", ["resource", "used by a million open rides", "available", "exhausted at open rides"], rows)

    rows = []
    for cells in (1, 4, 16, 64):
        it = cost(SIZES[-1] // cells, POLL_PERIODS[1], i)
        servers = it["servers"]
        rows.append([str(cells), f"{SIZES[-1] // cells:,}", str(servers * cells) if servers else "impossible",
                     number(it["receiving"]) if servers else "exceeded", number(it["postgres"])])
    names = ["cells", "open rides in each", "servers, all cells", "cores busy with notifications, each server",
             "cores of each Postgres"]
    yield table("A million open rides in cells, RIDEWIRE_FALLBACK_POLL=30s", names, rows)


def walls(i):
    """Returns the limited resources, each with its use by a number of open rides and the available amount."""
    cores, core = BUSY * i["postgres_cores"], 1e-6
    servers = lambda rides: max(1, math.ceil(load(rides, i)["streams"] / MAX_STREAMS))
    sent = lambda rides: (load(rides, i)["locations"] * i["value_bytes"] * following(servers(rides), i)
                          + load(rides, i)["events"] * i["head_bytes"] * servers(rides))
    # Each server's writer sends heads with its commits. Its notifier sends the locations of up to 5 ms in one transaction.
    notify = lambda rides: servers(rides) * (writer_commits(rides, servers(rides), i)
                                             + min(load(rides, i)["locations"] / servers(rides), 1_000 / i["notify_every_ms"]))
    return [
        ("cores of Postgres: messages and receipts only",
         lambda rides: core * load(rides, i)["events"] * i["send_postgres_us"], cores),
        ("cores of Postgres: locations only",
         lambda rides: core * load(rides, i)["locations"] * i["location_postgres_us"], cores),
        ("cores of Postgres: fallback poll every 3 s",
         lambda rides: core * load(rides, i)["streams"] * i["idle_postgres_us"], cores),
        ("cores of Postgres: total, fallback poll every 30 s", lambda rides: cost_postgres(rides, POLL_PERIODS[1], i), cores),
        ("cores of each server: receiving notifications",
         lambda rides: core * i["receive_us"] * received(rides, servers(rides), i), BUSY * i["cores"]),
        ("MB/s from Postgres to all listeners", lambda rides: sent(rides) / 1e6, BUSY * i["network_mb"]),
        ("seconds per second in which the lock of NOTIFY is held", lambda rides: core * i["notify_us"] * notify(rides), BUSY),
    ]


def writer_commits(rides, servers, i):
    return writer(load(rides, i)["events"] / servers, i, 5.0)[0]


def uses_at(name, i):
    return next(uses for it, uses, _ in walls(i) if it == name)(SIZES[-1])


def largest(uses, has, i):
    """Returns the number of open rides that exhausts the resource, to a percent."""
    few, many = 1_000, 1_000_000_000
    while many > few * 1.01:
        middle = round(math.sqrt(few * many))
        few, many = (middle, many) if uses(middle) <= has else (few, middle)
    return few


def main():
    page = PAGE.read_text(encoding="utf-8")
    text = "\n".join(tables(inputs(page)))
    before, rest = page.split(BEGIN)
    said, after = rest.split(END)
    if "--write" in sys.argv:
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    elif "--check" in sys.argv:
        if said != f"\n{text}\n":
            sys.exit("docs/explanation/scaling.md differs from the output of docs/explanation/scaling/model.py: run it with --write")
    else:
        print(text)


if __name__ == "__main__":
    main()
