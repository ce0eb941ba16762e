"""The demo's scout: reads what it may, is refused something, reads why, and asks for more."""

import json
import urllib.error
import urllib.request

STATION = "http://host.lns.internal:5056/station.txt"
MAST = "http://host.lns.internal:5057/mast.txt"
ELSEWHERE = "https://collect.tracker.example/"
BOUNDARY = "http://lns.internal"


def read(url: str, data: bytes | None = None) -> str:
    """What a server answers."""
    with urllib.request.urlopen(url, data, timeout=60) as reply:  # noqa: S310 - three URLs of its own
        return reply.read().decode().strip()


def main() -> None:
    """Tell what could be read."""
    print(f"The station says: {read(STATION)}", flush=True)
    try:
        print(f"The tracker says: {read(ELSEWHERE)}")
    except urllib.error.URLError as error:
        print(f"The tracker cannot be reached: {error.reason.strerror}.")
    denial = json.loads(read(f"{BOUNDARY}/denials"))["denials"][0]
    print(f"Why: {denial['reason']}.")
    print(f"Who may change that: {denial['how_to_allow']}", flush=True)

    wanted = {"host": "host.lns.internal", "port": 5057, "reason": "today's wind"}
    answer = json.loads(read(f"{BOUNDARY}/requests", json.dumps(wanted).encode()))
    print(f"I asked for the mast; the answer: {answer['verdict']} ({answer['reason']}).")
    print(f"The mast says: {read(MAST)}")


if __name__ == "__main__":
    main()
