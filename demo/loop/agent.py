"""An agent loop in plain Python: asks an LLM, does what it wants done, and says what came out."""

import json
import os
import urllib.request
from pathlib import Path
from typing import Any

KEY = os.environ["ANTHROPIC_API_KEY"]
ADDRESS = f"{os.environ['ANTHROPIC_BASE_URL']}/v1/messages"
NOTES = Path("/srv/notes")
TOOLS = [
    {
        "name": "read_note",
        "description": "Reads one of the notes.",
        "input_schema": {"type": "object", "properties": {"name": {"type": "string"}}},
    }
]


def ask(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the LLM answers; its text is printed word by word, as it comes."""
    body = {
        "model": "claude-sonnet-4-5", "max_tokens": 1024, "stream": True,
        "tools": TOOLS, "messages": messages,
    }  # fmt: skip
    headers = {"x-api-key": KEY, "content-type": "application/json"}
    request = urllib.request.Request(ADDRESS, json.dumps(body).encode(), headers)  # noqa: S310
    content: list[dict[str, Any]] = []
    with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310 - one URL of its own
        for line in reply:
            if line.startswith(b"data: "):
                take(json.loads(line.removeprefix(b"data: ")), content)
    return content


def take(event: dict[str, Any], content: list[dict[str, Any]]) -> None:
    """Adds what an event brings to the answer."""
    if event["type"] == "content_block_start":
        content.append(event["content_block"])
    elif event["type"] == "content_block_delta" and event["delta"]["type"] == "text_delta":
        print(event["delta"]["text"], end="", flush=True)
        content[-1]["text"] += event["delta"]["text"]
    elif event["type"] == "content_block_delta":
        content[-1].setdefault("json", []).append(event["delta"]["partial_json"])
    elif event["type"] == "content_block_stop" and "json" in content[-1]:
        content[-1]["input"] = json.loads("".join(content[-1].pop("json")))


def main() -> None:
    """Goes on until the LLM wants nothing done any more."""
    print(f"My key is {KEY[:36]}…, which no service takes.")
    messages: list[dict[str, Any]] = [{"role": "user", "content": "What of the north field?"}]
    while True:
        print("The LLM says: ", end="")
        content = ask(messages)
        print()
        wanted = [one for one in content if one["type"] == "tool_use"]
        if not wanted:
            return
        results = []
        for one in wanted:
            name = one["input"]["name"]
            print(f"I read {name} for it.")
            text = (NOTES / name).read_text()
            results.append({"type": "tool_result", "tool_use_id": one["id"], "content": text})
        messages += [
            {"role": "assistant", "content": content},
            {"role": "user", "content": results},
        ]


if __name__ == "__main__":
    main()
