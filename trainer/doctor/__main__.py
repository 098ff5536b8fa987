"""`python -m trainer.doctor`: runs one check of `trainer.doctor.plan`, and writes its findings as JSON lines."""

import json
import logging
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict

from common import logs
from trainer.doctor.bench import Bench
from trainer.doctor.devices import check_devices
from trainer.doctor.findings import Finding, Result, State, format_error
from trainer.doctor.placement import check_kernels
from trainer.doctor.plan import PLAN, Kind
from trainer.doctor.runs import check_export, check_resume
from trainer.doctor.speed import check_speed
from trainer.doctor.steps import check_precision, check_replicas, check_step

log = logging.getLogger(__name__)

CHECKS: Mapping[str, Callable[[Bench, str], Result]] = {
    "devices": check_devices,
    "kernels": check_kernels,
    "step": check_step,
    "precision": check_precision,
    "replicas": check_replicas,
    "resume": check_resume,
    "export": check_export,
    "speed": check_speed,
}
"""The function of each check of the plan; its arguments are the bench and the name of a preset."""
_MAX_ERROR = 400
"""Maximum length of an exception's text in a finding, in characters."""


def run_check(name: str, bench: Bench) -> Iterator[Finding]:
    """Runs a check with each of its presets; an exception becomes a failed finding, and the next presets still run."""
    (check,) = [check for check in PLAN if check.name == name]
    for preset in check.presets:
        try:
            result = CHECKS[name](bench, preset)
        except Exception as error:
            log.exception("the check failed")
            text = textwrap.shorten(format_error(error), _MAX_ERROR)
            result = Result(text, State.FAILED, "--verbose shows the traceback")
        yield Finding(check.line(preset), *result)


def main(arguments: Sequence[str]) -> None:
    """Runs a check; `arguments` are its name and the fields of `Bench`: the kind of devices and the directory."""
    # libraries may print to standard output, which is for findings alone
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as findings:
        os.dup2(2, 1)
        logs.start_log(verbose=False)
        name, kind, folder = arguments
        for finding in run_check(name, Bench(Kind(kind), folder)):
            print(json.dumps(asdict(finding), allow_nan=False), file=findings, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
