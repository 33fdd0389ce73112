"""python -m tests.settings_page: writes the settings' tables of configs/README.md.

A setting's meaning is the comment above it in configs/*.py, its default the value
there. tests/docs_test.py compares the page with what this makes, and the settings that
it names with those that the configs have.
"""

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "configs"
PAGE = FOLDER / "README.md"
BEGIN = "<!-- made by python -m tests.settings_page -->\n"
END = "<!-- end -->\n"
TRAINED = ("pretrain", "patch", "align")  # the stages that have training's settings
# function of common.py -> its settings' prefixes
SECTIONS = {
    "base": ("config",),
    "training": tuple(f"config.{stage}" for stage in TRAINED),
    **{stage: (f"config.{stage}",) for stage in (*TRAINED, "evaluate", "ablate")},
    **{stage: (f"config.{stage}",) for stage in ("export", "map", "inspect", "pack")},
}
Row = tuple[str, str, str]  # name within its section, default, meaning


def main() -> None:
    """Writes the page's tables anew, the text around them as it is."""
    PAGE.write_text(with_tables(PAGE.read_text("utf-8")), "utf-8")


def with_tables(page: str) -> str:
    """The page with the tables between its two marks made anew."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + "\n" + make_tables() + END + rest.split(END)[1]


def make_tables() -> str:
    """A heading, what the section is, and a table for each section of settings."""
    parts = []
    for name, (about, rows) in read_sections().items():
        heading = ", ".join(f"`{prefix}.`" for prefix in SECTIONS[name])
        lines = [f"| `{key}` | {default} | {words} |" for key, default, words in rows]
        table = "\n".join(["| setting | default | meaning |", "|---|---|---|", *lines])
        parts.append(f"### {heading}\n\n{about}\n\n{table}\n")
    return "\n".join(parts) + "\n"


def documented() -> set[str]:
    """The full names of all settings that the tables have: "config.patch.lr"."""
    return {
        f"{prefix}.{key}"
        for name, (_, rows) in read_sections().items()
        for prefix in SECTIONS[name]
        for key, _, _ in rows
    }


def read_sections() -> dict[str, tuple[str, list[Row]]]:
    """{function of common.py: (its docstring, its settings)}; other files' in base's.

    Raises ValueError for a setting without a comment above it.
    """
    found = {}
    functions, comments, text = read_file(FOLDER / "common.py")
    for name in SECTIONS:
        about = ast.get_docstring(functions[name]) or ""
        rows = list(find_settings(functions[name], comments, text))
        found[name] = (about, rows)
    base = found["base"][1]
    for path in sorted(FOLDER.glob("*.py")):
        if path.name in ("common.py", "__init__.py"):
            continue
        functions, comments, text = read_file(path)
        for function in functions.values():
            for key, _, words in find_settings(function, comments, text):
                if words and key not in {row[0] for row in base}:
                    base.append((key, "", f"{words} (`{path.name}`)"))
    for name, (_, rows) in found.items():
        if bare := [key for key, _, words in rows if not words]:
            raise ValueError(f"configs/common.py: {name} has no comment above {bare}")
    return found


def read_file(path: Path) -> tuple[dict[str, ast.FunctionDef], dict[int, str], str]:
    """A file's functions, its comments by line number, and its text."""
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = text.splitlines()
    comments = {
        t.start[0]: t.string.removeprefix("#").strip()
        for t in tokens
        if t.type == tokenize.COMMENT and lines[t.start[0] - 1].strip() == t.string
    }
    return functions, comments, text


def find_settings(
    function: ast.FunctionDef, comments: dict[int, str], text: str
) -> Iterator[Row]:
    """The settings that a function assigns, in its order; "" without a comment."""
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign):
            continue
        target, value = node.targets[0], node.value
        is_call = isinstance(value, ast.Call)
        inner = value.args[0] if is_call and value.args else value
        if isinstance(target, ast.Name) and target.id == "settings":
            if isinstance(value, ast.Dict):
                yield from find_keys(value, "", comments, text)
        elif (full := ast.unparse(target)).startswith("config."):
            name = full.removeprefix("config.")
            if isinstance(inner, ast.Dict):
                yield from find_keys(inner, f"{name}.", comments, text)
            elif not (is_call and "common." in ast.unparse(value.func)):
                yield (
                    name,
                    default_of(value, text),
                    comment_above(node.lineno, comments),
                )


def find_keys(
    node: ast.Dict, prefix: str, comments: dict[int, str], text: str
) -> Iterator[Row]:
    for key, value in zip(node.keys, node.values, strict=True):
        assert isinstance(key, ast.Constant)
        name = f"{prefix}{key.value}"
        if isinstance(value, ast.Dict):
            yield from find_keys(value, f"{name}.", comments, text)
        else:
            line = key.lineno
            if line not in comments and line - 1 not in comments:
                line = node.lineno  # a dict on one line: the comment is above it
            yield name, default_of(value, text), comment_above(line, comments)


def comment_above(line: int, comments: dict[int, str]) -> str:
    """The comment that ends above a line, as one line for a cell of a table."""
    words: list[str] = []
    while (line := line - 1) in comments:
        words.insert(0, comments[line])
    return " ".join(words).replace("|", "\\|").replace("<", "&lt;")


def default_of(node: ast.expr, text: str) -> str:
    """A default as the file spells it, for a cell of a table."""
    source = " ".join((ast.get_source_segment(text, node) or "").split())
    if "placeholder" in source:
        source = "None"
    if isinstance(node, ast.Name):
        return "by config"
    return f"`{source}`".replace("|", "\\|")


if __name__ == "__main__":
    main()
