"""The house: which way imports go, in no circle; that only the command line knows its options; its page."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = ("retrieval", "index", "lmr", "cli")  # from the lowest; a module imports from its own floor and from below
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
# Options of other programs, and of ours in texts that leave the program as they are: in files, or to servers.
NOT_OURS = {"--no-deps", "--nproc-per-node"}
AS_THEY_ARE = {
    "--allow-private (allow_private=True) lets it pass",
    "--threshold",  # a key in the records of submissions
}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted([ROOT / "lmr.py", *(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))])
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}

Graph = Mapping[str, frozenset[str]]


def walk(node: ast.AST, *, everywhere: bool) -> Iterator[ast.AST]:
    """The nodes below, but those under TYPE_CHECKING; and where not `everywhere` those within functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not everywhere:
            continue
        yield child
        yield from walk(child, everywhere=everywhere)


def imports(module: str, *, everywhere: bool) -> frozenset[str]:
    """The modules of the house that one imports. everywhere: also within functions."""
    found: set[str] = set()
    for node in walk(TREES[module], everywhere=everywhere):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (submodules & MODULES.keys()) or {node.module}
    return frozenset(found & MODULES.keys() - {module})


def room(module: str) -> str:
    """The folder of a module within its floor, `retrieval/images`; `retrieval` for one that lies in none."""
    return "/".join(MODULES[module].relative_to(ROOT).parent.parts[:2]) or module


def circles(graph: Graph) -> list[frozenset[str]]:
    """The nodes in groups, those of a circle together (Tarjan), each before all that reach it."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups: list[frozenset[str]] = []

    def visit(node: str) -> None:
        number[node] = lowest[node] = len(number)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in number:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], number[other])
        if lowest[node] == number[node]:
            i = stack.index(node)
            groups.append(frozenset(stack[i:]))
            del stack[i:]

    for node in sorted(graph):
        if node not in number:
            visit(node)
    return groups


def rooms() -> Graph:
    """Which rooms import from which, within functions too. Modules in no room belong to all of their floor."""
    found: dict[str, set[str]] = {room(module): set() for module in MODULES}
    for module in MODULES:
        found[room(module)] |= {room(other) for other in imports(module, everywhere=True)}
    ground = ("retrieval", "index")
    return {name: frozenset(others - {name, *ground}) for name, others in found.items() if name not in ground}


def diagram() -> str:
    """The rooms and their imports in Mermaid; rooms of a circle are one box, and arrows that follow are left out."""
    graph = rooms()
    groups = circles(graph)
    box = {name: "_".join(sorted(group)).replace("/", "_") for group in groups for name in group}
    label = {box[name]: ", ".join(sorted(group)) for group in groups for name in group}
    direct = {
        box[name]: {box[other] for member in group for other in graph[member]} - {box[name]}
        for group in groups
        for name in group
    }
    reached: dict[str, set[str]] = {}
    for group in groups:  # those that others reach come first
        own = box[min(group)]
        reached[own] = direct[own].union(*(reached[other] for other in direct[own]))
    arrows = sorted(
        f"    {one} --> {other}"
        for one, others in direct.items()
        for other in others - set().union(*(reached[further] for further in others))
    )
    floors = []
    for floor in reversed(FLOORS):
        boxes = sorted({box[name] for name in graph if name.split("/")[0] == floor})
        floors += [f"    subgraph floor_{floor} [{floor}]"]
        floors += [f'        {name}["{label[name]}"]' for name in boxes] + ["    end"]
    return "\n".join(["flowchart TD", *floors, *arrows])


def test_no_import_goes_upward() -> None:
    upward = [
        f"{module} imports {other}"
        for module in MODULES
        for other in imports(module, everywhere=True)
        if FLOORS.index(other.split(".")[0]) > FLOORS.index(module.split(".")[0])
    ]
    assert upward == []


def test_modules_import_each_other_in_no_circle() -> None:
    graph = {module: imports(module, everywhere=False) for module in MODULES}
    assert [sorted(group) for group in circles(graph) if len(group) > 1] == []


def test_only_the_command_line_spells_its_options() -> None:
    spelt = []
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if module.startswith("cli") or not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
                continue
            found = set(OPTION.findall(node.value)) - NOT_OURS if node.value not in AS_THEY_ARE else set()
            spelt += [f"{MODULES[module].relative_to(ROOT)}:{node.lineno}: {option}" for option in sorted(found)]
    assert spelt == []


def test_the_diagram_of_the_rooms_is_that_of_their_imports() -> None:
    page = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    (drawn,) = re.findall(r"```mermaid\n(.*?)\n```", page, flags=re.DOTALL)
    assert drawn == diagram()


def test_a_way_through_the_house_is_short() -> None:
    page = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    ways = re.findall(r"of `lmr (\w+)` passes [^\n]*\n\n((?: +\d+  [^\n]*\n)+)", page)
    files = {name: re.findall(r"^ +(\d+)  (\S+\.py) ", way, flags=re.MULTILINE) for name, way in ways}
    most = {"query": 9, "embed": 12, "train": 20}
    assert files.keys() == most.keys()
    for name, listed in files.items():
        assert [int(number) for number, _ in listed] == list(range(1, len({file for _, file in listed}) + 1))
        assert len(listed) <= most[name]


def test_files_that_documents_name_are_there_and_hold_what_is_named() -> None:
    lost = []
    for document in [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        places = re.findall(r"(?<![\w/])(?:cli|index|retrieval)/[a-z\d_/]+\.py\b", document.read_text(encoding="utf-8"))
        lost += [f"{document.name}: {place}" for place in places if not (ROOT / place).is_file()]
    how = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    for place, names in re.findall(r"^    .*?(\S+\.py) +(\w+(?:\.\w+)?) ", how, flags=re.MULTILINE):
        source = (ROOT / place).read_text(encoding="utf-8")
        lost += [f"{place}: {name}" for name in names.split(".") if not re.search(rf"(def|class) {name}\b", source)]
    assert lost == []
