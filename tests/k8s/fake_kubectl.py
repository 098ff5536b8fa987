"""A kubectl that replays a recorded sequence instead of calling a cluster, for the tests of submit.py.

FAKE_KUBECTL names a folder with `scenario.json`:

    states  by step: the state at each poll of its Job, {"status": …, "pods": […]}; the last one is repeated
    logs    by "POD/CONTAINER": lines
    refuse  by verb, or by verb and kind as in "get jobset": error message of a failing call
    lists   by kind: events or workloads.kueue.x-k8s.io
    kinds   by step: Job or JobSet, Job by default

Applied objects are stored in `cluster.json`, calls in `calls`. The real kubectl renders manifests.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["FAKE_KUBECTL"])
APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def main(arguments: list[str]) -> int:
    with (FOLDER / "calls").open("a") as calls:
        calls.write(" ".join(arguments) + "\n")
    if arguments[0] in ("kustomize", "label"):
        return subprocess.run([os.environ["REAL_KUBECTL"], *arguments], check=False).returncode
    while arguments[0].startswith("--"):
        arguments = arguments[2:]
    scenario = json.loads((FOLDER / "scenario.json").read_text())
    refuse = scenario.get("refuse", {})
    refusal = refuse.get(arguments[0]) or refuse.get(" ".join(arguments[:2]))
    if refusal:
        print(refusal, file=sys.stderr)
        return 1
    cluster = read("cluster.json", {"objects": {}, "polls": {}})
    if cluster.get("scenario") != scenario:
        cluster |= {"scenario": scenario, "polls": {}}
    answer = VERBS[arguments[0]](arguments[1:], scenario, cluster)
    if arguments[0] != "logs":  # which run concurrently
        (FOLDER / "cluster.json").write_text(json.dumps(cluster))
    return answer


def apply(arguments: list[str], scenario: dict, cluster: dict) -> int:
    for value in json.load(sys.stdin)["items"]:
        path = key(value["kind"], value["metadata"]["name"])
        if arguments[0] == "--dry-run=server":
            print(f"{path} {'unchanged' if path in cluster['objects'] else 'created'} (server dry run)")
            continue
        value["metadata"].setdefault("annotations", {})[APPLIED] = json.dumps(value)
        cluster["objects"][path] = value
    return 0


def get(arguments: list[str], scenario: dict, cluster: dict) -> int:
    kind = arguments[0]
    if kind == "pods":
        step = arguments[2].partition("=")[2]
        print(json.dumps({"items": current_state(step, scenario, cluster)["pods"]}))
        return 0
    if kind in ("events", "workloads.kueue.x-k8s.io"):
        print(json.dumps({"items": scenario.get("lists", {}).get(kind, [])}))
        return 0
    if kind == "jobset" and "JobSet" not in scenario.get("kinds", {}).values():
        print('error: the server doesn\'t have a resource type "jobset"', file=sys.stderr)
        return 1
    value = cluster["objects"].get(key(kind, arguments[1]))
    if value is None:
        return 0
    if kind in ("job", "jobset"):
        cluster["polls"][arguments[1]] = cluster["polls"].get(arguments[1], -1) + 1
        value = value | {"status": current_state(arguments[1], scenario, cluster)["status"]}
    print(json.dumps(value))
    return 0


def current_state(step: str, scenario: dict, cluster: dict) -> dict:
    states = scenario["states"][step]
    return states[min(cluster["polls"].get(step, 0), len(states) - 1)]


def logs(arguments: list[str], scenario: dict, _: dict) -> int:
    pod, container = [word for word in arguments if not word.startswith("--") and word != "-c"]
    for second, line in enumerate(scenario["logs"].get(f"{pod}/{container}", [])):
        print(f"2026-01-01T00:{second // 60:02}:{second % 60:02}Z {line}", flush=True)
    return 0


def delete(arguments: list[str], _: dict, cluster: dict) -> int:
    cluster["objects"].pop(key(arguments[0], arguments[1]), None)
    return 0


def key(kind: str, name: str) -> str:
    return f"{kind.lower()}/{name}"


def read(name: str, default: Any) -> Any:
    path = FOLDER / name
    return json.loads(path.read_text()) if path.exists() else default


VERBS = {"apply": apply, "get": get, "logs": logs, "delete": delete}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
