"""Imports go down only, read from the source; each rule with a planted violation."""

import ast
import functools
import re
import subprocess
import sys

import pytest

import rsclip_jax
from tests.conftest import REPO

PACKAGE = "rsclip_jax"
# Rooms, top to bottom; imports within one layer are allowed as long as none runs both
# ways. "" is the package's own face.
LAYERS = (
    {"", "main"},
    {"stages.registry"},
    {"stages.ablate", "stages.survey"},
    {
        "stages.pretrain",
        "stages.patch",
        "stages.align",
        "stages.evaluate",
        "stages.export",
        "stages.map",
        "stages.inspect",
        "stages.pack",
        "stages.compare",
    },
    {"stages.shared"},
    {"stages", "report"},
    {"api"},
    {"weights", "evals"},
    {"models"},
    {"train"},
    {"data.datasets"},
    {"data.pack", "data.inspect", "data.pipeline"},
    {"data.open"},
    {"data.sources"},
    {"data.readers"},
    {"data.scenes"},
    {"data.codecs"},
    {"data.catalog"},
    {"data.miniature"},  # the catalog names its classes
    {"data.sensors"},
    {"data.bad_records"},
    {"data.types"},
    {
        "data",
        "data.sampling",
        "data.specs",
        "data.tokenizer",
        "data.tokenizer_files",
        "stats",
        "records",
    },
    {"losses", "interpolate", "metrics", "train_step", "io", "configs", "version"},
)
# unit: what it never imports, through other modules neither
NEVER = {
    "data": ("rsclip_jax.models", "optax", "flax"),
    "train_step": ("rsclip_jax.models",),
    "train": ("rsclip_jax.models",),
    "losses": ("rsclip_jax.models", "optax"),
}
OLD_NAMES = ("jax.experimental.pjit", "jax.experimental.shard_map")


@functools.cache
def read_files(folder: str) -> dict[str, str]:
    """{module name: its source} of the repository's folder."""
    sources = {}
    for path in sorted((REPO / folder).rglob("*.py")):
        parts = path.relative_to(REPO).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        sources[name] = path.read_text()
    return sources


def read_package() -> dict[str, str]:
    """A copy of the package's sources, to plant violations in."""
    return dict(read_files(PACKAGE))


@functools.cache
def nodes(source: str) -> tuple[ast.AST, ...]:
    """The nodes that some rule reads; a source is parsed once for all tests."""
    kinds = (ast.Import, ast.ImportFrom, ast.alias, ast.Name, ast.Attribute)
    return tuple(n for n in ast.walk(ast.parse(source)) if isinstance(n, kinds))


@functools.cache
def statements(source: str) -> tuple[ast.Import | ast.ImportFrom, ...]:
    kinds = (ast.Import, ast.ImportFrom)
    return tuple(n for n in nodes(source) if isinstance(n, kinds))


def imported(module: str, sources: dict[str, str]) -> list[str]:
    """Every name that a module imports, dotted: "a.b" of `from a import b`, too."""
    names = []
    is_package = any(m.startswith(module + ".") for m in sources)
    package = module if is_package else module.rpartition(".")[0]
    for node in statements(sources[module]):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        else:
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(filter(None, (base, node.module)))
            names += [f"{base}.{alias.name}" for alias in node.names]
    return names


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def room(name: str) -> str:
    """The room of the package that a dotted name lies in; "" is the root."""
    parts = name.split(".")[1:]
    depth = 2 if parts and parts[0] in ("data", "stages") else 1
    found = ".".join(parts[:depth])
    return found if any(found in rooms for rooms in LAYERS) else ""


def layer(name: str) -> int:
    return next(i for i, rooms in enumerate(LAYERS) if room(name) in rooms)


def find_problems(sources: dict[str, str]) -> list[str]:
    imports = {module: imported(module, sources) for module in sources}
    return [
        *homeless(sources),
        *upward(imports),
        *both_ways(imports),
        *forbidden(imports),
        *linen(imports),
        *words(sources),
        *dynamic(sources),
    ]


def homeless(sources):
    for module in sources:
        if module != PACKAGE and not room(module):
            yield f"{module} has no layer"


def upward(imports):
    for module, names in imports.items():
        if module == PACKAGE:
            continue
        for name in names:
            if within(name, PACKAGE) and layer(name) < layer(module):
                yield f"{module} imports {name}, which lies above it"


def both_ways(imports):
    """Rooms of one layer that import each other."""
    arrows = {
        (room(module), room(name)): module
        for module, names in imports.items()
        for name in names
        if within(name, PACKAGE) and room(module) != room(name)
    }
    for (above, below), module in arrows.items():
        if (below, above) in arrows and above < below:
            yield f"{module}: {above} and {below} import each other"


def reached(module, imports, seen):
    """All names that importing a module imports, the package's own followed."""
    for name in imports[module]:
        yield name
        parts = name.split(".")
        # importing a.b.c runs a.b as well; the root is lazy and imports nothing
        for i in range(2, len(parts) + 1):
            parent = ".".join(parts[:i])
            if parent in imports and parent not in seen:
                seen.add(parent)
                yield from reached(parent, imports, seen)


def forbidden(imports):
    for module in imports:
        top = room(module).split(".")[0]
        for never in NEVER.get(top, ()):
            names = {n for n in reached(module, imports, {module}) if within(n, never)}
            for name in sorted(names):
                yield f"{module} imports {name}, which {top} never does"


def linen(imports):
    for module, names in imports.items():
        if room(module) != "models":
            for name in names:
                if within(name, "flax.linen") or within(name, "flax.nnx"):
                    yield f"{module} imports {name}, as only models may"


def words(sources):
    for module, source in sources.items():
        if room(module).split(".")[0] not in ("stages", "main"):
            for word in re.findall("ml_collections|ConfigDict", source):
                yield f"{module} mentions {word}, as only stages and main may"
        if "experimental" in source:
            names = imported(module, sources) + attributes(source)
            for old in OLD_NAMES:
                if old in source or any(within(n, old) for n in names):
                    yield f"{module} has the old name {old}"


def attributes(source: str) -> list[str]:
    return [ast.unparse(n) for n in nodes(source) if isinstance(n, ast.Attribute)]


def dynamic(sources):
    for module, source in sources.items():
        yield from (f"{module} {what}" for what in dynamic_imports(source))


@functools.cache
def dynamic_imports(source: str) -> tuple[str, ...]:
    """The star imports and imports by string of one module, in words."""
    found = []
    for node in nodes(source):
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            found.append(f"has a star import of {node.module}")
        named = getattr(node, "id", None) or getattr(node, "attr", None)
        if isinstance(node, ast.alias):
            named = node.name
        if named in ("import_module", "__import__", "spec_from_file_location"):
            found.append(f"imports by string, with {named}")
    return tuple(found)


def test_the_package_keeps_the_house_rules():
    sources = read_package()
    assert len(sources) > 30  # the package was found
    assert find_problems(sources) == []


PLANTED = [
    ("losses", "from rsclip_jax.train.optim import make_schedule", "lies above it"),
    ("losses", "import rsclip_jax.train.loop", "lies above it"),
    ("losses", "from rsclip_jax import load", "rsclip_jax.load, which lies above"),
    (
        "losses",
        "from .train import optim",
        "rsclip_jax.train.optim, which lies above it",
    ),
    ("models.vit", "from rsclip_jax import api", "rsclip_jax.api, which lies above"),
    ("models.vit", "from .. import api", "rsclip_jax.api, which lies above it"),
    ("evals.encode", "from ..stages.shared.run import Run", "stages.shared"),
    ("stages.shared.run", "import rsclip_jax.main", "lies above it"),
    ("weights", "from ..stages import align", "stages.align, which lies"),
    ("metrics", "def f():\n    from rsclip_jax.train import loop", "lies above it"),
    (
        "data.sensors.table",
        "from rsclip_jax.models import vit",
        "which data never does",
    ),
    ("data.sensors.table", "from rsclip_jax import weights", "which data never does"),
    ("data.sensors.table", "import optax", "which data never does"),
    (
        "data.sensors.table",
        "from rsclip_jax.train import optim",
        "imports optax, which data",
    ),
    ("data.codecs.images", "from ...models import vit", "which data never does"),
    ("train_step", "from rsclip_jax.models.clip import CLIP", "train_step never"),
    ("train.optim", "from rsclip_jax import models", "which train never does"),
    ("losses", "from rsclip_jax.models.clip import CLIP", "which losses never does"),
    ("weights.rules", "import flax.linen as nn", "as only models may"),
    ("train_step", "from flax import linen", "as only models may"),
    (
        "train.loop",
        "from ml_collections import ConfigDict",
        "as only stages and main may",
    ),
    ("api", "def f(config: 'ConfigDict'): ...", "as only stages and main may"),
    ("losses", "from jax.numpy import *", "star import of jax.numpy"),
    ("api", "import importlib\nimportlib.import_module('a')", "imports by string"),
    ("api", "from importlib import import_module", "imports by string"),
    ("api", "__import__('rsclip_jax.main')", "imports by string"),
    (
        "train.loop",
        "from jax.experimental import pjit",
        "old name jax.experimental.pjit",
    ),
    (
        "train.loop",
        "import jax.experimental.shard_map",
        "old name jax.experimental.shard",
    ),
    ("train.loop", "from jax.experimental.pjit import pjit", "old name"),
    ("train.loop", "f = jax.experimental.shard_map.shard_map", "old name"),
    ("utils", "x = 1", "rsclip_jax.utils has no layer"),
    ("data.loose", "x = 1", "rsclip_jax.data.loose has no layer"),
    ("data.catalog.prompts", "from ..readers import folders", "lies above it"),
    ("data.types", "from rsclip_jax.data.sources import files", "lies above it"),
    ("data.types", "from rsclip_jax.data.sensors import get_sensor", "lies above it"),
]


@pytest.mark.parametrize(("module", "line", "said"), PLANTED)
def test_a_planted_violation_is_caught(module, line, said):
    sources = read_package()
    name = f"{PACKAGE}.{module}"
    sources[name] = f"{sources.get(name, '')}\n{line}\n"
    assert any(said in p and name in p for p in find_problems(sources))


def test_two_rooms_of_one_layer_that_import_each_other_are_caught():
    sources = read_package()
    for ours, theirs in (("align", "patch"), ("patch", "align")):
        name = f"{PACKAGE}.stages.{ours}.stage"
        sources[name] += f"\nfrom rsclip_jax.stages.{theirs} import stage\n"
    assert any("import each other" in p for p in find_problems(sources))


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("main", "from rsclip_jax.stages import align"),
        ("stages.align.stage", "from ml_collections import ConfigDict"),
        ("models.vit", "from flax import linen"),
        ("train.loop", "import rsclip_jax.losses"),
        ("api", "from rsclip_jax.train import checkpoint"),
        ("data.tokenizer", "import importlib.resources"),
        ("train.loop", "from jax.experimental import multihost_utils"),
    ],
)
def test_what_is_allowed_passes(module, line):
    sources = read_package()
    name = f"{PACKAGE}.{module}"
    sources[name] = f"{sources[name]}\n{line}\n"
    assert find_problems(sources) == []


TESTED = re.compile(r"tests\.[\w.]*_test")


def test_no_test_file_imports_from_a_test_file():
    """What several tests share is in tests/helpers/."""
    sources = read_files("tests")
    assert sum(TESTED.fullmatch(module) is not None for module in sources) > 100
    found = {m: [*filter(TESTED.match, imported(m, sources))] for m in sources}
    # in the code that a test gives to a subprocess, too
    text = re.compile(rf"(from|import) {TESTED.pattern}\b")
    named = [module for module, source in sources.items() if text.search(source)]
    assert {m: names for m, names in found.items() if names} == {}
    assert named == []


def test_importing_the_package_loads_nothing_heavy():
    heavy = ("jax", "numpy", "flax", "optax", "orbax", "grain", "cv2", "matplotlib")
    code = (
        "import sys, rsclip_jax\n"
        "assert rsclip_jax.__version__\n"
        f"print([m for m in {heavy} if m in sys.modules])\n"
        "import numpy\n"
        f"print([m for m in {heavy} if m in sys.modules])\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.splitlines() == ["[]", "['numpy']"]


def test_the_lazy_names_are_there():
    from rsclip_jax import api
    from rsclip_jax.data.scenes import opening

    assert rsclip_jax.load is api.load
    assert rsclip_jax.Model is api.Model
    assert rsclip_jax.open_scene is opening.open_scene
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        rsclip_jax.lod  # noqa: B018


@pytest.mark.parametrize(
    ("start", "more"),
    [
        ("from rsclip_jax import load", ("grain", "array_record", "rasterio")),
        ("import rsclip_jax.main, rsclip_jax.stages.registry", ()),
    ],
)
def test_importing_what_starts_loads_only_what_it_needs(start, more):
    """Most of its two seconds are jax's; each of these takes up to another one."""
    others = ("matplotlib", "sklearn", "scipy.stats", "pyarrow", *more)
    others += ("tensorflow", "tensorflow_datasets", "huggingface_hub")
    code = (
        "import sys\n"
        f"{start}\n"
        "assert 'jax' in sys.modules\n"
        f"print([m for m in {others} if m in sys.modules])\n"
    )
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
    assert out.stdout.split("\n")[0] == "[]"
