"""The tables of docs/scale.md, from what plan.py found."""

from typing import Any

SHOWN = ("8", "32", "128", "512")  # executors
N_DIGITS = 2


def tables(plan: dict[str, Any]) -> list[str]:
    """Jobs by executors, tasks a slot, queries by shards, and Milvus, in Markdown."""
    return [of_jobs(plan), of_tasks(plan), of_search(plan), of_milvus(plan)]


def of_jobs(plan: dict[str, Any]) -> str:
    """Hours and dollars by pictures and executors, and the parts at the knee."""
    shown = [k for k in SHOWN if k in next(iter(plan["jobs"].values()))]
    heads = [f"{k} executors" for k in shown]
    lines = [row("pictures", *heads, "knee", "of which embedding, joining, lists, codes, merging")]
    lines.append(row(*["---"] * (len(shown) + 3)))
    for n, jobs in plan["jobs"].items():
        knee = plan["knees"][n]["executors"]
        hours = jobs[str(knee)]["hours"]
        cells = [f"{number(jobs[k]['total_hours'])} h, ${number(jobs[k]['dollars'])}" for k in shown]
        parts = ", ".join(number(part) for part in hours.values())
        lines.append(row(power(n), *cells, f"**{knee}**: {number(jobs[str(knee)]['total_hours'])} h", parts))
    return "\n".join(lines)


def of_tasks(plan: dict[str, Any]) -> str:
    """Time of embedding by tasks a slot, as a multiple of the ideal."""
    cases = plan["tasks"]["over_ideal"]
    numbers = list(next(iter(cases.values())))
    lines = [row("tasks a slot", *numbers), row(*["---"] * (len(numbers) + 1))]
    lines += [row(case, *(f"{times:.2f}" for times in of_case.values())) for case, of_case in cases.items()]
    return "\n".join(lines)


def of_search(plan: dict[str, Any]) -> str:
    """Core milliseconds of a query by shards, and what memory asks for."""
    numbers = list(next(iter(plan["search"].values()))["query_ms"])
    heads = ["rows", *(f"{k} shard" + "s" * (k != "1") for k in numbers), "exact, s", "shards that the memory needs"]
    lines = [row(*heads), row(*["---"] * len(heads))]
    for n, found in plan["search"].items():
        needed = f"{found['shards_needed']}, `ivf-pq-small` {found['shards_needed_small']}"
        times = [number(found["query_ms"][k]) for k in numbers]
        lines.append(row(power(n), *times, number(found["exact_query_s"]), needed))
    return "\n".join(lines)


def of_milvus(plan: dict[str, Any]) -> str:
    """Nodes, queries a second and dollars of a collection by its index."""
    sizes = list(plan["milvus"])
    lines = [
        row("index", "bytes a row in memory, on disk", *(f"{power(n)}: nodes, queries/s, $ a month" for n in sizes))
    ]
    lines.append(row(*["---"] * (len(sizes) + 2)))
    for kind in plan["milvus"][sizes[0]]:
        of_kind = [plan["milvus"][n][kind] for n in sizes]
        cells = [f"{one['nodes']}, {number(one['queries_s'])}, {number(one['dollars_month'])}" for one in of_kind]
        memory, disk = (number(of_kind[0][name], 4) for name in ("row_bytes", "disk_row_bytes"))
        lines.append(row(f"`{kind}`", f"{memory}, {disk}", *cells))
    return "\n".join(lines)


def row(*cells: object) -> str:
    """A line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def number(value: float, digits: int = N_DIGITS) -> str:
    """To so many digits, with commas."""
    return f"{float(f'{value:.{digits}g}'):,.15g}"


def power(n: str) -> str:
    """`1e+08` as 10⁸, where it is a power of ten."""
    exponent = len(f"{float(n):.0f}") - 1
    return f"10{'⁰¹²³⁴⁵⁶⁷⁸⁹'[exponent]}" if float(n) == 10**exponent and exponent < 10 else f"{float(n):,.0f}"
