"""What memories belong to: equal for two bundles, equal for every embedding and residual."""

import hashlib
import json

from resmem_service.bundle.manifest import Manifest

__all__ = ["bundle_identity"]


def bundle_identity(manifest: Manifest) -> str:
    """A SHA-256 over the graph and the fitted memories, the task, the classes, the temperature.

    The name, the version and the parameters of the search do not enter.
    """
    content = {
        "files": {name: entry.sha256 for name, entry in manifest.files.items()},
        "task": manifest.task,
        "classes": manifest.classes,
        "temperature": manifest.parameters.temperature,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
