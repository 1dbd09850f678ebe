"""A virtual environment for each server to compare with: their dependencies exclude one another.

    python -m benchmarks.speed.environments      # installs what is missing, minutes at first

What is installed stands in `servers/requirements/<name>.txt`, pinned.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

__all__ = ["NAMES", "ensure", "interpreter", "versions"]

_REQUIREMENTS = Path(__file__).parent / "servers" / "requirements"
_ROOT = Path("benchmarks/out/environments")
_STAMP = "requirements.sha256"

NAMES = tuple(sorted(path.stem for path in _REQUIREMENTS.glob("*.txt")))


def interpreter(name: str) -> Path:
    """The Python of an environment; absolute, and with symbolic links left as they are."""
    return (_ROOT / name / "bin" / "python").absolute()


def ensure(name: str) -> Path:
    """Makes an environment anew unless it is there and up to date; its interpreter.

    Raises CalledProcessError if pip fails; what it says is on the terminal already.
    """
    folder, requirements = _ROOT / name, _REQUIREMENTS / f"{name}.txt"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    stamp = folder / _STAMP
    if not (stamp.is_file() and stamp.read_text() == wanted):
        print(f"installing {requirements.name} into {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(interpreter(name)), "-m", "pip", "install", "--quiet", "--quiet"]
        subprocess.run(
            [*pip, "--disable-pip-version-check", "--requirement", str(requirements)], check=True
        )
        stamp.write_text(wanted)
    return interpreter(name)


def versions(python: Path) -> dict[str, str]:
    """What is installed beside an interpreter."""
    listed = subprocess.run(
        [str(python), "-m", "pip", "--disable-pip-version-check", "list", "--format", "json"],
        check=True,
        capture_output=True,
    )
    return {one["name"].lower(): one["version"] for one in json.loads(listed.stdout)}


def main() -> None:
    """Installs all."""
    for name in NAMES:
        ensure(name)


if __name__ == "__main__":
    main()
