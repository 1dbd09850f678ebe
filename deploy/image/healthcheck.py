"""Exit status 0 when the service in this container takes traffic; the image has no curl."""

import os
import sys
import urllib.error
import urllib.request

port = os.environ.get("RESMEM_PORT", "")
# Beside a Service or a link called resmem it is an address, and the service takes the default.
url = f"http://127.0.0.1:{port if port.isdecimal() else 8080}/readyz"
try:
    with urllib.request.urlopen(url, timeout=2) as answer:
        sys.exit(answer.status != 200)
except (urllib.error.URLError, OSError) as error:
    sys.exit(f"{url}: {error}")
