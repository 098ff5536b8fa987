"""Errors of kubectl and of the cluster become one sentence, and a refused submission leaves nothing."""

import pytest

from tests.k8s.scenarios import FAST, FINISHED, RUNNING, TRAIN, Cluster


def test_a_missing_kubectl_says_where_to_get_it(cluster: Cluster) -> None:
    cluster.environment["PATH"] = str(cluster.folder)
    status, output, errors = cluster.submit(*TRAIN)
    assert (status, output) == (1, "")
    assert errors.startswith("kubectl is not on PATH; install it")


@pytest.mark.parametrize(
    ("verb", "refusal", "answer"),
    [
        (
            "apply",
            'Error from server (Forbidden): error when creating "STDIN": jobs.batch is forbidden: User "ada" cannot '
            'create resource "jobs" in API group "batch" in the namespace "shop"\n'
            "Error from server (Forbidden): error when retrieving current configuration of:\n"
            'Resource: "/v1, Resource=serviceaccounts", GroupVersionKind: "/v1, Kind=ServiceAccount"\n'
            'from server for: "STDIN": serviceaccounts "cartwheel" is forbidden: User "ada" cannot get resource '
            '"serviceaccounts" in API group "" in the namespace "shop"',
            'no permission: jobs.batch is forbidden: User "ada" cannot create resource "jobs" in API group "batch" in '
            'the namespace "shop", and serviceaccounts "cartwheel" is forbidden: User "ada" cannot get resource '
            '"serviceaccounts" in API group "" in the namespace "shop"; ask for the Role `cartwheel-submitter` of',
        ),
        (
            "apply",
            'Warning: a notice\nError from server (Forbidden): error when creating "STDIN": jobs.batch "train" is '
            "forbidden: exceeded quota: shop, requested: count/jobs.batch=1, used: count/jobs.batch=2",
            'a quota refuses it: jobs.batch "train" is forbidden: exceeded quota: shop, requested: ',
        ),
        (
            "apply",
            'Error from server (Forbidden): error when creating "STDIN": admission webhook "vjobset.kb.io" denied the '
            "request: invalid rule name",
            'webhook vjobset.kb.io refuses it: admission webhook "vjobset.kb.io" denied the request: invalid rule '
            "name; change --overlay",
        ),
        (
            "apply",
            'Error from server (InternalError): error when creating "STDIN": Internal error occurred: failed calling '
            'webhook "mjob.kb.io": failed to call webhook: Post "https://w:443": dial tcp 1.2.3.4: connection refused',
            "webhook mjob.kb.io does not answer: Internal error occurred",
        ),
        (
            "apply",
            'The Job "train" is invalid: \n* spec.template.spec.containers[0].resources.requests[memory]: Invalid '
            'value: "9Gi": must be less than or equal to memory limit of 8Gi',
            'the cluster refuses it: The Job "train" is invalid: * spec.template.spec.containers[0].resources.'
            'requests[memory]: Invalid value: "9Gi": must be less than or equal to memory limit of 8Gi; change --mem',
        ),
        (
            "apply",
            'Error from server (NotFound): error when creating "STDIN": namespaces "shop" not found',
            "there is no namespace shop; create it, or change --namespace",
        ),
        (
            "get",
            "error: You must be logged in to the server (Unauthorized)",
            "the cluster does not accept your credentials",
        ),
        (
            "apply",
            'error: resource mapping not found for name: "train": no matches for kind "JobSet" in version',
            "this cluster has no JobSet; install its controller, or use another --overlay",
        ),
        (
            "get",
            "E0101 00:00:00 memcache.go:265] retrying\nUnable to connect to the server: dial tcp: i/o timeout",
            "the cluster does not answer: Unable to connect to the server: dial tcp: i/o timeout; `kubectl config",
        ),
    ],
    ids=[
        "no permission",
        "quota",
        "webhook",
        "webhook down",
        "schema",
        "no namespace",
        "not logged in",
        "no JobSet",
        "no answer",
    ],
)
def test_an_error_of_kubectl_becomes_one_sentence(verb: str, refusal: str, answer: str, cluster: Cluster) -> None:
    cluster.play(refuse={verb: refusal})
    status, output, errors = cluster.submit(*TRAIN, *FAST)
    assert (status, output) == (1, "")
    assert errors.startswith(answer)
    assert len(errors.splitlines()) == 1
    assert not cluster.calls("apply -f")


CREATED = ["job/train", "configmap/run-", "serviceaccount/cartwheel"]
DENIED = 'Error from server (Forbidden): jobs.batch "train" is forbidden: exceeded quota: shop'


def test_nothing_is_left_of_a_submission_that_is_refused_after_its_check(cluster: Cluster) -> None:
    cluster.play(refuse={"apply -f": DENIED})
    status, _, errors = cluster.submit(*TRAIN, *FAST)
    assert (status, errors.startswith("a quota refuses it")) == (1, True)
    deleted = ["/".join(call.split()[1:3]) for call in cluster.calls("delete")]
    assert [path[: len(want)] for path, want in zip(sorted(deleted), sorted(CREATED), strict=True)] == sorted(CREATED)


def test_without_an_answer_what_may_run_is_kept(cluster: Cluster) -> None:
    cluster.play(refuse={"apply -f": "Unable to connect to the server: i/o timeout"})
    assert cluster.submit(*TRAIN, *FAST)[0] == 1
    assert not cluster.calls("delete")


def test_a_finished_step_is_kept_if_its_successor_is_refused(cluster: Cluster) -> None:
    cluster.play(states={"train": [FINISHED]})
    cluster.submit(*TRAIN, "--detach")
    cluster.play(states={"train": [FINISHED]}, refuse={"apply --dry-run=server": DENIED})
    status, _, errors = cluster.submit(*TRAIN, "--detach", "--set", "epochs=3")
    assert (status, errors.startswith("a quota refuses it"), cluster.calls("delete")) == (1, True, [])


def test_a_webhook_without_dry_runs_does_not_prevent_a_submission(cluster: Cluster) -> None:
    refusal = 'Error from server (BadRequest): admission webhook "w" does not support dry run'
    cluster.play(states={"train": [RUNNING]}, refuse={"apply --dry-run=server": refusal})
    assert cluster.submit(*TRAIN, "--detach")[0] == 0
    assert len(cluster.calls("apply -f")) == 1


def test_a_user_without_rights_on_job_sets_can_run_jobs(cluster: Cluster) -> None:
    refusal = (
        'Error from server (Forbidden): jobsets.jobset.x-k8s.io "train" is forbidden: User "ada" cannot get resource '
        '"jobsets"'
    )
    cluster.play(states={"train": [RUNNING]}, refuse={"get jobset": refusal}, kinds={"train": "JobSet"})
    assert cluster.submit("status")[:2] == (
        0,
        "prepare: not submitted\ntrain: not submitted\ntune: not submitted\nevaluate-export: not submitted\n",
    )
    status, _, errors = cluster.submit(*TRAIN, "--detach")
    assert (status, errors.splitlines()[0]) == (0, "train submitted")
    assert cluster.submit("cancel", "train")[0] == 0
    cluster.play(refuse={"get jobset": refusal, "apply": refusal}, kinds={"train": "JobSet"})
    status, _, errors = cluster.submit(*TRAIN, "--overlay", "jobset", "--detach")
    assert (status, "no permission: jobsets" in errors) == (1, True)
