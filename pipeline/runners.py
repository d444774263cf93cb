"""The Beam runner that a name stands for."""

from __future__ import annotations

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import PipelineRunner, create_runner

from pipeline.errors import UsageError

IN_PROCESS = frozenset(("directrunner", "direct", "fnapirunner"))


def make_runner(name: str, options: PipelineOptions) -> PipelineRunner:
    """The runner. `DirectRunner` is the in-process one, by its own name.

    Beam's class of that name first tries to download Prism, a Go program; nothing here may depend on that. Like it, we hand
    the options to worker processes in the provision information.
    """
    if name.lower() in IN_PROCESS:
        encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
        info = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
        return fn_runner.FnApiRunner(provision_info=fn_runner.ExtendedProvisionInfo(info))
    try:
        return create_runner(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise UsageError(f"--runner {name}: {' '.join(str(error).split())}") from error
