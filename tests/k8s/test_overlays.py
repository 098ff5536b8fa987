"""Every overlay renders, matches the published schemas of two Kubernetes releases, and passes the project's checks."""

import copy
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.k8s import checks
from tests.k8s.rendering import (
    FOLDERS,
    OVERLAYS,
    ROOT,
    Object,
    find,
    job_spec,
    objects_of,
    pod_spec,
    render,
    tool,
    yaml,
)
from trainer.config.flags import build_parser
from trainer.doctor.plan import TOTAL_SECONDS

RELEASES = ["1.34", "1.37"]


def validate(text: str, release: str, folder: Any) -> str:
    """Returns the complaints of kubernetes-validate, also about unknown kinds other than JobSet."""
    path = folder / "manifests.yaml"
    path.write_text(text)
    command = [tool("kubernetes-validate"), "--strict", "-k", release, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    lines = (done.stdout + done.stderr).splitlines()
    wrong = [line for line in lines if not line.startswith("INFO") and "kind JobSet" not in line]
    return "\n".join(wrong) or ("" if done.returncode == 0 else "failed")


def child_job(job_set: Object) -> Object:
    """Builds the Job that the JobSet controller creates from its template."""
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "child"}, "spec": job_spec(job_set)}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_rendering_matches_the_schemas(folder: str, release: str, tmp_path: Any) -> None:
    objects = objects_of(render(folder))
    children = [child_job(value) for value in objects if value["kind"] == "JobSet"]
    assert validate(yaml.safe_dump_all([*objects, *children]), release, tmp_path) == ""


@pytest.mark.parametrize(
    "text",
    [
        "{apiVersion: batch/v1, kind: Job, metadata: {name: a}, spec: {templat: {}}}",
        "{apiVersion: batch/v9, kind: Job, metadata: {name: a}}",
    ],
    ids=["a field that does not exist", "a version that does not exist"],
)
def test_the_schemas_refuse(text: str, tmp_path: Any) -> None:
    assert validate(text, RELEASES[0], tmp_path) != ""


def unknown_fields(job_set: Object) -> list[str]:
    """Finds fields unknown to the JobSet API; its models drop them."""
    models = pytest.importorskip("kubeflow_trainer_api.models", reason="kubeflow-trainer-api is not installed")
    known = models.JobsetV1alpha2JobSet.from_dict(copy.deepcopy(job_set)).to_dict()

    def missing(given: Any, kept: Any, path: str) -> Iterator[str]:
        if isinstance(given, dict):
            yield from (f"{path}.{key}" for key in given.keys() - kept.keys())
            for key in given.keys() & kept.keys():
                yield from missing(given[key], kept[key], f"{path}.{key}")
        elif isinstance(given, list):
            for number, (one, other) in enumerate(zip(given, kept, strict=True)):
                yield from missing(one, other, f"{path}.{number}")

    return list(missing(job_set, known, ""))


def test_the_job_set_has_only_fields_of_its_api() -> None:
    job_set = find(objects_of(render("overlays/jobset")), "JobSet", "train")
    assert unknown_fields(job_set) == []
    job_set["spec"]["failurePolicy"]["maxRestart"] = 3
    job_spec(job_set)["template"]["spec"]["restartPolice"] = "Never"
    assert set(unknown_fields(job_set)) == {
        ".spec.failurePolicy.maxRestart",
        ".spec.replicatedJobs.0.template.spec.template.spec.restartPolice",
    }


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_rendering_passes_the_checks(folder: str, check: checks.Check) -> None:
    assert list(check(objects_of(render(folder)))) == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_has_the_three_steps_of_a_run(name: str) -> None:
    steps = {
        value["metadata"]["name"]
        for value in objects_of(render(f"overlays/{name}"))
        if value["kind"] in ("Job", "JobSet")
    }
    assert steps == {"prepare", "train", "evaluate-export"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_run_with_gpus_requires_them(name: str) -> None:
    (train,) = [
        value
        for value in objects_of(render(f"overlays/{name}"))
        if value["kind"] in ("Job", "JobSet") and value["metadata"]["name"] == "train"
    ]
    (main,) = pod_spec(train)["containers"]
    gpus = main["resources"]["limits"].get("nvidia.com/gpu")
    assert [argument for argument in main["args"] if "gpus" in argument] == ([f"--set=gpus={gpus}"] if gpus else [])
    assert (gpus is None) == (name == "local")


def test_the_job_set_has_the_pods_of_the_indexed_job() -> None:
    alone = pod_spec(find(objects_of(render("overlays/multi-node")), "Job", "train"))
    together = pod_spec(find(objects_of(render("overlays/jobset")), "JobSet", "train"))
    # the JobSet sets the subdomain itself
    assert {key: value for key, value in alone.items() if key != "subdomain"} == together


@pytest.mark.parametrize(
    ("overlay", "key", "prefix"),
    [
        ("gke", "iam.gke.io/gcp-service-account", "cartwheel@"),
        ("eks", "eks.amazonaws.com/role-arn", "arn:aws:iam::"),
    ],
)
def test_the_service_account_has_the_identity_of_the_cloud(overlay: str, key: str, prefix: str) -> None:
    account = find(objects_of(render(f"overlays/{overlay}")), "ServiceAccount", "cartwheel")
    assert account["metadata"]["annotations"][key].startswith(prefix)


def test_prepare_on_flink_reaches_the_services_and_the_worker_pool_of_its_folder() -> None:
    objects = objects_of(render("engines/flink"))
    arguments = set(find(objects, "ConfigMap", "run")["data"]["prepare"].split())
    for name, flag in (("job", "--job_endpoint"), ("artifacts", "--artifact_endpoint")):
        service = find(objects, "Service", "flink-job-server")
        (port,) = [port["port"] for port in service["spec"]["ports"] if port["name"] == name]
        assert f"{flag}=flink-job-server:{port}" in arguments
    (pool,) = [
        c for c in pod_spec(find(objects, "Deployment", "flink-taskmanager"))["containers"] if c["name"] != "main"
    ]
    assert "--service_port=50000" in pool["command"]
    assert "--environment_config=localhost:50000" in arguments
    assert [value["metadata"]["name"] for value in objects if value["kind"] == "Job"] == ["prepare"]


def test_the_gpu_check_is_a_job_of_its_own_with_a_command_that_the_image_accepts() -> None:
    objects = objects_of(render("gpu-check"))
    assert {(value["kind"], value["metadata"]["name"]) for value in objects} == {
        ("Job", "gpu-check"),
        ("ServiceAccount", "gpu-check"),
    }
    (main,) = pod_spec(find(objects, "Job", "gpu-check"))["containers"]
    given = build_parser().parse_args(main["args"])
    assert (given.command, given.gpu, given.devices, given.json) == ("doctor", True, "gpu", True)
    assert main["image"] == "cartwheel/trainer-gpu:latest"
    assert main["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_the_gpu_check_has_more_time_than_its_checks() -> None:
    job = find(objects_of(render("gpu-check")), "Job", "gpu-check")
    assert job["spec"]["activeDeadlineSeconds"] > 2 * TOTAL_SECONDS


def test_the_readme_waits_for_the_job_of_the_gpu_check() -> None:
    # a selector of pods matches nothing right after the Job is created
    lines = (ROOT / "k8s" / "README.md").read_text(encoding="utf-8").splitlines()
    apply = lines.index("kubectl apply -k k8s/gpu-check")
    assert lines[apply + 1] == "kubectl wait --for=jsonpath='{.status.ready}'=1 job/gpu-check --timeout=15m"


def test_every_step_has_the_label_of_kueue() -> None:
    for value in objects_of(render("overlays/kueue")):
        if value["kind"] == "Job":
            assert value["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "cartwheel"


def at(*path: str | int) -> Callable[[Object], Any]:
    def walk(value: Any) -> Any:
        for step in path:
            value = value[step]
        return value

    return walk


def broken(kind: str, name: str, path: str, value: Any) -> Callable[[list[Object]], None]:
    """Returns a change that sets the value at a dotted path of an object."""

    def change(objects: list[Object]) -> None:
        *above, last = [int(step) if step.isdigit() else step.replace("~", ".") for step in path.split(".")]
        at(*above)(find(objects, kind, name))[last] = value

    return change


POD, MAIN = "spec.template.spec", "spec.template.spec.containers.0"
RULES = "spec.failurePolicy.rules"
CHILD = "spec.replicatedJobs.0.template.spec"
WRONG = [
    (checks.restart_policy, "local", broken("Job", "train", f"{POD}.restartPolicy", "OnFailure"), "must be Never"),
    (
        checks.restart_policy,
        "serving",
        broken("Deployment", "cartwheel-serving", f"{POD}.restartPolicy", "Never"),
        "Always",
    ),
    (checks.quantities, "local", broken("Job", "train", f"{MAIN}.resources.limits.memory", "64Gib"), "64Gib is not"),
    (checks.quantities, "local", broken("Job", "train", f"{MAIN}.resources.requests.memory", "9Gi"), "than its limit"),
    (checks.quantities, "local", broken("Job", "train", f"{MAIN}.resources.requests", {}), "lacks a request"),
    (checks.quantities, "local", broken("Job", "train", f"{POD}.volumes.0.emptyDir", {"sizeLimit": "1 GB"}), "1 GB is"),
    (checks.mounts, "local", broken("Job", "train", f"{MAIN}.volumeMounts.0.name", "rum"), "'rum'"),
    (checks.mounts, "local", broken("Job", "train", f"{MAIN}.volumeMounts.0.mountPath", "/tmp"), "at one path"),
    (checks.mounts, "local", broken("ConfigMap", "run", "metadata.name", "walk"), "no ConfigMap run"),
    (checks.mounts, "local", broken("Job", "train", f"{POD}.serviceAccountName", "absent"), "no ServiceAccount absent"),
    (checks.whole_gpus, "gke", broken("Job", "train", f"{MAIN}.resources.limits.nvidia~com/gpu", "0.5"), "not a whole"),
    (
        checks.whole_gpus,
        "gke",
        broken("Job", "train", f"{MAIN}.resources.requests.nvidia~com/gpu", 2),
        "its limit is 1",
    ),
    (checks.whole_gpus, "gke", broken("Job", "train", f"{MAIN}.image", "cartwheel/trainer"), "without CUDA"),
    (checks.restricted, "local", broken("Job", "train", f"{POD}.securityContext.runAsNonRoot", False), "as root"),
    (checks.restricted, "local", broken("Job", "train", f"{POD}.securityContext.seccompProfile", {}), "seccomp"),
    (checks.restricted, "local", broken("Job", "train", f"{POD}.hostNetwork", True), "namespace of its host"),
    (
        checks.restricted,
        "local",
        broken("Job", "train", f"{POD}.volumes.0", {"name": "x", "hostPath": {}}),
        "not allowed",
    ),
    (checks.restricted, "local", broken("Job", "train", f"{POD}.automountServiceAccountToken", True), "a token"),
    (checks.restricted, "local", broken("Job", "train", f"{MAIN}.securityContext.capabilities", {}), "capabilities"),
    (
        checks.restricted,
        "local",
        broken("Job", "evaluate-export", f"{POD}.initContainers.0.securityContext.readOnlyRootFilesystem", False),
        "evaluate may write",
    ),
    (
        checks.restricted,
        "local",
        broken("Job", "train", f"{MAIN}.securityContext.allowPrivilegeEscalation", True),
        "privileges",
    ),
    (checks.no_secrets, "local", broken("ConfigMap", "run", "kind", "Secret"), "by hand"),
    (checks.no_secrets, "local", broken("ConfigMap", "run", "data.train", "--token=abc"), "looks like a credential"),
    (
        checks.no_secrets,
        "local",
        broken("Job", "train", f"{MAIN}.env", [{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}]),
        "contains the value of AWS",
    ),
    (
        checks.no_secrets,
        "local",
        broken("Job", "train", f"{MAIN}.args", ["--s3_secret_access_key=x"]),
        "argument looks like",
    ),
    (
        checks.failure_policy,
        "local",
        broken("Job", "train", "spec.podFailurePolicy.rules.0.onExitCodes.containerName", "maim"),
        "maim",
    ),
    (
        checks.interruptions,
        "local",
        broken("Job", "train", "spec.podFailurePolicy.rules.1.onPodConditions", [{"type": "DisruptionTarget"}]),
        "lacks the status",
    ),
    (
        checks.interruptions,
        "local",
        broken("Job", "train", "spec.podFailurePolicy.rules.2.onExitCodes.values", [74]),
        "lost another worker",
    ),
    (
        checks.interruptions,
        "jobset",
        broken("JobSet", "train", f"{CHILD}.podFailurePolicy.rules.2", {"action": "FailJob"}),
        "lost another",
    ),
    (
        checks.interruptions,
        "local",
        broken("Job", "train", "spec.podFailurePolicy.rules.2.onExitCodes.values", [75, 73]),
        "nothing limits them",
    ),
    (
        checks.job_set_rules,
        "jobset",
        broken("JobSet", "train", f"{RULES}.0.name", "stay-as-they-are"),
        "refuses the rule name",
    ),
    (
        checks.job_set_rules,
        "jobset",
        broken("JobSet", "train", f"{RULES}.1.action", "RestartJobSet"),
        "has condition Disru",
    ),
    (
        checks.job_set_rules,
        "jobset",
        broken("JobSet", "train", f"{RULES}.0.onJobFailureMessagePatterns", [""]),
        "code 75",
    ),
    (checks.failure_policy, "local", broken("Job", "train", "spec.backoffLimit", 0), "backoffLimit"),
    (checks.failure_policy, "jobset", broken("JobSet", "train", f"{CHILD}.backoffLimit", 3), "replaced alone"),
    (checks.failure_policy, "local", broken("Job", "train", "spec.podReplacementPolicy", "X"), "successor"),
    (checks.failure_policy, "local", broken("Job", "train", f"{POD}.terminationGracePeriodSeconds", 5), "grace period"),
    (checks.workers_meet, "multi-node", broken("Job", "train", "spec.completions", 3), "differ"),
    (checks.workers_meet, "multi-node", broken("Job", "train", f"{MAIN}.ports", []), "port is not declared"),
    (checks.workers_meet, "multi-node", broken("Job", "train", f"{POD}.subdomain", "others"), "no Service of its name"),
    (checks.workers_meet, "multi-node", broken("Service", "train", "spec.publishNotReadyAddresses", False), "headless"),
    (checks.workers_meet, "jobset", broken("JobSet", "train", "spec.network.subdomain", "train"), "network"),
    (
        checks.shared_memory,
        "gke",
        broken("Job", "train", f"{MAIN}.resources.limits.nvidia~com/gpu", 2),
        "1 GiB per GPU",
    ),
    (checks.shared_memory, "gke", broken("Job", "train", f"{MAIN}.resources.limits.memory", "1Gi"), "not exceed"),
    (checks.shared_memory, "gke", broken("Job", "train", f"{MAIN}.volumeMounts.2.mountPath", "/shm"), "/dev/shm"),
    (checks.queues, "kueue", broken("Job", "train", "spec.suspend", False), "suspend: false"),
    (checks.names, "local", broken("Job", "train", "metadata.name", "train_1"), "DNS label"),
    (checks.names, "local", broken("Job", "train", "metadata.name", "t" * 50), "at most 49 characters"),
    (checks.names, "local", broken("Job", "train", "metadata.name", "prepare"), "duplicate"),
    (checks.selectors, "serving", broken("Service", "cartwheel-serving", "spec.selector", {"a": "b"}), "no pods"),
    (
        checks.selectors,
        "serving",
        broken("Deployment", "cartwheel-serving", "spec.template.metadata.labels", {"a": "b"}),
        "Deployment cartwheel-serving: selects",
    ),
    (
        checks.probes,
        "serving",
        broken("Deployment", "cartwheel-serving", f"{MAIN}.readinessProbe.httpGet.path", "/"),
        "does not check the model",
    ),
    (
        checks.probes,
        "serving",
        broken("Deployment", "cartwheel-serving", f"{MAIN}.readinessProbe.httpGet.port", "http"),
        "a port that does not exist",
    ),
]


@pytest.mark.parametrize(
    ("check", "folder", "change", "message"), WRONG, ids=[f"{w[0].__name__}: {w[3]}" for w in WRONG]
)
def test_a_check_fails_a_wrong_manifest(check: checks.Check, folder: str, change: Callable, message: str) -> None:
    objects = objects_of(render(folder if folder == "serving" else f"overlays/{folder}"))
    assert list(check(objects)) == []
    change(objects)
    assert message in "\n".join(check(objects))


def test_every_check_has_a_manifest_that_fails_it() -> None:
    assert {wrong[0] for wrong in WRONG} == set(checks.CHECKS)
