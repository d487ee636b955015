"""The documentation can't drift from the code, nor the code from the house's rules."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "wherry"
TABLES = {"tables", "data"}  # directories of generated tables


def modules():
    return [p for p in sorted(SOURCE.rglob("*.py")) if not TABLES & set(p.parts)]


def test_the_compatibility_page_is_true():
    subprocess.run([sys.executable, ROOT / "script" / "compatibility", "--check"], check=True)


def test_functions_fit_a_screen_and_files_a_sitting():
    long = [f"{p}: {n} lines" for p in modules() if (n := len(p.read_text().splitlines())) > 700]
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > 100:
                    long.append(f"{path}:{node.lineno} {node.name}: {lines} lines")
    assert long == []


def test_ctypes_lives_in_linux_alone():
    offenders = [p for p in modules() if "linux" not in p.parts and "import ctypes" in p.read_text()]
    assert offenders == []


def test_only_the_store_joins_paths_of_the_state_tree():
    joins = re.compile(r'paths\.[a-z_]+(\([^)]*\))? / f?"')
    offenders = [str(p) for p in modules() if p.name != "paths.py" and joins.search(p.read_text())]
    assert offenders == []


def test_every_module_says_what_it_is():
    silent = [p for p in modules() if not ast.get_docstring(ast.parse(p.read_text()))]
    assert silent == []
