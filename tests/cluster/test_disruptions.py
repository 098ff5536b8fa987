"""submit.py while a node is drained or lost, after a webhook's refusal, and while a queue preempts a run."""

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.cluster.namespaces import KUEUE, QUEUED, TRAIN, Namespace, last_line
from tests.cluster.test_submit import CPU, DONE, LOG, PATIENT

pytestmark = pytest.mark.cluster

CPU_NODE = "e"
"""The only node without GPUs, on which runs on CPUs are placed."""
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


@pytest.fixture
def followed(namespace: Namespace) -> Iterator[Namespace]:
    """A namespace with the log of a run. Afterwards, the node without GPUs is available again."""
    namespace.log(*LOG)
    yield namespace
    make_available(namespace)


def make_available(namespace: Namespace) -> None:
    """Makes the node without GPUs answer and accept pods."""
    namespace.plane.kubelet.lost.clear()
    set_ready("True", namespace)
    namespace.plane.kubectl("taint", "node", CPU_NODE, f"{OUT_OF_SERVICE}-", is_checked=False)
    namespace.plane.kubectl("uncordon", CPU_NODE)


def set_ready(status: str, namespace: Namespace) -> None:
    condition = {"type": "Ready", "status": status, "reason": "Test", "lastHeartbeatTime": None}
    patch = json.dumps({"status": {"conditions": [condition]}})
    namespace.plane.kubectl("patch", "node", CPU_NODE, "--subresource=status", f"--patch={patch}")


def wait_for_status(text: str, namespace: Namespace) -> None:
    """Waits until submit.py prints a state of the training step that contains a text."""
    seen = []

    def is_shown() -> bool:
        seen.append(namespace.submit("status")[1].splitlines()[1])
        return text in seen[-1]

    try:
        namespace.plane.wait(text, is_shown, seconds=60)
    except AssertionError:
        pytest.fail(f"{text} is not in {seen[-1]}")


def test_a_drained_run_waits_for_a_node_and_resumes(followed: Namespace) -> None:
    process = followed.start(*TRAIN, *CPU, *PATIENT)
    (pod,) = followed.wait_for_pods()
    followed.plane.kubectl("drain", CPU_NODE, "--force", "--delete-emptydir-data", "--timeout=60s")
    wait_for_status("is blocked: Unschedulable: no node has room for it (0/5 nodes are available: ", followed)
    followed.plane.kubectl("uncordon", CPU_NODE)
    followed.wait_for_pods(known=frozenset({pod}))
    followed.end_pods(0)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, last_line(errors)) == (0, DONE), errors
    # a poll may be too late for the exit status of the drained pod
    assert errors.count(f"train: pod {pod} ended: ") == 1


def test_a_run_on_a_lost_node_is_blocked_until_the_node_is_gone(followed: Namespace) -> None:
    process = followed.start(*TRAIN, *CPU, *PATIENT)
    (pod,) = followed.wait_for_pods()
    followed.plane.kubelet.lost.add(CPU_NODE)
    set_ready("Unknown", followed)
    wait_for_status(
        f"is blocked: pod {pod} is being deleted (Taint manager: deleting due to NoExecute taint); its replacement "
        "starts when it has ended. If node e is lost, delete the node, or taint it as out of service",
        followed,
    )
    followed.plane.kubectl("taint", "node", CPU_NODE, f"{OUT_OF_SERVICE}=lost:NoExecute")
    followed.plane.wait("failed pod", lambda: pod not in followed.running_pods(), seconds=60)
    make_available(followed)
    followed.wait_for_pods(known=frozenset({pod}))
    followed.end_pods(0)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, last_line(errors)) == (0, DONE), errors


def test_a_webhook_refuses_a_submission_and_nothing_is_left(namespace: Namespace, webhook: int) -> None:
    rule = {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
    authority = base64.b64encode((namespace.plane.folder / "tls.crt").read_bytes()).decode()
    hook = {
        "name": "images.shop.example",
        "clientConfig": {"url": f"https://127.0.0.1:{webhook}/", "caBundle": authority},
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": namespace.name},
        "webhooks": [hook],
    }
    namespace.kubectl("create", "-f", "-", objects=[configuration])
    try:
        probe = ["create", "job", "probe", "--image=i", "--dry-run=server"]
        namespace.plane.wait("webhook", lambda: "denied" in namespace.kubectl(*probe, is_checked=False), seconds=60)
        status, _, errors = namespace.submit(*TRAIN, *CPU)
    finally:
        namespace.kubectl("delete", "validatingwebhookconfiguration", namespace.name)
    assert (status, errors) == (
        1,
        'webhook images.shop.example refuses it: admission webhook "images.shop.example" denied the request: '
        "the image needs a digest; change --registry or --tag\n",
    )
    assert namespace.objects() == set()


@pytest.fixture
def webhook(namespace: Namespace) -> Iterator[int]:
    """The port of a webhook that refuses all objects."""

    class Refusal(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = {"message": "the image needs a digest"}
            answer = {"uid": review["request"]["uid"], "allowed": False, "status": status}
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(review | {"request": None, "response": answer}).encode())

        def log_message(self, *arguments: object) -> None:
            """Logs no requests, to keep the output of the tests short."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(namespace.plane.folder / "tls.crt", namespace.plane.folder / "tls.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_a_queue_preempts_a_run_which_resumes(queue: Namespace) -> None:
    queue.log(*LOG)
    preemption = json.dumps({"spec": {"preemption": {"withinClusterQueue": "LowerPriority"}}})
    queue.plane.kubectl("patch", "clusterqueue", queue.name, "--type=merge", f"--patch={preemption}")
    process = queue.start(*TRAIN, *QUEUED, "--poll", "0.2", "--gpus", "8")
    known = frozenset(queue.wait_for_pods())
    priority = {"apiVersion": KUEUE, "kind": "WorkloadPriorityClass", "metadata": {"name": queue.name}, "value": 9}
    queue.kubectl("create", "-f", "-", objects=[priority | {"description": "first"}])
    queue.kubectl("create", "-f", "-", objects=[urgent_job(queue.name)])
    wait_for_status(
        "is blocked: preempted in research by another workload; the step resumes when it is admitted again: couldn't "
        "assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor default, 8 more needed",
        queue,
    )
    (urgent,) = queue.wait_for_pods(known=known)
    queue.plane.kubelet.exits[urgent] = (0, "Completed")
    queue.wait_for_pods(known=known | {urgent})
    queue.end_pods(0)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, last_line(errors)) == (0, DONE), errors


def urgent_job(priority: str) -> dict[str, object]:
    """Builds a Job of another user that needs the whole queue."""
    labels = {"kueue.x-k8s.io/queue-name": "research", "kueue.x-k8s.io/priority-class": priority}
    container = {
        "name": "main",
        "image": "i",
        "resources": {"limits": {"nvidia.com/gpu": "8", "memory": "1Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}}
    taint = {"key": "nvidia.com/gpu", "operator": "Exists"}
    pod = {"restartPolicy": "Never", "containers": [container], "securityContext": security, "tolerations": [taint]}
    metadata = {"name": "urgent", "labels": labels}
    spec = {"template": {"spec": pod}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec | {"suspend": True}}
