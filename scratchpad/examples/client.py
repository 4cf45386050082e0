"""Talks to the daemon with nothing but Python's own library: asks, takes items of a stream as it likes, and follows without a gap.

    python3 scratchpad/examples/client.py var/run/daemon.sock call shop:order '{"sku": "tea", "quantity": 1}'
    python3 scratchpad/examples/client.py var/run/daemon.sock stream some:stream '{}' 5
    python3 scratchpad/examples/client.py var/run/daemon.sock follow 'shop:*' 1 5
"""
import json
import socket
import sys
import time


class Connection:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("rb")

    def send(self, frame):
        self.socket.sendall(json.dumps(frame).encode() + b"\n")

    def receive(self):
        line = self.lines.readline()
        # Of one that died the last line may be half of one.
        if not line.endswith(b"\n"):
            raise ConnectionError("the daemon has gone")
        return json.loads(line)

    def close(self):
        self.lines.close()
        self.socket.close()


def call(path, event, data):
    """The reply to a request, or to a fact."""
    connection = Connection(path)
    connection.send({"event": event, "data": data})
    reply = connection.receive()
    connection.close()
    return reply


def stream(path, event, data, ahead=2):
    """The items of a stream. No more than `ahead` are under way; closing the generator ends the handler, and waits for that."""
    connection = Connection(path)
    connection.send({"event": event, "data": data, "stream": True, "stream_id": "s", "credit": {"items": ahead}})
    try:
        while True:
            frame = connection.receive()
            if not frame.get("stream_id"):
                raise RuntimeError(frame["data"]["error"])
            if frame.get("stream_end"):
                if not frame["ok"]:
                    raise RuntimeError(frame["error"]["error"])
                return
            yield frame["data"]
            connection.send({"event": "stream:credit", "stream_id": "s", "items": 1})
    except GeneratorExit:
        connection.send({"event": "stream:cancel", "stream_id": "s", "correlation_id": "cancel"})
        while connection.receive().get("correlation_id") != "cancel":
            pass
    finally:
        connection.close()


def follow(path, pattern, position):
    """Every fact from a position on, once and in order, whatever becomes of the connection."""
    while True:
        try:
            connection = Connection(path)
            connection.send({"event": "pubsub:subscribe", "pattern": pattern, "subscription_id": "f", "from": position})
            reply = connection.receive()
            if not reply["ok"]:
                raise RuntimeError(reply["data"]["error"])
            while True:
                fact = connection.receive()
                position = fact["position"] + 1
                yield fact
        except OSError:
            time.sleep(0.2)


if __name__ == "__main__":
    _, path, command, name, *rest = sys.argv
    if command == "call":
        print(json.dumps(call(path, name, json.loads(rest[0]))))
    else:
        items = stream(path, name, json.loads(rest[0])) if command == "stream" else follow(path, name, int(rest[0]))
        for _, item in zip(range(int(rest[1])), items):
            print(json.dumps(item), flush=True)
        items.close()
