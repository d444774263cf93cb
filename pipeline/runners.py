"""The Beam runner that a name stands for."""

from __future__ import annotations

from apache_beam.options.pipeline_options import PipelineOptions, WorkerOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_provision_api_pb2, beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.fn_api_runner.fn_runner import RunnerResult
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import PipelineRunner, create_runner

from pipeline.errors import UsageError
from pipeline.worker import ended_by_ctrl_c, worker_command

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
    quiet = workers.default_sdk_harness_log_level in (None, "ERROR")
    if quiet:
        workers.default_sdk_harness_log_level = "ERROR"
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    info = fn_runner.ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded))
    return _Runner(info, quiet)


class _Runner(fn_runner.FnApiRunner):
    """Starts worker processes by a command of ours, unless notes are wanted: Beam's own talks while it starts, and is slower."""

    def __init__(self, info: fn_runner.ExtendedProvisionInfo, quiet: bool) -> None:
        super().__init__(provision_info=info)
        self._quiet = quiet

    def run_via_runner_api(
        self, pipeline_proto: beam_runner_api_pb2.Pipeline, options: PipelineOptions
    ) -> RunnerResult:
        environments = pipeline_proto.components.environments.values()
        processes = [each for each in environments if each.urn == python_urns.SUBPROCESS_SDK]
        if not (self._quiet and processes):
            return super().run_via_runner_api(pipeline_proto, options)
        for environment in processes:
            environment.payload = worker_command().encode()
        with ended_by_ctrl_c():
            return super().run_via_runner_api(pipeline_proto, options)
