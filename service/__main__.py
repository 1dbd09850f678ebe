"""`python -m service` is `resmem`."""

import sys

from service.cli import main

sys.exit(main())
