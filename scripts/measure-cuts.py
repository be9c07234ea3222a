#!/usr/bin/env python3
"""Measures how long writes stand still when two servers cannot reach each other.

    scripts/measure-cuts.py target/release/star --rounds 10

Starts five servers, each in a network namespace of its own (so it needs to be root, and touches no network of the machine),
writes to every star all the time, and cuts two servers off from each other, again and again:

    breaks    failLink at both: connections end, and new ones fail at once
    swallows  the network takes everything and delivers nothing, in both directions

The figure of a round is the longest time in which no write to some star was answered. Median and worst are printed.
"""

import argparse, json, os, random, shutil, socket, statistics, struct, subprocess, sys, tempfile, threading, time

NAMES = "abcde"
STARS = 8
# How long a write is waited for until it is sent to another server, as the project's own client does.
ANSWER_WITHIN = 5.0
HEALED_WITHIN = 60.0


def addr(number):
    return f"10.77.0.{number + 1}"


def mac(number):
    return f"02:00:00:00:00:{number + 1:02x}"


def sh(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


class Connection:
    """JSON messages, see DESIGN/wire.md."""

    def __init__(self, number, timeout=ANSWER_WITHIN):
        self.socket = socket.create_connection((addr(number), 7000), timeout=timeout)
        self.reader = self.socket.makefile("rb")

    def ask(self, **message):
        text = json.dumps(message).encode()
        self.socket.sendall(struct.pack(">Q", len(text)) + text)
        return json.loads(self.reader.read(struct.unpack(">Q", self.reader.read(8))[0]))


def ask(number, **message):
    return Connection(number).ask(**message)


class Servers:
    def __init__(self, program, directory):
        self.namespaces, self.servers = [], []
        sh("ip", "link", "set", "lo", "up")
        sh("ip", "link", "add", "br0", "type", "bridge")
        sh("ip", "link", "set", "br0", "up")
        sh("ip", "addr", "add", "10.77.0.100/24", "dev", "br0")
        listed = ", ".join(f'{{ name = "{name}", addr = "{addr(i)}:7000" }}' for i, name in enumerate(NAMES))
        for number, name in enumerate(NAMES):
            holder = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo up; exec sleep 1000000"], stdout=subprocess.PIPE)
            holder.stdout.readline()
            self.namespaces.append(holder)
            sh("ip", "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
            sh("ip", "link", "set", f"v{number}", "master", "br0", "up")
            for words in (["link", "set", "lo", "up"], ["link", "set", "eth0", "address", mac(number), "up"],
                          ["addr", "add", f"{addr(number)}/24", "dev", "eth0"]):
                self.inside(number, "ip", *words)
            own = [f"cluster.servers=[{listed}]", "faults.allow=true", f'store.directory="{directory}/stores"',
                   f'control.directory="{directory}/control"', 'store.capacity_bytes="64 MiB"',
                   'limits.value_bytes_max="1 MiB"']
            log = open(f"{directory}/{name}.log", "wb")
            self.servers.append(subprocess.Popen(
                ["nsenter", "-t", str(holder.pid), "-n", program, "serve", "--name", name]
                + [word for one in own for word in ("--set", one)], stdout=log, stderr=log))

    def inside(self, number, *words):
        sh("nsenter", "-t", str(self.namespaces[number].pid), "-n", *words)

    def cut(self, how, one, other):
        for here, there in ((one, other), (other, one)):
            if how == "breaks":
                ask(here, type="FAIL_LINK", server=NAMES[there])
            else:
                # Frames to an address of nobody: the bridge delivers them to no server.
                self.inside(here, "ip", "neigh", "replace", addr(there), "lladdr", "02:00:00:00:00:ff", "dev", "eth0",
                            "nud", "permanent")

    def mend(self, how, one, other):
        for here, there in ((one, other), (other, one)):
            if how == "breaks":
                ask(here, type="FIX_LINK", server=NAMES[there])
            else:
                self.inside(here, "ip", "neigh", "replace", addr(there), "lladdr", mac(there), "dev", "eth0", "nud",
                            "permanent")

    def wait_until_whole(self):
        ends = time.monotonic() + HEALED_WITHIN
        while time.monotonic() < ends:
            try:
                stars = ask(0, type="STATUS")["server"]["cluster"]["stars"]
                if stars and all(len(star["members"]) == len(NAMES) and not star["joining"] and not star["learners"]
                                 and not star.get("leaving") for star in stars):
                    return
            except (OSError, TypeError, KeyError, struct.error):
                pass
            time.sleep(0.05)
        sys.exit(f"the servers do not all serve every star after {HEALED_WITHIN} s")

    def end(self):
        for process in self.servers + self.namespaces:
            process.kill()
            process.wait()


class Writer(threading.Thread):
    """Writes to some keys, one write after another, each until it is answered; notes the longest time without an answer."""

    def __init__(self, number):
        super().__init__(daemon=True)
        self.number, self.count, self.last, self.longest, self.over = number, 0, time.monotonic(), 0.0, False

    def begin(self):
        self.last, self.longest = time.monotonic(), 0.0

    def end(self):
        return max(self.longest, time.monotonic() - self.last)

    def run(self):
        server, connection = self.number % len(NAMES), None
        while not self.over:
            self.count += 1
            message = {"type": "SET", "key": f"key {self.number}", "value": self.count,
                       "request_id": f"{self.number} {self.count}"}
            while not self.over:
                try:
                    connection = connection or Connection(server)
                    answer = connection.ask(**message)
                    if answer["status"] == "OK":
                        now = time.monotonic()
                        self.longest, self.last = max(self.longest, now - self.last), now
                        break
                except (OSError, struct.error):
                    pass
                connection, server = None, (server + 1) % len(NAMES)
                time.sleep(0.005)
            time.sleep(0.01)


def measure(servers, how, rounds, seconds, chance):
    writers = [Writer(number) for number in range(4 * STARS)]
    for writer in writers:
        writer.start()
    gaps = []
    for number in range(rounds + 1):
        time.sleep(1.0)
        for writer in writers:
            writer.begin()
        one, other = chance.sample(range(len(NAMES)), 2)
        if number > 0:
            servers.cut(how, one, other)
        time.sleep(seconds)
        gap = max(writer.end() for writer in writers)
        if number > 0:
            servers.mend(how, one, other)
            gaps.append(gap)
            print(f"{how}: {NAMES[one]} {NAMES[other]} {gap:.2f} s", flush=True)
        else:
            print(f"{how}: nothing is cut, to compare: {gap:.2f} s", flush=True)
        servers.wait_until_whole()
    for writer in writers:
        writer.over = True
    print(f"{how}: median {statistics.median(gaps):.2f} s, worst {max(gaps):.2f} s of {rounds}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the program `star`")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=12.0, help="how long each cut lasts; longer than any gap")
    parser.add_argument("--how", default="breaks,swallows")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if os.environ.get("MEASURE_CUTS") != "inside":
        # In a namespace of its own: what is set up here goes away with it.
        os.execvpe("unshare", ["unshare", "-n", sys.executable, *sys.argv], {**os.environ, "MEASURE_CUTS": "inside"})
    directory = tempfile.mkdtemp(prefix="star-cuts-", dir="/dev/shm")
    servers = Servers(os.path.abspath(args.program), directory)
    try:
        servers.wait_until_whole()
        for how in args.how.split(","):
            measure(servers, how, args.rounds, args.seconds, random.Random(args.seed))
    finally:
        servers.end()
        shutil.rmtree(directory)


main()
