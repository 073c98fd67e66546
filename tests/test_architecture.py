"""The rules of the source tree, checked on its syntax trees: who imports whom, sizes, manners."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAYERS = (
    {"errors"},
    {"config"},
    {"durable", "page", "randomness", "settings"},
    {"data"},
    {"phantom", "models"},
    {"cost"},
    {"encoders", "objectives"},
    {"train", "probes"},
    {"pictures"},
    {"runs"},
    {"pretrain", "evaluate", "embed", "predict"},
    {"replay", "benchmark"},
    {"on_ray"},
    {"launch"},
    {"cli", "ray_jobs"},
)
"""The rooms. Each imports from itself and from lines above it."""
MAX_FILE_LINES = 300
MAX_JOB_LINES = 15
MAX_ROOM_FILES = 15
MAX_FUNCTION_LINES = 50
MAX_PARAMETERS = 6

Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_name(path: Path) -> str:
    """Dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted([*ROOT.glob("echojepa/**/*.py"), *ROOT.glob("ray_jobs/*.py")])
NAMES = {module_name(path): path for path in FILES}
TREES = {path: ast.parse(path.read_text()) for path in FILES}


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names a file imports anywhere, inside functions too."""
    return frozenset(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                whole = inner in NAMES or node.module in ("ray", "pickle")
                yield inner if whole else str(node.module)


def room(name: str) -> str:
    """The entry of `LAYERS` that a module belongs to."""
    first, _, rest = name.partition(".")
    return rest.partition(".")[0] if first == "echojepa" else first


def layer(name: str) -> int:
    """Position of a module in `LAYERS`."""
    found = [i for i, rooms in enumerate(LAYERS) if room(name) in rooms]
    assert found, f"{name} has no room in LAYERS"
    return found[0]


def within(name: str, package: str) -> bool:
    """Whether a module is a package or lies in it."""
    return name == package or name.startswith(f"{package}.")


def users(package: str) -> set[str]:
    """Our modules that import a package."""
    return {module_name(p) for p in FILES if any(within(name, package) for name in imports(p))}


@cache
def nodes() -> list[tuple[str, ast.AST]]:
    """Every node of every file, with its file and line."""
    return [
        (f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
    ]


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """All calls, with their file and line and the dotted name that is called."""
    for where, node in nodes():
        if isinstance(node, ast.Call):
            yield where, ast.unparse(node.func), node


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when a module is imported, defaults of arguments and decorators included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.Lambda):
            defaults = [d for d in [*child.args.defaults, *child.args.kw_defaults] if d]
            for part in [*defaults, *getattr(child, "decorator_list", [])]:
                yield from ast.walk(part)
        else:
            yield child
            yield from outside_functions(child)


def test_the_walk_sees_the_whole_tree() -> None:
    assert {"echojepa.pretrain", "echojepa.phantom.anatomy.heart", "ray_jobs.sweep"} <= NAMES.keys()
    assert "echojepa.launch.pretrain" in imports(NAMES["echojepa.cli.main"])
    assert "echojepa.on_ray.stream" in imports(NAMES["echojepa.on_ray.worker"])


def test_imports_point_left() -> None:
    wrong = []
    for name, path in NAMES.items():
        ours = {n for n in imports(path) if within(n, "echojepa") or within(n, "ray_jobs")}
        if name == "echojepa":
            assert not ours
            continue
        left = {n for n in ours if room(n) == room(name) or layer(n) < layer(name)}
        wrong += [f"{name} imports {target}" for target in sorted(ours - left)]
    assert not wrong


def test_modules_do_not_import_each_other_in_circles() -> None:
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name not in done and NAMES[name].name != "__init__.py":
            for target in sorted(imports(NAMES[name]) & NAMES.keys()):
                visit(target, (*trail, name))
            done.add(name)

    for name in NAMES:
        visit(name, ())


def test_each_third_party_lives_behind_one_seam() -> None:
    internals = {"echojepa.on_ray.internals"}
    assert users("deepspeed") == {"echojepa.train.zero_engine"}
    assert users("ray.data") - internals == {"echojepa.on_ray.stream"}
    assert users("ray.tune") == {"echojepa.on_ray.tuning"}
    assert users("ray") and all(room(name) == "on_ray" for name in users("ray"))


def test_private_parts_of_ray_are_in_one_file() -> None:
    def is_private(name: str) -> bool:
        parts = name.split(".")
        unofficial = name.startswith(("ray.train.v2", "ray.core"))
        return parts[0] == "ray" and (unofficial or any(p.startswith("_") for p in parts))

    found = {n for n, path in NAMES.items() if any(map(is_private, imports(path)))}
    for where, node in nodes():
        if isinstance(node, ast.Attribute) and is_private(ast.unparse(node)):
            found.add(module_name(ROOT / where.split(":")[0]))
    assert found == {"echojepa.on_ray.internals"}


def test_what_trains_does_not_know_what_is_learnt() -> None:
    """Loop, engines, checkpoints and monitor know an objective by its `Facts` alone."""
    for name, path in NAMES.items():
        if room(name) in ("train", "runs", "pretrain", "probes"):
            for kind in ("jepa", "frozen_target", "latent", "mae", "supervised", "regulariser"):
                known = any(within(n, f"echojepa.objectives.{kind}") for n in imports(path))
                assert not known, f"{name} knows {kind}"
            code = "\n".join(ast.unparse(node) for node in _code_only(TREES[path]))
            assert "jepa" not in code.lower().replace("echojepa", "").replace("vjepa2", ""), name


def _code_only(tree: ast.Module) -> list[ast.stmt]:
    """The statements of a file without docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | Function):
            node.body = [s for s in node.body if not _is_text(s)] or [ast.Pass()]
    return tree.body


def _is_text(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def test_the_decode_side_does_not_import_torch() -> None:
    """A decode process that imported torch would start seconds later and weigh 300 MB more."""
    names = [n for n in NAMES if within(n, "echojepa.data")]
    assert "echojepa.data.block" in names
    names.append("echojepa.on_ray.stream")  # where decode actors are defined
    program = f"import sys, {', '.join(names)}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0


def test_rooms_are_small_and_have_a_map() -> None:
    """One line of the `__init__` docstring per file or sub-room, in any order, none forgotten."""
    for init in sorted(ROOT.glob("echojepa/**/__init__.py")):
        folder = init.parent
        files = {f.name for f in folder.glob("*.py")} - {"__init__.py", "__main__.py"}
        rooms = {f"{d.name}/" for d in folder.iterdir() if (d / "__init__.py").is_file()}
        assert len(files) + 1 <= MAX_ROOM_FILES, folder
        lines = (ast.get_docstring(ast.parse(init.read_text())) or "").splitlines()
        named = {line.split()[0] for line in lines if line.strip()}
        assert files | rooms <= named, f"{folder}: the map lacks {files | rooms - named}"
        entries = {name for name in named if name.endswith((".py", "/"))}
        assert entries == files | rooms, f"{folder}: the map names {entries - files - rooms}"


def test_files_are_short() -> None:
    lines = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in FILES}
    jobs = {path: number for path, number in lines.items() if path.parts[0] == "ray_jobs"}
    tests = {p.relative_to(ROOT): p for p in (ROOT / "tests").rglob("*.py")}
    lines |= {path: len(file.read_text().splitlines()) for path, file in tests.items()}
    assert not {path: number for path, number in lines.items() if number > MAX_FILE_LINES}
    assert jobs
    assert not {path: number for path, number in jobs.items() if number > MAX_JOB_LINES}


def test_functions_are_short_and_take_few_parameters() -> None:
    wrong = []
    for where, node in nodes():
        if isinstance(node, Function):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            given = node.args
            every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            number = sum(a is not None and a.arg not in ("self", "cls") for a in every)
            if lines > MAX_FUNCTION_LINES or number > MAX_PARAMETERS:
                wrong.append(f"{where} {node.name}: {lines} lines, {number} parameters")
    assert not wrong


def test_only_named_errors_are_caught_but_at_the_one_boundary_where_a_clip_is_decoded() -> None:
    broad = []
    for where, node in nodes():
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "Exception"
            if re.search(r"\b(Base)?Exception\b", caught):
                broad.append(where.split(":")[0])
    assert broad == ["echojepa/data/problem.py"]


def test_ignored_type_errors_are_named() -> None:
    bare = re.compile(r"#\s*type:\s*ignore(?!\[)")
    assert not [path for path in FILES if bare.search(path.read_text())]


def test_only_the_error_boundary_prints() -> None:
    assert {where.split(":")[0] for where, name, _ in calls() if name == "print"} == {
        "echojepa/errors.py"
    }


def test_nothing_is_unpickled() -> None:
    readers = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    harmless = {"pickle.UnpicklingError"}  # what PyTorch's restricted reader raises
    wrong = [
        path for path in FILES if readers & {n.split(".")[0] for n in imports(path) - harmless}
    ]
    for where, name, call in calls():
        settings = {k.arg: ast.unparse(k.value) for k in call.keywords}
        unsafe = {
            "torch.load": settings.get("weights_only") != "True",
            "np.load": settings.get("allow_pickle", "False") != "False",
            "yaml.load": True,
        }
        if unsafe.get(name):
            wrong.append(where)
    assert not wrong


def test_importing_a_module_reads_no_environment_and_changes_no_global_state() -> None:
    reads = {"os.environ", "os.getenv", "os.putenv"}
    acts = {"logging.basicConfig", "torch.manual_seed", "np.random.seed", "torch.set_num_threads"}
    found = [
        f"{module_name(path)}:{node.lineno}"
        for path, tree in TREES.items()
        for node in outside_functions(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in reads | acts
    ]
    assert not found
