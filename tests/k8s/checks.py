"""Checks manifests for rules of the API server that the published schemas lack, and for promises of this project.

Each check takes the objects of one rendering and yields a sentence for each problem.
"""

import re
from collections.abc import Callable, Iterator
from fractions import Fraction

from common.cli import FAILED, IN_USE, MISUSED, PREEMPTED
from tests.k8s.rendering import Object, containers_of, job_spec, pod_spec

Check = Callable[[list[Object]], Iterator[str]]

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(|m|k|[MGTPE]|[KMGTPE]i)")
_POWERS = {"m": Fraction(1, 1000), "": 1, "k": 10**3, **{unit: 10 ** (3 * i) for i, unit in enumerate("MGTPE", 2)}}
_POWERS |= {f"{unit}i": 2 ** (10 * i) for i, unit in enumerate("KMGTPE", 1)}
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|ya29\.|(?i:secret|password|token)[\w-]*\s*[=:]")
_JOB_SET_RULE = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")
_EXIT_MESSAGE = (
    "Container main for pod shop/train-workers-0-1-x failed with exit code {} matching FailJob rule at index {}"
)
_JOB_FAILURES = {
    ("PodFailurePolicy", _EXIT_MESSAGE.format(FAILED, 0)): "FailJobSet",
    ("PodFailurePolicy", _EXIT_MESSAGE.format(MISUSED, 0)): "FailJobSet",
    ("PodFailurePolicy", _EXIT_MESSAGE.format(PREEMPTED, 2)): "RestartJobSetAndIgnoreMaxRestarts",
    (
        "PodFailurePolicy",
        "Pod shop/train-workers-0-1-x has condition DisruptionTarget matching FailJob rule at index 1",
    ): "RestartJobSetAndIgnoreMaxRestarts",
    ("BackoffLimitExceeded", "Job has reached the specified backoff limit"): "RestartJobSet",
}
"""The action that the JobSet must take after a failed Job, by the Job's reason and message."""
_VOLUME_KINDS = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def quantity(text: object) -> Fraction:
    """Parses a Kubernetes quantity; raises ValueError for `64Gib`."""
    matched = _QUANTITY.fullmatch(str(text))
    if matched is None:
        raise ValueError(f"{text} is not a quantity")
    return Fraction(matched[1]) * _POWERS[matched[2]]


def restart_policy(objects: list[Object]) -> Iterator[str]:
    """Pods of Jobs are never restarted in place, as a failure policy requires; pods of Deployments always are."""
    for value in _workloads(objects):
        policy = pod_spec(value).get("restartPolicy", "Always")
        wanted = "Always" if value["kind"] == "Deployment" else "Never"
        if policy != wanted:
            yield f"{_name(value)}: restartPolicy is {policy}, must be {wanted}"


def quantities(objects: list[Object]) -> Iterator[str]:
    for value in _workloads(objects):
        for container in containers_of(value):
            resources = container.get("resources", {})
            limits, requests = resources.get("limits", {}), resources.get("requests", {})
            if not {"cpu", "memory"} <= requests.keys() or "memory" not in limits:
                yield f"{_name(value)}: {container['name']} lacks a request of cpu and memory or a limit of memory"
            yield from _bad_quantities(value, [*limits.values(), *requests.values()])
            for name in limits.keys() & requests.keys():
                if not any(_bad_quantities(value, [limits[name], requests[name]])) and (
                    quantity(requests[name]) > quantity(limits[name])
                ):
                    yield f"{_name(value)}: requests more {name} than its limit"
        sizes = [volume.get("emptyDir", {}).get("sizeLimit", "0") for volume in pod_spec(value)["volumes"]]
        yield from _bad_quantities(value, sizes)
    for value in objects:
        if value["kind"] == "PersistentVolumeClaim":
            yield from _bad_quantities(value, [value["spec"]["resources"]["requests"]["storage"]])


def mounts(objects: list[Object]) -> Iterator[str]:
    """Every mount has a volume, every volume is mounted, and objects that pods refer to exist."""
    known = {(value["kind"], value["metadata"]["name"]) for value in objects}
    for value in _workloads(objects):
        volumes = {volume["name"]: volume for volume in pod_spec(value).get("volumes", [])}
        used = set()
        for container in containers_of(value):
            mounted = container.get("volumeMounts", [])
            paths = [mount["mountPath"] for mount in mounted]
            if len(set(paths)) < len(paths):
                yield f"{_name(value)}: {container['name']} mounts two volumes at one path"
            used |= {mount["name"] for mount in mounted}
        if used != volumes.keys():
            yield f"{_name(value)}: volumes and mounts differ in {sorted(used ^ volumes.keys())}"
        for volume in volumes.values():
            for kind, field, key in (
                ("ConfigMap", "configMap", "name"),
                ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName"),
            ):
                if field in volume and (kind, volume[field][key]) not in known:
                    yield f"{_name(value)}: there is no {kind} {volume[field][key]}"
        account = pod_spec(value).get("serviceAccountName", "default")
        if ("ServiceAccount", account) not in known:
            yield f"{_name(value)}: there is no ServiceAccount {account}"


def whole_gpus(objects: list[Object]) -> Iterator[str]:
    for value in _workloads(objects):
        for container in containers_of(value):
            resources = container.get("resources", {})
            limits = resources.get("limits", {})
            gpu = next((name for name in limits if name.startswith("nvidia.com/")), "nvidia.com/gpu")
            limit = limits.get(gpu)
            request = resources.get("requests", {}).get(gpu, limit)
            if request != limit:
                yield f"{_name(value)}: requests {request} GPUs, its limit is {limit}"
            if limit is not None and not re.fullmatch(r"[1-9]\d*", str(limit)):
                yield f"{_name(value)}: {limit} is not a whole number of GPUs"
            if limit is not None and "-gpu" not in container["image"]:
                yield f"{_name(value)}: requests GPUs for an image without CUDA"


def restricted(objects: list[Object]) -> Iterator[str]:
    """Pods meet the restricted profile of the Pod Security Standards, and have a read-only root file system."""
    for value in _workloads(objects):
        spec = pod_spec(value)
        pod = spec.get("securityContext", {})
        if not pod.get("runAsNonRoot") or pod.get("runAsUser", 0) == 0:
            yield f"{_name(value)}: may run as root"
        if pod.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{_name(value)}: has no seccomp profile"
        if any(spec.get(field) for field in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{_name(value)}: shares a namespace of its host"
        for volume in spec.get("volumes", []):
            if volume.keys() - {"name"} - _VOLUME_KINDS:
                yield f"{_name(value)}: volume {volume['name']} is of a kind that is not allowed"
        if spec.get("automountServiceAccountToken", True):
            yield f"{_name(value)}: mounts a token for the cluster, which it does not need"
        for container in containers_of(value):
            yield from _unrestricted(value, container)


def no_secrets(objects: list[Object]) -> Iterator[str]:
    """Credentials come by reference; no manifest contains anything that looks like one."""
    for value in objects:
        if value["kind"] == "Secret":
            yield f"{_name(value)}: contains a Secret; create it by hand"
        for text in value.get("data", {}).values():
            if value["kind"] == "ConfigMap" and _SECRET_VALUE.search(text):
                yield f"{_name(value)}: a value looks like a credential"
    for value in _workloads(objects):
        for container in containers_of(value):
            for variable in container.get("env", []):
                if "value" in variable and _SECRET_NAME.search(variable["name"]):
                    yield f"{_name(value)}: contains the value of {variable['name']}"
            if any(_SECRET_VALUE.search(text) for text in container.get("args", [])):
                yield f"{_name(value)}: an argument looks like a credential"


def failure_policy(objects: list[Object]) -> Iterator[str]:
    """Permanent failures are not retried; other failures are retried a few times."""
    for value in objects:
        if value["kind"] not in ("Job", "JobSet"):
            continue
        spec = job_spec(value)
        rules = spec.get("podFailurePolicy", {}).get("rules", [])
        named = {container["name"] for container in containers_of(value)}
        failing = {
            rule["onExitCodes"].get("containerName")
            for rule in rules
            if rule["action"] == "FailJob" and set(rule.get("onExitCodes", {}).get("values", [])) == {FAILED, MISUSED}
        }
        if failing != named:
            yield f"{_name(value)}: statuses 1 and 2 end the Job for {failing}, its containers are {named}"
        if value["kind"] == "Job" and not 3 <= spec.get("backoffLimit", 0) <= 6:
            yield f"{_name(value)}: backoffLimit is not between 3 and 6"
        if value["kind"] == "JobSet" and (spec.get("backoffLimit") != 0 or "failurePolicy" not in value["spec"]):
            yield f"{_name(value)}: a worker would be replaced alone"
        if spec.get("podReplacementPolicy") != "Failed":
            yield f"{_name(value)}: a successor starts before its predecessor has gone"
        if "activeDeadlineSeconds" not in spec:
            yield f"{_name(value)}: has no deadline"
        if pod_spec(value).get("terminationGracePeriodSeconds", 30) < 60:
            yield f"{_name(value)}: a checkpoint may take longer than the grace period"


def interruptions(objects: list[Object]) -> Iterator[str]:
    """The failure policy does not treat a disruption, or a run that must be resumed, as a failure."""
    for value in objects:
        if value["kind"] not in ("Job", "JobSet"):
            continue
        # a JobSet restarts all workers, which needs a failed Job
        action = "Ignore" if value["kind"] == "Job" else "FailJob"
        rules = [rule for rule in job_spec(value)["podFailurePolicy"]["rules"] if rule["action"] == action]
        conditions = [condition for rule in rules for condition in rule.get("onPodConditions", [])]
        if {"type": "DisruptionTarget", "status": "True"} not in conditions:
            yield f"{_name(value)}: a disruption counts as a failure, or its rule lacks the status"
        if [PREEMPTED] not in [rule.get("onExitCodes", {}).get("values") for rule in rules]:
            yield f"{_name(value)}: a preempted run, or one that lost another worker, counts as a failure"
        codes = [rule.get("onExitCodes", {}).get("values", []) for rule in job_spec(value)["podFailurePolicy"]["rules"]]
        if IN_USE in [code for values in codes for code in values]:
            yield f"{_name(value)}: a start beside another owner does not count as a failure, so nothing limits them"


def job_set_rules(objects: list[Object]) -> Iterator[str]:
    """JobSet's webhook accepts the names of the rules, and each failed Job leads to the right action."""
    for value in objects:
        if value["kind"] != "JobSet":
            continue
        rules = value["spec"]["failurePolicy"]["rules"]
        for rule in rules:
            if not _JOB_SET_RULE.fullmatch(rule.get("name", "")):
                yield f"{_name(value)}: JobSet refuses the rule name {rule.get('name')}"
        for (reason, message), wanted in _JOB_FAILURES.items():
            found = next((rule["action"] for rule in rules if _matches(rule, reason, message)), "RestartJobSet")
            if found != wanted:
                yield f"{_name(value)}: {found} after `{reason}: {message}`, must be {wanted}"


def _matches(rule: Object, reason: str, message: str) -> bool:
    patterns = rule.get("onJobFailureMessagePatterns", [""])
    return reason in rule["onJobFailureReasons"] and any(re.search(pattern, message) for pattern in patterns)


def workers_meet(objects: list[Object]) -> Iterator[str]:
    """An Indexed Job has as many workers as its variables say, and they reach each other by name."""
    services = {value["metadata"]["name"]: value["spec"] for value in objects if value["kind"] == "Service"}
    for value in objects:
        if value["kind"] not in ("Job", "JobSet") or job_spec(value).get("completionMode") != "Indexed":
            continue
        spec, (main,) = job_spec(value), pod_spec(value)["containers"]
        if "--trial=$(JOB_COMPLETION_INDEX)" in main.get("args", []):
            continue  # trials do not communicate
        variables = {variable["name"]: variable.get("value") for variable in main.get("env", [])}
        counts = {spec.get("completions"), spec.get("parallelism"), int(variables.get("CARTWHEEL_WORKERS", "0"))}
        if len(counts) > 1:
            yield f"{_name(value)}: completions, parallelism and CARTWHEEL_WORKERS differ: {counts}"
        if int(variables.get("CARTWHEEL_PORT", "0")) not in [port["containerPort"] for port in main.get("ports", [])]:
            yield f"{_name(value)}: the workers' port is not declared"
        job = value["metadata"]["name"]
        if value["kind"] == "JobSet":
            network = value["spec"].get("network", {})
            if network.get("subdomain") != f"{job}-workers-0" or not network.get("publishNotReadyAddresses"):
                yield f"{_name(value)}: its network does not match the host names of the workers"
            continue
        service = services.get(job, {})
        if pod_spec(value).get("subdomain") != job or service.get("selector") != {"batch.kubernetes.io/job-name": job}:
            yield f"{_name(value)}: no Service of its name selects its pods"
        if service.get("clusterIP") != "None" or not service.get("publishNotReadyAddresses"):
            yield f"{_name(value)}: its Service is not headless, or hides workers that are not ready yet"


def shared_memory(objects: list[Object]) -> Iterator[str]:
    """Jobs have 1 GiB of shared memory per GPU, at least 1, within the memory limit."""
    for value in objects:
        if value["kind"] not in ("Job", "JobSet"):
            continue
        (main,) = pod_spec(value)["containers"]
        limits = main["resources"]["limits"]
        wanted = max(1, int(Fraction(limits.get("nvidia.com/gpu", 0)))) * 2**30
        (volume,) = [volume for volume in pod_spec(value)["volumes"] if volume["name"] == "shared-memory"]
        if volume["emptyDir"].get("medium") != "Memory" or quantity(volume["emptyDir"].get("sizeLimit", 0)) != wanted:
            yield f"{_name(value)}: shared memory is not 1 GiB per GPU, in memory"
        if not any(_bad_quantities(value, [limits["memory"]])) and quantity(limits["memory"]) <= wanted:
            yield f"{_name(value)}: its memory limit does not exceed the shared memory"
        if not any(mount["mountPath"] == "/dev/shm" for mount in main["volumeMounts"]):
            yield f"{_name(value)}: nothing is mounted at /dev/shm"


def queues(objects: list[Object]) -> Iterator[str]:
    """No manifest has `suspend: false`, which would prevent Kueue from suspending Jobs."""
    for value in objects:
        if value["kind"] in ("Job", "JobSet") and value["spec"].get("suspend") is False:
            yield f"{_name(value)}: says suspend: false"


def names(objects: list[Object]) -> Iterator[str]:
    """Names are unique DNS labels, and names of Jobs leave room for `-INDEX`."""
    seen = set()
    for value in objects:
        name = value["metadata"]["name"]
        longest = 63 - len("-workers-0-999") if value["kind"] in ("Job", "JobSet") else 63
        if not _NAME.fullmatch(name) or len(name) > longest:
            yield f"{_name(value)}: is not a DNS label of at most {longest} characters"
        if (value["kind"], name) in seen:
            yield f"{_name(value)}: is a duplicate name"
        seen.add((value["kind"], name))


def selectors(objects: list[Object]) -> Iterator[str]:
    """A Deployment selects its own pods, and a Service selects those of a Job or a Deployment."""
    labels = [value["spec"]["template"]["metadata"]["labels"] for value in objects if value["kind"] == "Deployment"]
    for value in objects:
        if value["kind"] == "Deployment":
            wanted, found = value["spec"]["selector"]["matchLabels"], [value["spec"]["template"]["metadata"]["labels"]]
        elif value["kind"] == "Service" and value["spec"].get("clusterIP") != "None":
            wanted, found = value["spec"]["selector"], labels
        else:
            continue
        if not wanted or not any(wanted.items() <= candidate.items() for candidate in found):
            yield f"{_name(value)}: selects no pods"


def probes(objects: list[Object]) -> Iterator[str]:
    """A model server is ready when its model is loaded, and probes use existing ports."""
    for value in objects:
        component = value["metadata"].get("labels", {}).get("app.kubernetes.io/component")
        if value["kind"] != "Deployment" or component != "serving":
            continue
        (main,) = pod_spec(value)["containers"]
        ready = main.get("readinessProbe", {}).get("httpGet", {})
        if not ready.get("path", "").startswith("/v1/models/"):
            yield f"{_name(value)}: its readiness probe does not check the model"
        if ready.get("port") not in [port["name"] for port in main["ports"]]:
            yield f"{_name(value)}: its readiness probe uses a port that does not exist"


CHECKS: list[Check] = [
    restart_policy,
    quantities,
    mounts,
    whole_gpus,
    restricted,
    no_secrets,
    failure_policy,
    interruptions,
    job_set_rules,
    workers_meet,
    shared_memory,
    queues,
    names,
    selectors,
    probes,
]


def _workloads(objects: list[Object]) -> Iterator[Object]:
    yield from (value for value in objects if value["kind"] in ("Job", "JobSet", "Deployment"))


def _name(value: Object) -> str:
    return f"{value['kind']} {value['metadata']['name']}"


def _bad_quantities(value: Object, found: list[object]) -> Iterator[str]:
    for text in found:
        try:
            quantity(text)
        except ValueError as error:
            yield f"{_name(value)}: {error}"


def _unrestricted(value: Object, container: Object) -> Iterator[str]:
    own = container.get("securityContext", {})
    if own.get("allowPrivilegeEscalation", True) or own.get("privileged"):
        yield f"{_name(value)}: {container['name']} may gain privileges"
    if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
        yield f"{_name(value)}: {container['name']} keeps capabilities"
    if not own.get("readOnlyRootFilesystem"):
        yield f"{_name(value)}: {container['name']} may write to its root file system"
