"""An agent bundle of every family, written as a user would and pushed with `lns push`."""

from pathlib import Path

from tests.support.lns_command import Lns

_ENVELOPE = "apiVersion: lens.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\n"

REPORT = """
import json, os, pathlib, sys
model = json.loads(pathlib.Path('/etc/agent/model').read_text())
print('model', model['model'])
print('note', pathlib.Path('/srv/notes/deep/note.txt').read_text().strip())
print('tool', os.access('/etc/agent/tools/greet/greet', os.X_OK))
print('cpus', os.cpu_count())
print('kib', next(l.split()[1] for l in open('/proc/meminfo') if l.startswith('MemTotal')))
print('devices', sorted(os.listdir('/sys/class/net')))
print('env', os.environ['WHO'], 'cwd', os.getcwd(), 'uid', os.getuid())
try:
    open('/srv/notes/mine', 'w')
except OSError as error:
    print('notes', error.strerror)
open('/root/own', 'w').write('writable')
print('stderr', file=sys.stderr)
sys.exit(7)
"""


def push_bundle(lns: Lns, host: str, prefix: str, image: str) -> str:
    """Pushes agent, model, fileset, tool, sandbox, policy and bundle; returns the bundle."""
    notes = lns.user / "notes" / "deep"
    notes.mkdir(parents=True, exist_ok=True)
    (notes / "note.txt").write_text("read me\n")
    tool = lns.user / "tool"
    tool.mkdir(exist_ok=True)
    (tool / "greet").write_text("#!/bin/sh\necho hello\n")
    (tool / "greet").chmod(0o755)
    (lns.user / "report.py").write_text(REPORT)

    def push(path: str, kind: str, rest: str, *flags: str) -> None:
        segment, _, name = path.partition("/")
        file = lns.user / f"{segment}-{name}.yaml"
        file.write_text(_ENVELOPE.format(kind=kind, name=name) + rest)
        lns.ok("push", str(file), f"{host}/{prefix}/{path}:1", *flags)

    push(
        "agents/reporter",
        "Agent",
        f"spec:\n  image: {image}\n  workdir: /srv\n  env: {{WHO: reporter}}\n"
        f"  command: [python3, -c, {_quoted(REPORT)}]\n",
    )
    push("models/small", "Model", "spec: {provider: acme, model: small-1}\n")
    push(
        "filesets/notes",
        "FileSet",
        "mount: {path: /srv/notes}\nspec: {description: notes}\n",
        "--content",
        str(notes.parent),
    )
    push(
        "tools/greet",
        "Tool",
        "spec: {kind: mcp, mcp: {transport: stdio, command: greet}}\n",
        "--content",
        str(tool),
    )
    push("sandboxes/two", "Sandbox", "spec: {resources: {cpu: 2, memory: 512Mi}}\n")
    push("policies/none", "Policy", "spec: {network: {defaultVerdict: deny}}\n")
    push(
        "bundles/report",
        "AgentSystem",
        "spec:\n  components:\n"
        f"    agents: [{{ref: {prefix}/agents/reporter:1}}]\n"
        f"    sandbox: {{ref: {prefix}/sandboxes/two:1}}\n"
        f"    policies: [{{ref: {prefix}/policies/none:1}}]\n"
        f"    model: {{ref: {prefix}/models/small:1}}\n"
        f"    tools: [{{ref: {prefix}/tools/greet:1}}]\n"
        f"    filesets: [{{ref: {prefix}/filesets/notes:1}}]\n",
    )
    return f"{host}/{prefix}/bundles/report:1"


def describe_file(directory: Path, kind: str, name: str, rest: str) -> Path:
    """Writes an artifact's file with its envelope and returns it."""
    file = directory / f"{name}.yaml"
    file.write_text(_ENVELOPE.format(kind=kind, name=name) + rest)
    return file


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
