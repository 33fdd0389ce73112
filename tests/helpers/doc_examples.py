"""The examples in a module's docstrings, run."""

import ast
import doctest
import inspect
from types import ModuleType


def run_examples(module: ModuleType) -> int:
    """Runs the examples of a module; the number of its public functions.

    Each public function needs an example. doctest.testmod would find none where an
    import hook has wrapped the functions.
    """
    tree = ast.parse(inspect.getsource(module))
    functions = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    for node in functions:
        text = ast.get_docstring(node) or ""
        test = parser.get_doctest(
            text, dict(vars(module)), node.name, module.__file__, node.lineno
        )
        assert test.examples, f"{node.name} has no example"
        found: list[str] = []
        runner.run(test, out=found.append)
        assert not found, "".join(found)
    return len(functions)
