"""Runs what a page of the documentation says, in its order, in one shell.

`python3 docs/run.py PAGE [SECTION ...]`: the ```sh blocks of the page, or of the sections named. A block
```sh server starts a program that stays; it is awaited by its address. A block with a file's name must be that
file. ADDRESS in the environment is taken in place of 127.0.0.1:8080, so that pages can be run side by side.
"""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(\w+)(?: +(\S+))?\n(.*?)^```$", re.M | re.S)
# Ends what was started, whatever happens; a server has a minute to answer.
HEAD = """set -euo pipefail
started=()
finish() { for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done; wait; }
trap finish EXIT
await() { for _ in $(seq 600); do if eval "$1"; then return; fi; sleep 0.1; done; echo "not ready: $1" >&2; exit 1; }
"""


def sections(text):
    """(title, what stands below it); what stands above the first title has none."""
    parts = re.split(r"^## (.*)$", text, flags=re.M)
    yield "", parts[0]
    yield from zip(parts[1::2], parts[2::2])


def script(text, wanted, address):
    lines = [HEAD]
    for title, body in sections(text):
        for language, kind, block in BLOCK.findall(body):
            if language != "sh" and kind and (ROOT / kind).read_text() != block:
                sys.exit(f"{kind} is not what the page shows")
            if language != "sh" or (wanted and title not in wanted):
                continue
            block = block.replace("127.0.0.1:8080", address)
            if kind == "server":
                command = block.strip().replace("stormwire", f"stormwire --listen {address}", 1)
                lines.append(f"{command} > server.log 2>&1 &\nstarted+=($!)\nawait 'curl -sf http://{address}/readyz >/dev/null'\n")
            elif kind == "cluster":
                lines.append(f"rm -f target/local/cluster.env\n{block.strip()} > target/cluster.log 2>&1 &\nstarted+=($!)\n"
                             "await 'test -e target/local/cluster.env'\n")
            else:
                lines.append(block)
    return "\n".join(lines)


def main():
    page, *wanted = sys.argv[1:]
    address = os.environ.get("ADDRESS", "127.0.0.1:8080")
    text = script(pathlib.Path(page).read_text(), wanted, address)
    environment = {**os.environ, "STORMWIRE_URL": f"http://{address}"}
    sys.exit(subprocess.run(["bash", "-xc", text], env=environment).returncode)


if __name__ == "__main__":
    main()
