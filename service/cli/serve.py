"""`resmem serve`: answers over HTTP until a signal ends it."""

import argparse

from service import settings as options
from service.settings import Settings

__all__ = ["add_parser", "serve"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "serve",
        help="serve a bundle over HTTP",
        description="Serves a bundle over HTTP. Every flag is also an environment variable "
        "(RESMEM_PORT) and a key of the file that --config names (port). SIGTERM and SIGINT end it "
        "once the requests under way are answered, a second one at once; SIGHUP brings the version "
        "that the store marks current into service.",
    )
    options.add_flags(parser)
    parser.set_defaults(run=lambda arguments: serve(options.from_args(arguments)))


def serve(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT and returns 0; 2 if the model turns out not to load.

    Raises:
        BundleError, CorruptFile: no bundle, or one that is damaged at first sight.
        InvalidSettings: the address cannot be listened on.
    """
    # Here, not above: a supervisor stays small without the app, other commands start sooner.
    if settings.workers > 1:
        from service.server.supervisor import supervise

        return supervise(settings)
    from service.server.lone_server import serve_alone

    return serve_alone(settings)
