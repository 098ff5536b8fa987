"""Manifests of submit.py pass every check, and its flags set the right fields."""

import io
import itertools

import pytest

from k8s.kubectl import Kubectl
from k8s.progress import Screen
from k8s.rendering import OVERLAYS, Placement, Step, render
from k8s.settings import training_settings
from tests.k8s import checks
from tests.k8s.rendering import Object, find, job_spec, objects_of, pod_spec, tool

TRAIN = Step(name="train", arguments={"train": ["--preset=mf", "--data=d"]})
EVALUATE = Step(name="evaluate-export", arguments={"evaluate": ["--workdir=r"], "export": ["--workdir=r"]})
TUNE = Step(name="tune", arguments={"tune": ["--preset=mf", "--trials=9"]}, trials=9, parallel=3)


def place(*overlays: str, gpus: int = 1, nodes: int = 1, **others: str) -> Placement:
    return Placement(overlays=overlays, gpus=gpus, nodes=nodes, **others)


def rendered(step: Step, placement: Placement, monkeypatch: pytest.MonkeyPatch) -> list[Object]:
    monkeypatch.setenv("PATH", tool("kubectl").rpartition("/")[0])
    return objects_of(render(step, placement, Kubectl()))


@pytest.mark.parametrize(
    ("step", "placement"),
    [
        *((TRAIN, place(name, gpus=4, nodes=3)) for name in OVERLAYS),
        *((TRAIN, place(*pair, gpus=2, nodes=2)) for pair in itertools.permutations(["gke", "spot", "jobset"], 3)),
        *((TRAIN, place(*pair, nodes=2)) for pair in itertools.permutations(["jobset", "kueue"])),
        (TRAIN, place("gke", gpus=0)),
        (TRAIN, place("local", "kueue", gpus=0)),
        *((EVALUATE, place(name, gpus=4, nodes=2)) for name in OVERLAYS),
        *((TUNE, place(*names, gpus=2)) for names in (["gke"], ["eks", "spot"], ["local", "kueue"])),
    ],
    ids=lambda value: value.name if isinstance(value, Step) else "+".join(value.overlays) + f"-{value.gpus}",
)
def test_a_submitted_step_passes_the_checks(step: Step, placement: Placement, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = rendered(step, placement, monkeypatch)
    assert [problem for check in checks.CHECKS for problem in check(objects)] == []
    workloads = [value["metadata"]["name"] for value in objects if value["kind"] in ("Job", "JobSet")]
    assert workloads == [step.name]


@pytest.mark.parametrize(("overlay", "kind"), [("multi-node", "Job"), ("jobset", "JobSet")])
def test_resources_follow_from_gpus_and_machines(overlay: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = rendered(TRAIN, place(overlay, gpus=4, nodes=3), monkeypatch)
    train = find(objects, kind, "train")
    (main,) = pod_spec(train)["containers"]
    assert job_spec(train)["completions"] == 3
    # 8 GiB and 2 cores per GPU
    assert main["resources"] == {
        "limits": {"memory": "32Gi", "nvidia.com/gpu": 4},
        "requests": {"cpu": "8", "memory": "32Gi"},
    }
    assert find(objects, "ConfigMap", "run")["data"] == {"train": "--preset=mf\n--data=d\n"}


def test_a_search_is_an_indexed_job_with_a_pod_per_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = rendered(TUNE, place("gke", gpus=2), monkeypatch)
    job = find(objects, "Job", "tune")
    spec, (main,) = job["spec"], pod_spec(job)["containers"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 9, 3)
    assert main["args"] == ["tune", "--json", "@/etc/cartwheel/tune", "--trial=$(JOB_COMPLETION_INDEX)"]
    assert main["image"] == "cartwheel/trainer-gpu:latest"
    assert main["resources"]["limits"]["nvidia.com/gpu"] == 2
    labels = (job["metadata"]["labels"], spec["template"]["metadata"]["labels"])
    assert [label["app.kubernetes.io/component"] for label in labels] == ["tune", "tune"]
    assert find(objects, "ConfigMap", "run")["data"] == {"tune": "--preset=mf\n--trials=9\n"}


@pytest.mark.parametrize("overlays", list(itertools.permutations(["jobset", "kueue"])), ids="+".join)
def test_a_job_set_waits_in_the_queue(overlays: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for step, kind in ((TRAIN, "JobSet"), (EVALUATE, "Job")):
        workload = find(rendered(step, place(*overlays, nodes=2), monkeypatch), kind, step.name)
        assert workload["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "cartwheel"
    (job_set,) = [
        value
        for value in rendered(TRAIN, place(*overlays, nodes=2, queue="research"), monkeypatch)
        if value["kind"] == "JobSet"
    ]
    assert job_set["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"


def test_images_come_from_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    placement = place("gke", registry="registry.example/shop/", tag="v7", memory="64Gi", cpu="16")
    for step, image in ((TRAIN, "trainer-gpu"), (EVALUATE, "trainer")):
        for container in pod_spec(find(rendered(step, placement, monkeypatch), "Job", step.name))["containers"]:
            assert container["image"] == f"registry.example/shop/{image}:v7"
            assert container["resources"]["requests"] == {"cpu": "16", "memory": "64Gi"}


def test_training_without_gpus_requests_no_gpu_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = pod_spec(find(rendered(TRAIN, place("gke", gpus=0), monkeypatch), "Job", "train"))
    assert "nodeSelector" not in spec
    assert spec["containers"][0]["image"] == "cartwheel/trainer:latest"


def test_the_batch_of_a_preset_is_rounded_up_for_its_gpus() -> None:
    # mf has a batch size of 512; 6 replicas share 86 * 6 = 516
    config, settings = training_settings("mf", ["epochs=2"], place(gpus=3, nodes=2))
    assert (config.input.batch_size, config.epochs, settings) == (
        516,
        2,
        ["epochs=2", "gpus=3", "input.batch_size=516"],
    )
    assert training_settings("mf", [], place(gpus=8))[1] == ["gpus=8"]
    with pytest.raises(ValueError, match=r"input.batch_size=10 is not divisible by 4 replicas; use 8 or 12"):
        training_settings("mf", ["input.batch_size=10"], place(gpus=4))
    # the run computes the batch from its replicas
    per_replica = ["input.batch_size=10", "input.batch_size_per_replica=64"]
    assert training_settings("mf", per_replica, place(gpus=4))[1] == [*per_replica, "gpus=4"]


def test_a_run_on_spot_machines_saves_within_an_epoch() -> None:
    assert training_settings("mf", [], place("spot", gpus=0))[1] == ["checkpoint_every_steps=1000"]
    settings = ["checkpoint_every_steps=5"]
    assert training_settings("mf", settings, place("spot", gpus=0))[1] == settings


@pytest.mark.parametrize("setting", ["gpus=2", "devices=2"])
def test_a_second_number_of_gpus_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match="--gpus 4 already sets the number of GPUs; remove `gpus=…` and"):
        training_settings("mf", [setting], place(gpus=4))
    assert training_settings("mf", [setting], place(gpus=0))[1] == [setting]


@pytest.mark.parametrize(("overlay", "folder"), [("local", "/data/.cuda-cache"), ("gke", "/tmp/cuda-cache")])
def test_compiled_kernels_are_kept_on_the_volume_if_there_is_one(
    overlay: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (main,) = pod_spec(find(rendered(TRAIN, place(overlay, gpus=2), monkeypatch), "Job", "train"))["containers"]
    assert {"name": "CUDA_CACHE_PATH", "value": folder} in main["env"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_status_line_of_a_terminal_stays_below_permanent_lines() -> None:
    terminal = Terminal()
    screen = Screen(terminal)
    screen.status("train runs", "0:01")
    screen.line("epoch 1: loss 5")
    screen.status("train runs", "0:02")
    screen.end()
    clear = "\r\033[K"
    assert terminal.getvalue() == (f"{clear}train runs, 0:01{clear}epoch 1: loss 5\n{clear}train runs, 0:02{clear}")


def test_without_a_terminal_a_status_is_written_when_it_changes() -> None:
    file = io.StringIO()
    screen = Screen(file)
    for clock, text in enumerate(["train waits", "train waits", "train runs"]):
        screen.status(text, str(clock))
    screen.end()
    assert file.getvalue() == "train waits\ntrain runs\n"
