"""`python -m resmem_service` is `resmem`."""

import sys

from resmem_service.child_command import without_current_folder

if not sys.flags.safe_path:
    # Before anything else is imported: a `queue.py` of the folder where a user works is not ours.
    sys.path[:] = without_current_folder(sys.path)

from resmem_service.cli import main

sys.exit(main())
