"""What real programs of a guest do with keys that they do not have; run inside of one guest.

Prints a line of JSON for each: its name, whether it did, and what it said. Nothing of it is lns's.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

PORT = sys.argv[1]
OWNER = "the owner of the key"
WHO = f"https://who.test:{PORT}/whoami"
OPEN = f"https://who.test:{PORT}/open"
KEY = os.environ["WHO_KEY"]
HEADER = f"Authorization: Bearer {KEY}"
GIT = f"https://x-access-token:{os.environ['GITHUB_TOKEN']}@github.com:{PORT}/field.git"
INDEX = f"https://__token__:{os.environ['INDEX_TOKEN']}@pypi.test:{PORT}/simple"
GET = "\\r\\n".join(
    ["GET /whoami HTTP/1.1", f"Host: who.test:{PORT}", HEADER, "Connection: close", "", ""]
)
OPENSSL = (
    f"printf '{GET}' | openssl s_client -quiet -verify_return_error -servername who.test"
    f" -connect who.test:{PORT} || true"  # the server ends without a farewell
)
BARLEY = "python3 -c 'import barley; print(barley.GROWS)'"
PIP = (
    "pip install -q --disable-pip-version-check --root-user-action ignore --no-cache-dir"
    f" --index-url {INDEX} --target /tmp/by-pip barley && PYTHONPATH=/tmp/by-pip {BARLEY}"
)
UV = (
    f"uv pip install -q --no-cache --python /usr/bin/python3 --index-url {INDEX}"
    f" --target /tmp/by-uv barley && PYTHONPATH=/tmp/by-uv {BARLEY}"
)
NPM = f"""
set -e; mkdir -p /tmp/by-npm; cd /tmp/by-npm; echo '{{}}' >package.json
echo '//npm.test:{PORT}/:_authToken=${{NPM_TOKEN}}' >.npmrc
npm install --silent --no-audit --no-fund --registry https://npm.test:{PORT}/ barley
node -e 'console.log(require("barley"))'
"""
APT = f"""
set -e; echo "machine apt.test login lns password $APT_TOKEN" >/etc/apt/auth.conf
/usr/lib/apt/apt-helper download-file https://apt.test:{PORT}/barley.deb /tmp/barley.deb
dpkg-deb --field /tmp/barley.deb Description
"""
PUSH = f"""
set -e; rm -rf /tmp/work; git clone -q {GIT} /tmp/work; cd /tmp/work
head -c 2000000 /dev/urandom >grown; git add grown
git -c user.name=a -c user.email=a@b.example commit -q -m grown
git push -q origin HEAD:refs/heads/main; git ls-remote origin refs/heads/main | cut -f2
"""
URLLIB = f"""
import urllib.request
request = urllib.request.Request({WHO!r}, headers={{"Authorization": "Bearer {KEY}"}})
print(urllib.request.urlopen(request).read().decode())
"""
HTTPX = f"""
import httpx
print(httpx.get({WHO!r}, headers={{"Authorization": "Bearer {KEY}"}}, timeout=100).text)
"""
AIOHTTP = f"""
import asyncio, aiohttp
async def main():
    async with aiohttp.ClientSession() as session:
        async with session.get({WHO!r}, headers={{"Authorization": "Bearer {KEY}"}}) as reply:
            print(await reply.text())
asyncio.run(main())
"""
NODE = f"""
const headers = {{Authorization: "Bearer {KEY}"}};
require("https").get("{WHO}", {{headers}}, reply => reply.pipe(process.stdout));
fetch("{WHO}", {{headers}}).then(reply => reply.text()).then(console.log);
"""
ANTHROPIC = f"""
import anthropic
client = anthropic.Anthropic(base_url="https://api.anthropic.com:{PORT}", max_retries=0)
ask = dict(model="claude-sonnet-4-5", max_tokens=99, messages=[{{"role": "user", "content": "?"}}])
print(client.messages.create(**ask).content[0].text)
with client.messages.stream(**ask) as stream:
    print("".join(stream.text_stream))
"""
CURL = ["curl", "-sS", "--max-time", "100", "-H", HEADER, WHO]
OF_THE_IMAGE = {"SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt", "CURL_CA_BUNDLE": ""}
ROWS: list[tuple[str, list[str], dict[str, str], str]] = [
    ("anthropic", ["python3", "-c", ANTHROPIC], {}, "Barley likes lime.\nBarley likes lime."),
    ("curl", CURL, {}, OWNER),
    ("wget", ["wget", "-qO-", f"--header={HEADER}", WHO], {}, OWNER),
    ("openssl", ["sh", "-c", OPENSSL], {}, OWNER),
    ("git", ["sh", "-c", PUSH], {}, "refs/heads/main"),
    ("Python ssl", ["python3", "-c", URLLIB], {}, OWNER),
    ("requests", ["python3", "-c", HTTPX.replace("httpx", "requests")], {}, OWNER),
    ("httpx", ["python3", "-c", HTTPX], {}, OWNER),
    ("aiohttp", ["python3", "-c", AIOHTTP], {}, OWNER),
    ("Node https and fetch", ["node", "-e", NODE], {}, f"{OWNER}\n{OWNER}"),
    ("npm", ["sh", "-c", NPM], {}, "barley grows"),
    ("pip", ["sh", "-c", PIP], {}, "barley grows"),
    ("uv", ["sh", "-c", UV], {}, "barley grows"),
    ("apt", ["sh", "-c", APT], {}, "grows"),
    ("SSL_CERT_FILE of its own", CURL, OF_THE_IMAGE, OWNER),
    ("another user", ["setpriv", "--reuid=65534", "--clear-groups", *CURL], {"HOME": "/"}, OWNER),
]


def run(row: tuple[str, list[str], dict[str, str], str]) -> None:
    """Runs one program and prints what became of it."""
    name, command, variables, expected = row
    try:
        done = subprocess.run(
            command, env={**os.environ, **variables}, capture_output=True, timeout=240, check=False
        )
        said = (done.stdout + done.stderr).decode(errors="replace")
        lines = "\n".join(filter(None, done.stdout.decode(errors="replace").splitlines()))
        did = done.returncode == 0 and expected in lines
    except (OSError, subprocess.TimeoutExpired) as error:
        said, did = str(error), False
    sys.stdout.write(json.dumps({"name": name, "did": did, "said": said[-1500:]}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    with ThreadPoolExecutor(2) as pool:  # as many as the machine has CPUs
        list(pool.map(run, ROWS))
