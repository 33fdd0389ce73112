"""The pages: Python runs, commands parse, links, paths, names and settings hold."""

import ast
import pkgutil
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from absl import flags
from ml_collections import ConfigDict, config_flags

from rsclip_jax.data.catalog.custom import load_dataset
from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.datasets import get_dataset
from rsclip_jax.data.sensors.custom import load_sensor
from rsclip_jax.main import name_dataset
from rsclip_jax.stages.shared import workdir
from rsclip_jax.weights.encoders import ENCODERS
from rsclip_jax.weights.pretrained import PRETRAINED
from tests import settings_page
from tests.conftest import REPO
from tests.helpers.runs import few_scenes

FOLDERS = ("rsclip_jax", "configs", "launch", "colabs", "tests")
PAGES = (
    *sorted(REPO.glob("*.md")),
    *sorted(path for folder in FOLDERS for path in (REPO / folder).rglob("*.md")),
)
NAMES = [str(path.relative_to(REPO)) for path in PAGES]
EACH = pytest.mark.parametrize("name", NAMES)
DATA_PAGE = "rsclip_jax/data/README.md"


def read(name: str) -> str:
    return (REPO / name).read_text("utf-8")


def blocks(name: str, language: str) -> list[tuple[str, str]]:
    """(what stands behind the language, the code) of a page's fenced blocks."""
    found = re.findall(r"^```(\w*) ?([^\n]*)\n(.*?)^```", read(name), re.M | re.S)
    return [(info, code) for kind, info, code in found if kind == language]


def prose(name: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", read(name), flags=re.M | re.S)


def inline_code(name: str) -> list[str]:
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(name))]


def sections(name: str) -> dict[str, str]:
    """{what a heading is linked by: its section, deeper ones included}."""
    heads, fenced, lines = [], False, read(name).splitlines()
    for i, line in enumerate(lines):
        fenced ^= line.startswith("```")
        if not fenced and (match := re.match(r"(#+) (.*)", line)):
            anchor = re.sub(r"[^\w\- ]", "", match[2].lower()).replace(" ", "-")
            heads.append((i, len(match[1]), anchor))
    found = {}
    for i, depth, anchor in heads:
        later = [j for j, other, _ in heads if j > i and other <= depth]
        found[anchor] = "\n".join(lines[i : later[0] if later else None])
    return found


def test_every_room_with_questions_has_its_page():
    rooms = ("", "data", "weights", "evals", "stages", "report")
    wanted = [f"rsclip_jax/{room}/README.md".replace("//", "/") for room in rooms]
    wanted += [f"{folder}/README.md" for folder in FOLDERS[1:]]
    assert {*wanted, "README.md", "CONTRIBUTING.md", "CHANGELOG.md"} <= set(NAMES)


# links, paths, names


@EACH
def test_links_within_the_repository_resolve(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(name)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        found = ((REPO / name).parent / path).resolve() if path else REPO / name
        assert found.exists(), f"{name}: {target}"
        if anchor:
            assert anchor in sections(str(found.relative_to(REPO))), f"{name}: {target}"


@EACH
def test_paths_that_a_page_names_exist(name):
    tops = "|".join(FOLDERS)
    for code in inline_code(name):
        if match := re.fullmatch(rf"((?:{tops})/[\w./-]+)(:\w+)?", code):
            assert (REPO / match[1]).exists(), f"{name}: {code}"


@EACH
def test_modules_and_names_that_a_page_names_exist(name):
    if name == "CHANGELOG.md":
        return  # speaks of earlier versions
    text = read(name)
    for module in re.findall(r"-m ((?:tests|colabs|rsclip_jax)[\w.]*)", text):
        path = REPO / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or path.is_dir(), module
    for dotted in re.findall(r"`(rsclip_jax(?:\.\w+)+)`", text):
        pkgutil.resolve_name(dotted)


def test_the_map_of_the_package_is_its_tree():
    package = REPO / "rsclip_jax"
    text = read("rsclip_jax/README.md").split("## The map")[1].split("```")[1]
    found, parent = set(), ""
    for line in text.splitlines()[2:]:
        if match := re.match(r"( {2}| {4})([\w.]+/?)(  |$)", line):
            depth, name = len(match[1]), match[2]
            parent = name if depth == 2 else parent
            found.add(name if depth == 2 else f"{parent}{name}")
    modules = [p for p in package.rglob("*.py") if p.name != "__init__.py"]
    rooms = {f"{p.parent.relative_to(package)}/" for p in modules} - {"./"}
    assert rooms <= found
    assert {p.name for p in package.glob("*.py")} - {"__init__.py"} <= found
    assert [name for name in found if not (package / name).exists()] == []


# settings


def config_of(path: Path, variant: str = "") -> ConfigDict:
    """The config that a file makes."""
    scope: dict = {}
    exec(compile(path.read_text("utf-8"), str(path), "exec"), scope)
    return scope["get_config"](*filter(None, [variant]))


def all_configs() -> list[ConfigDict]:
    """Every config file, in every variant that its head names."""
    made = []
    for path in sorted((REPO / "configs").glob("*.py")):
        if path.name in ("common.py", "__init__.py"):
            continue
        head = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        variants = set(re.findall(rf"configs/{path.name}:(\w+)", head))
        made += [config_of(path, variant) for variant in ("", *sorted(variants))]
    return made


def flat(config: ConfigDict, prefix: str = "config") -> set[str]:
    """The full names of a config's settings."""
    found = set()
    for key in config:
        value, name = config.get(key), f"{prefix}.{key}"
        found |= flat(value, name) if isinstance(value, ConfigDict) else {name}
    return found


@pytest.fixture(scope="module")
def known() -> set[str]:
    """All settings, and the sections that hold them."""
    names = settings_page.documented()
    return names | {n.rpartition(".")[0] for n in names} | {"config"}


def test_the_table_of_settings_is_made_of_the_comments():
    page = settings_page.PAGE.read_text("utf-8")
    assert page == settings_page.with_tables(page), "python -m tests.settings_page"


def test_the_table_has_every_setting_and_no_other():
    configs = all_configs()
    assert len(configs) > 10
    assert set().union(*map(flat, configs)) == settings_page.documented()


def test_a_setting_without_a_comment_is_an_error(monkeypatch, tmp_path):
    for path in (REPO / "configs").glob("*.py"):
        shutil.copy(path, tmp_path)
    text = (tmp_path / "common.py").read_text()
    bare = re.sub(r"\n *# Steps between checkpoints\.", "", text)
    assert bare != text
    (tmp_path / "common.py").write_text(bare)
    monkeypatch.setattr(settings_page, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"training has no comment above.*checkpoint_"):
        settings_page.read_sections()


@EACH
def test_settings_that_a_page_names_exist(name, known):
    if name == "CHANGELOG.md":
        return
    text = re.sub(r"\bconfig\.(json|py|key)\b", "", read(name))
    for setting in re.findall(r"(?<![\w/.])(config(?:\.[a-z]\w*)+)", text):
        assert setting in known, f"{name}: {setting}"


@EACH
def test_settings_that_tables_name_exist(name, known):
    for table in re.findall(r"(?:^\|.*\n)+", read(name), re.M):
        section = re.match(r"\| settings? of `(config\.\w+)` ", table)
        for row in table.splitlines()[2:] if section else ():
            for code in re.findall(r"`(\w+)(?:=[^`]*)?`", row.split("|")[1]):
                full = f"{section[1]}.{code}"
                assert full in known, f"{name}: {full}"


def test_settings_that_may_change_in_a_workdir_are_named():
    text = sections("rsclip_jax/stages/README.md")["why-a-run-refuses-a-workdir"]
    named = set(re.findall(r"`([\w.]+)`", text))
    free = {re.sub(r"\w+\.(allow_\w+)", r"\1", name) for name in workdir._FREE}
    assert free <= named


# commands


def commands(name: str) -> list[str]:
    """Every command line of rsclip_jax.main on a page, from --config on."""
    lines = [code.replace("\\\n", " ") for _, code in blocks(name, "bash")]
    lines = [line for code in lines for line in code.splitlines()]
    lines += [code for code in inline_code(name) if "rsclip_jax.main" in code]
    found = [re.search(r"rsclip_jax\.main( .*)", line) for line in lines]
    return [match[1] for match in found if match and "--config=" in match[1]]


@EACH
def test_shell_blocks_are_shell(name):
    for _, code in blocks(name, "bash"):
        done = subprocess.run(
            ["bash", "-n"], input=code, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{name}: {code}\n{done.stderr}"


@pytest.mark.filterwarnings(
    "ignore:the load_module:DeprecationWarning"
)  # ml_collections'
@EACH
def test_commands_have_settings_of_their_config(name, monkeypatch):
    monkeypatch.chdir(REPO)
    for command in commands(name):
        args = shlex.split(command.partition(" && ")[0], comments=True)
        args = name_dataset(args)
        values = flags.FlagValues()
        config_flags.DEFINE_config_file("config", flag_values=values)
        for flag in ("workdir", "coordinator", "processes", "process"):
            flags.DEFINE_string(flag, None, "", flag_values=values)
        monkeypatch.setattr("sys.argv", ["main", *args])  # where it looks for settings
        assert values(["main", *args]) == ["main"], f"{name}: {command}"
        assert values.config.stages


def test_pages_have_commands_of_every_config():
    used = {
        m for n in NAMES for c in commands(n) for m in re.findall(r"=(configs/\w+)", c)
    }
    files = {p.stem for p in (REPO / "configs").glob("*.py")} - {"common", "__init__"}
    assert used >= {f"configs/{stem}" for stem in files}


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_a_wrong_setting_in_a_command_is_caught(monkeypatch, tmp_path):
    page = tmp_path / "README.md"
    page.write_text("```bash\npython -m rsclip_jax.main --config=configs/pack.py \\\n"
                    "    --config.pack.outt=x\n```\n")  # fmt: skip
    with pytest.raises(AttributeError, match="outt"):
        test_commands_have_settings_of_their_config(str(page), monkeypatch)


# Python and TOML


@EACH
def test_python_runs(name, tmp_path, monkeypatch, request):
    """Blocks of one page in turn; a block that downloads only as far as its imports."""
    if not blocks(name, "python") or name == "CONTRIBUTING.md":  # has a test of its own
        return
    copy = tmp_path / "runs/align_sar"
    shutil.copytree(request.getfixturevalue("tiny_run"), copy)
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    for info, code in blocks(name, "python"):
        tree = ast.parse(code)
        if info == "download":
            tree.body = [
                n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)
            ]
        with few_scenes():
            exec(compile(tree, name, "exec"), scope)


def test_the_front_pages_python_gives_what_it_says(tmp_path, monkeypatch, tiny_run):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/align_sar").symlink_to(tiny_run)
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    ((_, code),) = blocks("README.md", "python")
    with few_scenes():
        exec(code, scope)
    assert (scope["zsar"] @ scope["ztxt"].T).shape == (8, 2)
    assert scope["zrgb"].shape == scope["zsar"].shape
    assert scope["head"].shape == (scope["zsar"].shape[1], 3)


@EACH
def test_toml_blocks_describe_datasets_and_sensors(name, tmp_path):
    for _, text in blocks(name, "toml"):
        path = tmp_path / re.match(r"# (\w+\.toml)", text)[1]
        path.write_text(text, "utf-8")
        if re.search("^modality", text, re.M):
            assert load_sensor(path).bands
        else:
            assert load_dataset(path).sensors


def test_names_of_weights_in_the_tables_are_known():
    text = read("rsclip_jax/weights/README.md")
    loaded = re.findall(r'rsclip_jax\.load\("([A-Z][\w-]+)"', text)
    assert len(loaded) >= 5
    assert set(loaded) <= set(PRETRAINED)
    families = re.findall(r"`([\w-]+-)` with ((?:`[\w-]+`(?:, )?)+)", text)
    named = {f + one for f, rest in families for one in re.findall(r"`(.*?)`", rest)}
    assert named
    assert named <= set(PRETRAINED)
    encoders = re.findall(r'(?:load_encoder\("|row="|student=)([a-z][\w-]+)[`")]', text)
    assert len(encoders) >= 4
    assert set(encoders) <= set(ENCODERS)


def test_the_table_of_datasets_has_all_of_them():
    table = read(DATA_PAGE).split("## The datasets")[1].split("### WebDatasets")[0]
    cells = re.findall(r"^\| (.*?) \| (.*?) \|", table, re.M)
    named = {code for cell in cells for code in re.findall(r"`(\w+)`", " ".join(cell))}
    named |= {f"{n}{end}" for n in named for end in ("_spatial", "_s2")}
    assert set(DATASETS) <= named
    first = {code for cell, _ in cells for code in re.findall(r"`([a-z]\w+)`", cell)}
    for name in first:
        assert get_dataset(name).sensors


# what runs the checks elsewhere


def test_the_workflow_runs_what_contributing_asks():
    workflow = yaml.safe_load(read(".github/workflows/ci.yml"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert [step["run"] for step in steps if "run" in step] == ["bash .ci/run"]


def test_the_hooks_are_those_of_ci_run():
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    entries = [
        hook["entry"].replace(" --force-exclude", "") for hook in repository["hooks"]
    ]
    assert entries == ["ruff check", "ruff format", "mypy"]
    for entry in entries:
        assert f".venv-ci/bin/{entry}" in read(".ci/run")


# the front page


def test_the_front_page_is_short_and_begins_with_the_two_commands():
    text = read("README.md")
    assert text.count("\n") <= 200
    (_, first), *_ = blocks("README.md", "bash")
    install = "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"
    started = ("-m rsclip_jax.main --config=configs/align_sar.py", "-m pytest")
    wanted = [f"{install} && .venv/bin/python {command}" for command in started]
    assert first.splitlines() == wanted
    for command in started:
        assert f".venv-ci/bin/python {command}" in read(".ci/run")


@pytest.mark.parametrize(
    ("asked", "linked", "answer"),
    [
        ("GPU", "launch/README.md#on-an-nvidia-gpu", "jax[cuda"),
        ("TPU slice", "launch/README.md#on-a-cloud-tpu", "launch/tpu_vm.sh up"),
        ("Slurm", "launch/README.md#which-script", "slurm.sbatch"),
        (
            "memory",
            "launch/README.md#memory-of-vit-b32-and-vit-l14",
            "ViT-B/32 | patch",
        ),
        ("all settings", "configs/README.md#all-settings", "`batch_size` | `128`"),
        (
            "CSV recipe",
            f"{DATA_PAGE}#a-csv-table-from-start-to-finish",
            "--config=configs/patch.py",
        ),
        ("recall@10", "rsclip_jax/evals/README.md#metrics", "**recall@10** is"),
        (
            "export to Hugging Face",
            "rsclip_jax/weights/README.md#export-to-hugging-face-open_clip-and-timm",
            "--config.export.layout=hf",
        ),
        (
            "`outcomes/`",
            "rsclip_jax/stages/README.md#the-files-of-a-workdir",
            "outcomes/{before,after}",
        ),
        ("add a sensor", f"{DATA_PAGE}#a-sensor-of-your-own", "my_swir.toml"),
        (
            "refuse a workdir",
            "rsclip_jax/stages/README.md#why-a-run-refuses-a-workdir",
            "--config.overwrite=True",
        ),
        (
            "alpha chosen",
            "rsclip_jax/stages/README.md#how-alpha-is-chosen",
            "max_supported_drop",
        ),
    ],
)
def test_the_front_page_leads_to_the_answer(asked, linked, answer):
    contents = read("README.md").split("## Where to find what")[1].split("\n## ")[0]
    rows = [row for row in contents.splitlines() if f"({linked})" in row]
    assert any(asked in row for row in rows), (asked, linked)
    page, _, anchor = linked.partition("#")
    assert answer in sections(page)[anchor]
