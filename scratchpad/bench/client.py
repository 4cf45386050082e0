"""Calls system:health over a Unix socket: client.py PATH IN_FLIGHT MILLIS. Prints {"count", "millis"}."""
import json
import socket
import sys
import time

path, in_flight, millis = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
connection = socket.socket(socket.AF_UNIX)
connection.connect(path)
replies = connection.makefile("rb", 1 << 16)


def request(n):
    frame = {"event": "system:health", "data": {}, "correlation_id": n, "_client_id": "bench"}
    return json.dumps(frame).encode() + b"\n"


# In batches of IN_FLIGHT, as a client does that has that much to ask; every reply is read and looked at.
sent = 0
start = time.perf_counter()
while (time.perf_counter() - start) * 1000 < millis:
    connection.sendall(b"".join(request(sent + i) for i in range(in_flight)))
    for i in range(in_flight):
        reply = json.loads(replies.readline())
        assert reply["ok"] and reply["correlation_id"] == sent + i, reply
    sent += in_flight
print(json.dumps({"count": sent, "millis": (time.perf_counter() - start) * 1000}))
