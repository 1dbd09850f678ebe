"""Prints what pyproject.toml asks for, one requirement a line: requirements.py [EXTRA ...].

The image installs these before it copies the source, so that editing Python rebuilds no dependency.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
requirements = list(project["dependencies"])
for extra in sys.argv[1:]:
    requirements += project["optional-dependencies"][extra]
sys.stdout.write("\n".join(requirements) + "\n")
