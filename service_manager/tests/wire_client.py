"""Speaks to three servers with nothing but `socket` and `json`. Usage: wire_client.py PORT PORT PORT"""
import json
import socket
import sys


def ask(port, **message):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        text = json.dumps(message).encode()
        connection.sendall(len(text).to_bytes(8, "big") + text)
        stream = connection.makefile("rb")
        return json.loads(stream.read(int.from_bytes(stream.read(8), "big")))


def expect(answer, **fields):
    for field, value in fields.items():
        assert answer.get(field) == value, f"{field} is not {value!r} in {answer}"


ports = [int(port) for port in sys.argv[1:]]
a, b, c = ports

# SET through one server, GET from each other.
expect(ask(a, type="SET", key="greeting", value="good morning", request_id="py-1"), status="OK", version=1)
for port in ports:
    expect(ask(port, type="GET", key="greeting"), status="OK", value="good morning", version=1)

# The same request again, through another server, takes effect once.
expect(ask(b, type="SET", key="greeting", value="good morning", request_id="py-1"), status="OK", version=1)

# A missing key.
for port in ports:
    expect(ask(port, type="GET", key="missing"), status="NOT_FOUND")
expect(ask(b, type="DELETE", key="missing"), status="NOT_FOUND")

# CAS by version: the first wins, the second is told what is there.
expect(ask(b, type="CAS", key="greeting", value="good day", if_version=1), status="OK", version=2)
expect(ask(c, type="CAS", key="greeting", value="good night", if_version=1), status="CONFLICT", version=2)
for port in ports:
    expect(ask(port, type="GET", key="greeting"), status="OK", value="good day", version=2)

# CAS if absent.
expect(ask(c, type="CAS", key="once", value=1, if_absent=True), status="OK", version=1)
expect(ask(a, type="CAS", key="once", value=2, if_absent=True), status="CONFLICT", version=1)

# DELETE through one server is seen at each other.
expect(ask(c, type="DELETE", key="greeting"), status="OK", version=3)
for port in ports:
    expect(ask(port, type="GET", key="greeting"), status="NOT_FOUND")

# Any JSON value comes back as the same; so do bytes that are no text.
for value in [None, True, -1, 2.5, "", "Grüße \u0000 \U0001f31f", [], [1, [2]], {"type": "SET", "deep": {"er": [None]}}]:
    expect(ask(a, type="SET", key="any", value=value), status="OK")
    for port in ports:
        expect(ask(port, type="GET", key="any"), status="OK", value=value)
expect(ask(b, type="SET", key="bytes", value_b64="//79AAE="), status="OK")
for port in ports:
    expect(ask(port, type="GET", key="bytes"), status="OK", value_b64="//79AAE=")

# LIST by prefix, page by page.
for number in range(5):
    expect(ask(ports[number % 3], type="SET", key=f"dir/{number}", value=number), status="OK")
expect(ask(a, type="LIST", prefix="dir/", limit=3), status="OK", keys=["dir/0", "dir/1", "dir/2"], more=True)
expect(ask(c, type="LIST", prefix="dir/", limit=3, after="dir/2"), status="OK", keys=["dir/3", "dir/4"], more=False)

# Errors say what is wrong, and whether it is worth trying again.
expect(ask(a, type="FLY", key="k"), status="ERROR", code="UNKNOWN_TYPE", retry=False)
expect(ask(a, type="GET"), status="ERROR", code="BAD_REQUEST", retry=False)
expect(ask(a, type="STATUS"), status="OK")
print("all as it should be")
