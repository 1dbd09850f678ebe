"""Exit status 0 when the service in this container takes traffic; the image has no curl."""

import os
import sys
import urllib.error
import urllib.request

url = f"http://127.0.0.1:{os.environ.get('RESMEM_PORT', '8080')}/readyz"
try:
    with urllib.request.urlopen(url, timeout=2) as answer:
        sys.exit(answer.status != 200)
except (urllib.error.URLError, OSError) as error:
    sys.exit(f"{url}: {error}")
