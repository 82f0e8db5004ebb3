#!/usr/bin/env python3
"""How Ridewire grows: the tables of docs/scaling.md, from the measured costs in its first table.

    python3 docs/scaling/model.py            prints them
    python3 docs/scaling/model.py --write    puts them into the page
    python3 docs/scaling/model.py --check    fails unless they are what the page says

No run of it differs from another: what is drawn at random is drawn from a seed.
"""

import math
import pathlib
import random
import re
import sys

PAGE = pathlib.Path(__file__).parent.parent / "scaling.md"
BEGIN = "<!-- tables: written by docs/scaling/model.py -->\n"
END = "<!-- end of tables -->\n"

# Cores of a server that may be busy before there have to be more of them.
BUSY = 0.6
# Streams that a server may hold (RIDEWIRE_MAX_STREAMS).
MOST_STREAMS = 100_000
# Connections of a server: the pool and the listener.
CONNECTIONS = 9
# Seconds between two looks of the fallback, as shipped and as a large deployment sets it.
LOOKS = (3, 30)
SIZES = (10_000, 100_000, 1_000_000)


def inputs(page):
    """The rows `| `name` | value | … |` of the page, above the tables."""
    rows = re.findall(r"^\| `(\w+)` \| ([\d.,]+) \|", page.split(BEGIN)[0], re.M)
    return {name: float(value.replace(",", "")) for name, value in rows}


def table(title, header, rows):
    lines = [f"### {title}", "", "| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def number(figure):
    """Two digits that count: more would claim more than is known."""
    if figure == 0:
        return "0"
    digits = 1 - math.floor(math.log10(abs(figure)))
    return f"{round(figure, digits):,.{max(digits, 0)}f}"


def writer(rate, i, seconds=60.0):
    """One server's writer under `rate` commands a second, which come at random: a batch takes all that came while the last
    was committed. Returns commits a second and how long a command waited, at p50 and p99, in ms."""
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
    """What so many open rides do, in a second."""
    messages = rides * i["messages_a_ride"] / (60 * i["minutes"])
    return {
        "streams": rides * i["streams_a_ride"],
        "messages": messages,
        "events": messages * (1 + i["marks_a_message"]),
        "positions": rides / i["position_every"],
        "opened": rides * i["streams_a_ride"] * i["opens_a_ride"] / (60 * i["minutes"]),
    }


def cost(rides, look, i):
    """Servers, and what Postgres has to do for them."""
    it = load(rides, i)
    # Each of a ride's streams may be on another server, and each server looks at the topics that it has readers of.
    looked = it["streams"] / look
    server = 1e-6 * (
        it["events"] * (i["send_server_us"] + i["streams_a_ride"] * i["delivery_us"])
        + it["positions"] * (i["position_server_us"] + i["streams_a_ride"] * i["delivery_us"])
        + it["opened"] * i["open_us"]
        + it["streams"] * i["quiet_server_us"] * 3 / look
    )
    memory = lambda servers: servers * i["server_mb"] / 1e3 + it["streams"] * i["stream_kb"] / 1e6
    # Every server hears what all others say: so the more there are, the more each has to hear.
    servers = 1
    while True:
        heard = 1e-6 * i["hear_us"] * (it["positions"] + it["events"]) * (servers - 1) / servers
        wanted = max(server / servers + heard, it["streams"] / servers / MOST_STREAMS * BUSY * i["cores"])
        if wanted <= BUSY * i["cores"]:
            break
        if heard >= BUSY * i["cores"]:
            servers = None
            break
        servers += 1
    return {**it, "server": server, "servers": servers, "heard": heard, "looked": looked,
            "postgres": cost_postgres(rides, look, i), "memory": memory(servers or 0)}


def cost_postgres(rides, look, i):
    """Cores of Postgres that are busy."""
    it = load(rides, i)
    return 1e-6 * (
        it["events"] * i["send_postgres_us"]
        + it["positions"] * i["position_postgres_us"]
        + it["streams"] * i["quiet_postgres_us"] * 3 / look
        + it["opened"] * i["open_postgres_us"]
    )


def tables(i):
    loads = [load(rides, i) for rides in SIZES]
    header = ["open rides"] + [f"{rides:,}" for rides in SIZES]
    row = lambda what, key: [what] + [number(it[key]) for it in loads]
    yield table("What they do", header, [
        row("streams", "streams"), row("messages a second", "messages"), row("events a second", "events"),
        row("positions a second", "positions"), row("streams opened a second", "opened"),
    ])

    def column(rides, look):
        it = cost(rides, look, i)
        servers = it["servers"]
        if servers is None:
            return ["not to be had", number(it["server"]), "more than it has", "", number(it["looked"]),
                    number(it["postgres"]), ""]
        commits, p50, p99 = writer(it["events"] / servers, i)
        hints = commits * servers
        return [str(servers), number(it["server"]), number(it["heard"]), number(it["memory"]), number(it["looked"]),
                number(it["postgres"]), number(hints)]

    names = ["servers", "cores busy with requests and streams, all servers", "cores busy with hearing, each server",
             "memory, GB, all servers", "topics looked at a second by the fallback", "cores of Postgres",
             "commits a second, each with its NOTIFY"]
    for look in LOOKS:
        columns = [column(rides, look) for rides in SIZES]
        title = f"What it takes on one Postgres, RIDEWIRE_FALLBACK_POLL={look}s"
        yield table(title, header, [[name] + [c[at] for c in columns] for at, name in enumerate(names)])

    rows = []
    for rate in (100, 1_000, 3_000, 6_000):
        commits, p50, p99 = writer(rate, i)
        rows.append([f"{rate:,}", number(commits), number(rate / commits), number(p50), number(p99)])
    names = ["commands a second", "commits a second", "commands in one", "p50 ms", "p99 ms"]
    yield table("One server's writer, simulated", names, rows)

    rows = sorted((largest(uses, has, i), name, has) for name, uses, has in walls(i))
    rows = [[name, number(uses_at(name, i)), number(has), number(rides)] for rides, name, has in rows]
    yield table("Where one Postgres ends", ["what", "used by a million open rides", "there is", "ends at open rides"], rows)

    rows = []
    for cells in (1, 4, 16, 64):
        it = cost(SIZES[-1] // cells, LOOKS[1], i)
        servers = it["servers"]
        rows.append([str(cells), f"{SIZES[-1] // cells:,}", str(servers * cells) if servers else "not to be had",
                     number(it["heard"]) if servers else "more than it has", number(it["postgres"])])
    names = ["cells", "open rides in each", "servers, all cells", "cores busy with hearing, each server",
             "cores of each Postgres"]
    yield table("A million open rides in cells, RIDEWIRE_FALLBACK_POLL=30s", names, rows)


def walls(i):
    """What there is of a thing, and how much of it so many open rides use."""
    cores, core = BUSY * i["postgres_cores"], 1e-6
    servers = lambda rides: max(1, math.ceil(load(rides, i)["streams"] / MOST_STREAMS))
    said = lambda rides: load(rides, i)["positions"] * i["value_bytes"] + load(rides, i)["events"] * i["head_bytes"]
    notify = lambda rides: servers(rides) * writer_commits(rides, servers(rides), i) + said(rides) / i["payload_bytes"]
    return [
        ("cores of Postgres: messages and marks alone",
         lambda rides: core * load(rides, i)["events"] * i["send_postgres_us"], cores),
        ("cores of Postgres: positions alone",
         lambda rides: core * load(rides, i)["positions"] * i["position_postgres_us"], cores),
        ("cores of Postgres: looks every 3 s",
         lambda rides: core * load(rides, i)["streams"] * i["quiet_postgres_us"], cores),
        ("cores of Postgres: all of it, looks every 30 s", lambda rides: cost_postgres(rides, LOOKS[1], i), cores),
        ("cores of each server: hearing what all others say",
         lambda rides: core * i["hear_us"] * (load(rides, i)["positions"] + load(rides, i)["events"]), BUSY * i["cores"]),
        ("MB/s from Postgres to all listeners", lambda rides: said(rides) * servers(rides) / 1e6, BUSY * i["network_mb"]),
        ("seconds a second that the lock of NOTIFY is held", lambda rides: core * i["notify_us"] * notify(rides), BUSY),
    ]


def writer_commits(rides, servers, i):
    return writer(load(rides, i)["events"] / servers, i, 5.0)[0]


def uses_at(name, i):
    return next(uses for it, uses, _ in walls(i) if it == name)(SIZES[-1])


def largest(uses, has, i):
    """The most open rides for which it is enough, to a percent."""
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
            sys.exit("docs/scaling.md does not say what docs/scaling/model.py prints: run it with --write")
    else:
        print(text)


if __name__ == "__main__":
    main()
