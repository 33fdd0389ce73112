"""--help of each launch script says every variable that the script reads."""

import re

import pytest

from tests.conftest import REPO

FOLDER = REPO / "launch"
SCRIPTS = sorted(
    path.name
    for path in FOLDER.iterdir()
    if path.suffix in (".sh", ".sbatch") and path.name != "common.sh"
)


def read_variables(name: str) -> dict[str, str]:
    """Each variable that a script takes from the environment, with its default."""
    text = (FOLDER / name).read_text()
    if re.search(r"^\s*need_job ", text, re.MULTILINE):
        common = (FOLDER / "common.sh").read_text()
        text += re.findall(
            r"^need_job\(\) \{\n.*?^\}", common, re.MULTILINE | re.DOTALL
        )[0]
    found = dict.fromkeys(re.findall(r"^\s*need ([A-Z_]+) ", text, re.MULTILINE), "")
    found |= dict(re.findall(r'"\$\{([A-Z_]+):=([^}]*)\}"', text))
    # a default that is worked out is told in words
    return {name: re.sub(r"\$\(.*\)", "", value) for name, value in found.items()}


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_has_every_variable_with_its_default(stubs, name):
    done = stubs.run(name, "--help")
    assert done.returncode == 0, done.stderr
    rows = dict(re.findall(r"^([A-Z_]+) {2,}(.*)", done.stdout, re.MULTILINE))
    variables = read_variables(name)
    assert {"CONFIG", "WORKDIR"} <= set(variables)
    assert sorted(rows) == sorted(variables)
    for variable, default in variables.items():
        assert rows[variable].startswith(default), variable
    assert "--dry-run" in done.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_line_of_the_help_is_wider_than_a_terminal(stubs, name):
    lines = stubs.run(name, "--help").stdout.splitlines()
    assert [line for line in lines if len(line) > 90] == []


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.s*")), ids=lambda p: p.name)
def test_every_script_stops_at_its_first_error(path):
    strict = "set -euo pipefail\n" in path.read_text()
    assert strict or path.name in ("common.sh", "skypilot.yaml")
