"""Which of our files a stage's code depends on, found by reading, not by importing.

From a module, every static import of a project module is followed, also those inside functions.
Left out: `if TYPE_CHECKING:` and a package's module-level `__getattr__`, which run nothing here.
A file that is no Python and lies beside a reached module counts as code as well: it may be read
by it (a template, a table).
"""

import ast
import hashlib
import importlib.util
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = ("fastvlm_compile", "reference", "validation")
_PARSING = threading.Lock()
"""CPython before 3.11.8 fails when two threads parse at once (python/cpython gh-106905)."""


@dataclass(frozen=True, kw_only=True)
class _Module:
    """A module's file, its digest and the names that it imports, dotted and absolute."""

    path: Path
    sha256: str
    imports: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CodeReader:
    """Digests code; remembers what it has read, so make one per plan."""

    packages: tuple[str, ...] = PROJECT
    """Top-level modules that count as ours; all else is covered by tool versions."""
    _modules: dict[str, _Module | None] = field(default_factory=dict, repr=False)
    _roots: dict[str, Path] = field(default_factory=dict, repr=False)

    def digests(self, module: str) -> Mapping[str, str]:
        """Module or data file -> sha256, of everything that `module` needs of ours.

        Raises:
            ModuleNotFoundError: there is no such module.
            SyntaxError: one of the modules cannot be parsed.
        """
        if self._read(module) is None:
            raise ModuleNotFoundError(f"no module {module} in {', '.join(self.packages)}")
        reached: dict[str, _Module] = {}
        waiting = [module]
        while waiting:
            name = waiting.pop()
            found = None if name in reached else self._read(name)
            if found is not None:
                reached[name] = found
                waiting.extend(_with_parents(found.imports))
                waiting.extend(_with_parents([name]))
        digests = {name: found.sha256 for name, found in reached.items()}
        digests.update(_data_files(reached))
        return dict(sorted(digests.items()))

    def _read(self, name: str) -> _Module | None:
        if name not in self._modules:
            path = self._path(name)
            self._modules[name] = None if path is None else _parse(name, path)
        return self._modules[name]

    def _path(self, name: str) -> Path | None:
        """The file of a module of ours; None for others' modules and for what is no module."""
        top, *rest = name.split(".")
        if top not in self.packages:
            return None
        if top not in self._roots:
            self._roots[top] = _root(top)
        root = self._roots[top]
        if root.is_file():
            return None if rest else root
        stem = root.joinpath(*rest)
        candidates = (stem / "__init__.py", *((stem.with_name(f"{stem.name}.py"),) if rest else ()))
        return next((path for path in candidates if path.is_file()), None)


def _root(top: str) -> Path:
    """The folder of a top-level package, or the file of a top-level module."""
    spec = importlib.util.find_spec(top)
    if spec is None:
        raise ModuleNotFoundError(f"there is no module {top}")
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    found = next((folder for folder in folders if folder.is_dir()), None)
    if found is None:
        assert spec.origin is not None, f"{top} is neither a package nor a file"
        found = Path(spec.origin)
    return found


def _parse(name: str, path: Path) -> _Module:
    source = path.read_bytes()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    with _PARSING:
        tree = ast.parse(source, filename=str(path))
    imports = tuple(sorted(set(_imports(tree, package))))
    return _Module(path=path, sha256=hashlib.sha256(source).hexdigest(), imports=imports)


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    waiting: list[ast.AST] = [node for node in tree.body if not _is_lazy_door(node)]
    while waiting:
        node = waiting.pop()
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                base = _absolute(node, package)
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)
            case ast.If() if ast.unparse(node.test).endswith("TYPE_CHECKING"):
                waiting.extend(node.orelse)
            case ast.stmt() | ast.ExceptHandler() | ast.match_case():
                waiting.extend(ast.iter_child_nodes(node))


def _is_lazy_door(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == "__getattr__"


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parents = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*parents, *([node.module] if node.module else [])])


def _with_parents(names: Iterable[str]) -> Iterator[str]:
    """A module's packages run before it does."""
    for name in names:
        parts = name.split(".")
        yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _data_files(modules: Mapping[str, _Module]) -> Iterator[tuple[str, str]]:
    packages = {
        found.path.parent: name if found.path.name == "__init__.py" else name.rpartition(".")[0]
        for name, found in modules.items()
    }
    for folder, package in packages.items():
        if package:  # not for a lone module among strangers
            for path in _files_beside(folder):
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                yield f"{package}/{path.relative_to(folder).as_posix()}", digest


def _files_beside(folder: Path) -> Iterator[Path]:
    """Files that are no Python, in a package's folder and in its folders without code."""
    for path in folder.iterdir():
        if path.name.startswith((".", "__pycache__")) or path.suffix in (".py", ".pyc"):
            continue
        if path.is_file():
            yield path
        elif path.is_dir() and not any(path.glob("*.py")):
            yield from _files_beside(path)
