"""A stand-in for kubectl, as far as the script of the how-to uses it: it runs the container of a Job as a process here.

The variable KUBE is a directory, which takes the place of the cluster. A file ``full`` in it means that pods wait.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

Values = dict[str, Any]


def path_of(kind: str, name: str) -> Path:
    return Path(os.environ["KUBE"], f"{kind.lower()}-{name}.yaml")


def save(manifest: Values) -> str:
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    path_of(kind, name).write_text(yaml.safe_dump(manifest))
    return f"{kind.lower()}{'.batch' if kind == 'Job' else ''}/{name}"


def create_secret(name: str, dry_run: str, output: str, from_file: str) -> None:
    assert (dry_run, output) == ("client", "yaml")
    key, _, path = from_file.partition("=")
    data = {key: base64.b64encode(Path(path).read_bytes()).decode()}
    print(yaml.safe_dump({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}))


def create_job(manifest: Values) -> None:
    name = manifest["metadata"]["name"]
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name), f"{name} is no name of a Job"
    if path_of("Job", name).exists():
        sys.exit(f'Error from server (AlreadyExists): jobs.batch "{name}" already exists')
    template = manifest["spec"]["template"]
    manifest["pid"] = 0 if Path(os.environ["KUBE"], "full").exists() else run(template["spec"]["containers"][0])
    print(save(manifest))


def run(container: Values) -> int:
    """Run the command of a container, which has no other variables than its own, and return its process id."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["KUBE"], "LC_ALL": "C.UTF-8"}
    for variable in container["env"]:
        source = variable["valueFrom"]["secretKeyRef"]
        secret = yaml.safe_load(path_of("Secret", source["name"]).read_text())
        environment[variable["name"]] = base64.b64decode(secret["data"][source["key"]]).decode()
    with Path(os.environ["KUBE"], "output").open("ab") as output:
        return subprocess.Popen(
            container["command"],
            cwd=os.environ["KUBE"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ).pid


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def status_of(manifest: Values) -> Values:
    pid = manifest["pid"]
    if not pid:
        return {"active": 1}
    return {"active": 1, "ready": 1} if is_alive(pid) else {"ready": 0, "succeeded": 1}


def rendered(template: str, status: Values) -> str:
    """Return a jsonpath template with the plain fields of a status; all other fields are empty."""
    plain = re.sub(r"\{\.status\.(\w+)\}", lambda found: str(status.get(found[1], "")), template)
    return re.sub(r"\{[^}]*\}", "", plain)


def get(kind: str, name: str | None, selector: str | None, output: str, ignore: bool) -> None:
    way, _, template = output.partition("=")
    assert way == "jsonpath"
    if kind == "pods":
        assert selector is not None
        label, _, value = selector.partition("=")
        for path in Path(os.environ["KUBE"]).glob("job-*.yaml"):
            labels = yaml.safe_load(path.read_text())["spec"]["template"]["metadata"]["labels"]
            if labels.get(label) == value and Path(os.environ["KUBE"], "full").exists():
                print(" 0/3 nodes are available: 3 Insufficient cpu. ")
        return
    assert (kind, name is None) == ("job", False)
    path = path_of("Job", str(name))
    if path.exists():
        print(rendered(template, status_of(yaml.safe_load(path.read_text()))), end="")
    elif not ignore:
        sys.exit(f'Error from server (NotFound): jobs.batch "{name}" not found')


def delete_job(name: str, ignore: bool) -> None:
    path = path_of("Job", name)
    if not path.exists():
        sys.exit(None if ignore else f'Error from server (NotFound): jobs.batch "{name}" not found')
    pid = yaml.safe_load(path.read_text())["pid"]
    path.unlink()
    if pid and is_alive(pid):
        os.kill(pid, signal.SIGTERM)
    print(f'job.batch "{name}" deleted')


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("verb", choices=["create", "apply", "get", "delete"])
    parser.add_argument("words", nargs="*")
    parser.add_argument("-f")
    parser.add_argument("-l")
    parser.add_argument("-o", default="")
    parser.add_argument("--dry-run", default="none")
    parser.add_argument("--from-file")
    parser.add_argument("--ignore-not-found", action="store_true")
    parser.add_argument("--wait", default="true")
    given = parser.parse_intermixed_args()
    match [given.verb, *given.words]:
        case ["create", "secret", "generic", name]:
            create_secret(name, given.dry_run, given.o, given.from_file)
        case ["create"]:
            assert (given.f, given.o) == ("-", "name")
            create_job(yaml.safe_load(sys.stdin))
        case ["apply"]:
            assert given.f == "-"
            print(save(yaml.safe_load(sys.stdin)), "configured")
        case ["get", kind, *names]:
            get(kind, names[0] if names else None, given.l, given.o, given.ignore_not_found)
        case ["delete", "job", name]:
            assert given.wait == "false", "the hub does not wait until a pod has ended"
            delete_job(name, given.ignore_not_found)
        case _:
            parser.error(f"unknown command {given.verb} {given.words}")


if __name__ == "__main__":
    main()
