"""The Beam runner that a name stands for."""

from __future__ import annotations

import shlex
import sys

from apache_beam.options.pipeline_options import PipelineOptions, WorkerOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_provision_api_pb2, beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.fn_api_runner.fn_runner import RunnerResult
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import PipelineRunner, create_runner

from pipeline.errors import UsageError

IN_PROCESS = frozenset(("directrunner", "direct", "fnapirunner"))


def make_runner(name: str, options: PipelineOptions) -> PipelineRunner:
    """The runner. `DirectRunner` is the in-process one, by its own name.

    Beam's class of that name first tries to download Prism, a Go program; nothing here may depend on that.
    """
    if name.lower() in IN_PROCESS:
        return _in_process(options)
    try:
        return create_runner(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise UsageError(f"--runner {name}: {' '.join(str(error).split())}") from error


def _in_process(options: PipelineOptions) -> PipelineRunner:
    """The in-process runner, which hands the options to worker processes in the provision information."""
    workers = options.view_as(WorkerOptions)
    command = None
    if workers.default_sdk_harness_log_level in (None, "ERROR"):
        workers.default_sdk_harness_log_level = "ERROR"
        command = f"{shlex.quote(sys.executable)} -m pipeline.worker"
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    info = fn_runner.ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded))
    return _Runner(command, info)


class _Runner(fn_runner.FnApiRunner):
    """Starts worker processes by a command of ours, where one is given: Beam's own talks while it starts."""

    def __init__(self, worker_command: str | None, info: fn_runner.ExtendedProvisionInfo) -> None:
        super().__init__(provision_info=info)
        self._worker_command = worker_command

    def run_via_runner_api(
        self, pipeline_proto: beam_runner_api_pb2.Pipeline, options: PipelineOptions
    ) -> RunnerResult:
        if self._worker_command:
            for environment in pipeline_proto.components.environments.values():
                if environment.urn == python_urns.SUBPROCESS_SDK:
                    environment.payload = self._worker_command.encode()
        return super().run_via_runner_api(pipeline_proto, options)
