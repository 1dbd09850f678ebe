"""The Makefile, in a copy whose installer and commands only write down that they ran."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

INSTALLER = """#!/bin/sh
echo "install $1" >>calls
mkdir -p "$VENV/bin"
for name in resmem pytest ruff mypy clang-format; do
    printf '#!/bin/sh\\necho "%s $*" "host=$RESMEM_HOST" >>calls\\n' $name >"$VENV/bin/$name"
    chmod +x "$VENV/bin/$name"
done
"""


class Checkout:
    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        shutil.copy(root / "Makefile", folder)
        (folder / "deploy").mkdir()
        installer = folder / "deploy/venv.sh"
        installer.write_text(INSTALLER)
        installer.chmod(0o755)
        for name in ("pyproject.toml", "setup.py"):
            (folder / name).touch()
        kernel = folder / "service/resmem_service/memory/search/native/kernel.cpp"
        kernel.parent.mkdir(parents=True)
        kernel.touch()
        self.kernel = kernel
        self.age()

    def age(self) -> None:
        """Makes every source older than what make builds next."""
        past = time.time() - 60
        for file in self.folder.rglob("*"):
            os.utime(file, (past, past))

    def make(self, *arguments: str, **environment: str) -> list[str]:
        """What ran, in order."""
        calls = self.folder / "calls"
        calls.unlink(missing_ok=True)
        # Nothing of a `make test` that these tests may be run by: no ARGS, no VENV, no PYTHON.
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        subprocess.run(
            ["make", *arguments],
            cwd=self.folder,
            env={**inherited, **environment},
            capture_output=True,
            timeout=60,
            check=True,
        )
        return calls.read_text().splitlines() if calls.exists() else []


@pytest.fixture
def checkout(tmp_path: Path, root: Path) -> Checkout:
    return Checkout(tmp_path, root)


def test_serve_installs_once_and_without_test_tools(checkout: Checkout) -> None:
    assert checkout.make("serve") == ["install cpu", "resmem serve host="]
    assert checkout.make("serve") == ["resmem serve host="]


def test_serve_passes_the_settings_on(checkout: Checkout) -> None:
    assert checkout.make("serve", RESMEM_HOST="0.0.0.0")[-1] == "resmem serve host=0.0.0.0"


def test_tests_bring_what_serving_needs(checkout: Checkout) -> None:
    assert checkout.make("test", "ARGS=-k journal") == ["install dev", "pytest -k journal host="]
    assert checkout.make("serve") == ["resmem serve host="]


def test_the_long_run_tells_the_tests_how_often_to_kill(checkout: Checkout) -> None:
    installed = checkout.folder / "deploy/venv.sh"
    installed.write_text(INSTALLER.replace("host=$RESMEM_HOST", "kills=$RESMEM_KILLS"))
    assert checkout.make("kills")[-1].endswith("kills=300")
    assert checkout.make("kills", "KILLS=7")[-1].endswith("kills=7")


@pytest.mark.parametrize(
    "name", ["pyproject.toml", "setup.py", "service/resmem_service/memory/search/native/kernel.cpp"]
)
def test_changed_build_is_installed_again(checkout: Checkout, name: str) -> None:
    checkout.make("serve")
    for stamp in checkout.folder.glob(".venv/bin/.installed-*"):
        os.utime(stamp, (time.time() - 30, time.time() - 30))
    (checkout.folder / name).touch()
    assert checkout.make("serve")[0] == "install cpu"


def test_failed_install_is_tried_again(checkout: Checkout) -> None:
    installer = checkout.folder / "deploy/venv.sh"
    working = installer.read_text()
    installer.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(subprocess.CalledProcessError):
        checkout.make("serve")
    installer.write_text(working)
    assert checkout.make("serve")[0] == "install cpu"


def test_lint_checks_style_format_and_types(checkout: Checkout) -> None:
    calls = [call.split(" host=")[0].strip() for call in checkout.make("lint")]
    kernel = str(checkout.kernel.relative_to(checkout.folder))
    assert calls == [
        "install dev",
        "ruff check .",
        "ruff format --check .",
        "mypy",
        f"clang-format --dry-run --Werror {kernel}",
    ]


def test_what_mends_the_format_mends_that_of_native_code(checkout: Checkout) -> None:
    kernel = str(checkout.kernel.relative_to(checkout.folder))
    assert f"clang-format -i {kernel} host=" in checkout.make("fmt")


def test_every_target_says_what_it_does(root: Path) -> None:
    done = subprocess.run(
        ["make", "help"], cwd=root, capture_output=True, text=True, timeout=20, check=True
    )
    listed = {line.split()[1] for line in done.stdout.splitlines()}
    assert {"serve", "test", "lint", "bench", "fmt", "clean", "help"} <= listed


def test_sanitizers_take_turns_or_one_is_named(checkout: Checkout) -> None:
    script = checkout.folder / ".ci/sanitize"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\necho "sanitize $*" >>calls\n')
    script.chmod(0o755)
    both = ["sanitize address,undefined", "sanitize thread"]
    assert checkout.make("sanitize") == ["install dev", *both]
    assert checkout.make("sanitize", "SANITIZER=thread", "ARGS=-k x") == ["sanitize thread -k x"]
