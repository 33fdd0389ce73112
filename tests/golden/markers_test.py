"""What torch computes is reached by the fixtures that set the marker `parity`."""

import ast

from tests.conftest import MARKERS, REPO

ROADS = ("RSCLIP_TORCH_PYTHON", "RSCLIP_GOLDEN", "_out.npz")


def shortcuts(text: str) -> list[str]:
    """The strings of a test file that lead to torch's values past the fixtures."""
    strings = (
        node.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return [s for s in strings if any(road in s for road in ROADS)]


def test_no_test_reaches_torchs_values_another_way():
    here, found = REPO / "tests" / "golden" / "markers_test.py", {}
    for path in (REPO / "tests").rglob("*_test.py"):
        if path != here and (ways := shortcuts(path.read_text())):
            found[path.name] = ways
    assert found == {}
    assert shortcuts('x = os.environ.get("RSCLIP_TORCH_PYTHON")') == [ROADS[0]]
    assert shortcuts('np.load(FOLDER / f"{name}_out.npz")') == ["_out.npz"]


def test_the_fixtures_mark_a_test(request, golden):
    assert request.node.get_closest_marker("parity")
    assert MARKERS["torch_python"] == MARKERS["golden"] == "parity"
    assert set(golden("positions")) == {"positions", "to_4", "to_12"}
