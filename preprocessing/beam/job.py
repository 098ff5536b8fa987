"""A run of `prepare`. Its Beam pipelines run in this process or on remote workers."""

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from contract.layout import DatasetLayout
from preprocessing.beam.progress import Phase, ProgressCounter, cancel_pipelines, track_progress
from preprocessing.config import PrepareConfig
from preprocessing.workspace import Workspace

Value = TypeVar("Value")


@dataclass(frozen=True)
class Job:
    """Settings, files and Beam options of one run of `prepare`."""

    config: PrepareConfig
    """Settings."""
    layout: DatasetLayout
    """Files of the dataset."""
    work: Workspace
    """Intermediate files."""
    options: PipelineOptions
    """Options of Beam."""

    def run_locally(self) -> "Job":
        """Returns this job, with Beam options that run the pipelines in this process."""
        return self if is_in_process(self.options) else replace(self, options=PipelineOptions([]))

    @contextmanager
    def pipeline(self, *phases: Phase) -> Iterator[tuple[beam.Pipeline, ProgressCounter]]:
        """Yields a pipeline and its progress counter. The pipeline runs when the context exits."""
        # instead of Beam's DirectRunner, which would first try to download another runner
        runner = FnApiRunner() if is_in_process(self.options) else None
        has_processes = self.options.view_as(DirectOptions).direct_running_mode == "multi_processing"
        with (
            track_progress(*phases, is_shown=runner is not None and not has_processes) as progress,
            beam.Pipeline(runner=runner, options=self.options) as pipeline,
        ):
            yield pipeline, progress

    @contextmanager
    def run_concurrently(self, function: Callable[[], Value]) -> Iterator[Future[Value]]:
        """Calls `function`, which runs a pipeline, in a thread. Yields a Future of the function's result.

        With remote workers, the main thread calls `function` before the `with` block runs, because only the main thread
        can start Beam's job server.
        """
        if is_in_process(self.options):
            with ThreadPoolExecutor(1) as thread:
                future = thread.submit(function)
                try:
                    yield future
                except BaseException:
                    cancel_pipelines()  # the thread would otherwise delay the error, or SIGTERM, until it has finished
                    raise
        else:
            finished: Future[Value] = Future()
            finished.set_result(function())
            yield finished


def parse_beam_options(arguments: Sequence[str]) -> PipelineOptions:
    """Parses Beam's options.

    Raises:
      ValueError: Beam rejects an option or a value. Flags that Beam does not know are accepted only for runners with a
        job server, because the server may define them.
    """
    options = PipelineOptions(list(arguments))
    usage = io.StringIO()
    try:
        with contextlib.redirect_stderr(usage):
            unknown = options.get_all_options(retain_unknown_options=True).keys() - options.get_all_options().keys()
    except SystemExit:
        reason = usage.getvalue().strip().splitlines()[-1].partition("error: ")[2]
        raise ValueError(f"Beam rejects {' '.join(arguments)}: {reason}; correct the value") from None
    previous = ("", *arguments)
    rejected = [word for last, word in zip(previous, arguments, strict=False) if "-" not in (last[:1], word[:1])]
    if is_in_process(options) or _runner_name(options) == "dataflow":
        rejected += [word for word in arguments if word.lstrip("-").partition("=")[0].replace("-", "_") in unknown]
    if rejected:
        raise ValueError(
            f"unrecognized arguments: {', '.join(rejected)}; neither prepare nor Beam has these flags. Correct them, "
            "and quote globs, so that the shell does not expand them"
        )
    return options


def is_in_process(options: PipelineOptions) -> bool:
    """Returns True if Beam runs in this process, not on remote workers."""
    return _runner_name(options) in ("direct", "fnapi", "switchingdirect")


def _runner_name(options: PipelineOptions) -> str:
    runner = options.view_as(StandardOptions).runner or "direct"
    return runner.lower().removesuffix("runner")
