#!/usr/bin/env python3
"""Prints what reads and writes of a Plasma store cost here, in the form of the example `reads`.

Usage: plasma-reads.py [OBJECTS] [BYTES]. Needs pyarrow 11, the last one with Plasma:
`python3 -m venv V && V/bin/pip install 'pyarrow==11.*' 'numpy<2'`, Python 3.7 to 3.11.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
import warnings

TURNS = 31
CALLS = 300


def connect(plasma, socket):
    for _ in range(500):
        if os.path.exists(socket):
            return plasma.connect(socket)
        time.sleep(0.02)
    sys.exit("the Plasma store did not start")


def turns(call):
    """Nanoseconds per call that passed, the median and the least of all turns."""
    times = []
    for _ in range(TURNS):
        begin = time.perf_counter_ns()
        for _ in range(CALLS):
            call()
        times.append((time.perf_counter_ns() - begin) / CALLS)
    times.sort()
    return times[TURNS // 2], times[0]


def main():
    # It says with each call that it is going away.
    warnings.simplefilter("ignore")
    try:
        from pyarrow import plasma
    except ImportError:
        print("no Plasma here: see the head of scripts/plasma-reads.py")
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    server = os.path.join(os.path.dirname(sys.executable), "plasma_store")
    with tempfile.TemporaryDirectory() as directory:
        socket = os.path.join(directory, "plasma")
        room = max(64 << 20, (count + TURNS * CALLS) * (size + 256) * 2)
        store = subprocess.Popen([server, "-m", str(room), "-s", socket], stderr=subprocess.DEVNULL)
        try:
            client = connect(plasma, socket)
            ids = [plasma.ObjectID.from_random() for _ in range(count)]

            def put(name):
                memory = memoryview(client.create(name, size))
                if size:
                    memory[0] = 7
                client.seal(name)

            for name in ids:
                put(name)

            def get():
                # The buffer is released when it is dropped.
                client.get_buffers([random.choice(ids)])[0]

            def create():
                name = plasma.ObjectID.from_random()
                put(name)
                client.delete([name])

            print(f"{'ns per call':<34} {'median':>10} {'least':>10} {'median, passed':>14}")
            for name, call in (("Plasma, get and release", get), ("Plasma, create, seal and delete", create)):
                median, least = turns(call)
                print(f"{name:<34} {'':>10} {least:>10.0f} {median:>14.0f}")
        finally:
            store.terminate()
            store.wait()


if __name__ == "__main__":
    main()
