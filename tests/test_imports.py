"""The house has floors: a module imports from its own floor or from floors below, and nothing in a circle."""

import ast
from pathlib import Path
from typing import Dict, List, Set

import spacy_bert_heads

PACKAGE = Path(spacy_bert_heads.__file__).parent
# From the ground up. What stands together in a row may not import each other.
FLOORS = [
    {"__init__", "errors", "types", "defaults"},
    {"tags", "character_tokenizer", "extensions", "factory_names", "files", "threads"},
    {"pipeline_io", "pictures"},
    {"layers"},
    {"models"},
    {"pipeline", "backends", "corpus", "encoders"},
    {"project"},
    {"training", "bulk"},
    {"evaluation"},
    {"annotation", "packaging"},
    {"prodigy_recipes", "cli"},
]
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def read_imports() -> Dict[str, Set[str]]:
    """Modules of this package that each one names in an import, inside functions too."""
    modules = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    found: Dict[str, Set[str]] = {}
    for name, path in modules.items():
        package = path.relative_to(PACKAGE).parent.parts
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
                target = ".".join(part for part in base if part)
                for alias in node.names:
                    full = f"{target}.{alias.name}".strip(".")
                    found[name].add(full if full in modules else target or "__init__")
    return found


IMPORTS = read_imports()


def find_circle(imports: Dict[str, Set[str]]) -> List[str]:
    done: Set[str] = set()

    def visit(name: str, way: List[str]) -> List[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for target in sorted(imports.get(name, ())):
            circle = visit(target, [*way, name])
            if circle:
                return circle
        done.add(name)
        return []

    return next(filter(None, (visit(name, []) for name in sorted(imports))), [])


def test_imports_are_found_and_a_circle_would_be() -> None:
    assert "layers.crf.layer" in IMPORTS["models.bilstm_crf"]
    assert "project.configs" in IMPORTS["training.fit_config"]
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert find_circle(IMPORTS) == []


def test_imports_go_down() -> None:
    for name, targets in IMPORTS.items():
        room = name.split(".")[0]
        for target in targets:
            below = target.split(".")[0]
            assert room == below or LEVEL[below] < LEVEL[room], f"{name} imports {target}"


def test_every_room_has_its_floor() -> None:
    assert {name.split(".")[0] for name in IMPORTS} == set(LEVEL)
