"""`resmem serve`: answers over HTTP until a signal ends it."""

from argparse import ArgumentParser, Namespace

from resmem_service import settings as options
from resmem_service.settings import Settings

__all__ = ["declare", "run"]


def declare(parser: ArgumentParser) -> None:
    """Declare the command and its options."""
    parser.description = (
        "Serves a bundle over HTTP. Every flag is also an environment variable "
        "(RESMEM_PORT) and a key of the file that --config names (port). SIGTERM and SIGINT end it "
        "once the requests under way are answered, a second one at once; SIGHUP brings the version "
        "that the store marks current into service."
    )
    options.add_flags(parser)
    parser.set_defaults(run=run)


def run(_: Namespace, settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT and returns 0; 2 if the model turns out not to load.

    Raises:
        BundleError, CorruptFile: no bundle, or one that is damaged at first sight.
        InvalidSettings: the address cannot be listened on.
        ProviderUnavailable: there is nothing to run a model on.
    """
    # Here, not above: a supervisor stays small without the app, other commands start sooner.
    from resmem_service.runtime import require_onnx_runtime

    require_onnx_runtime()
    if settings.workers > 1:
        from resmem_service.server.supervisor import supervise

        return supervise(settings)
    from resmem_service.server.lone_server import serve_alone

    return serve_alone(settings)
