"""Numbers of things in sentences, in the singular where there is one."""


def counted(n: int, noun: str, *, of: int | None = None) -> str:
    """`1 picture`, `2,000 pictures`, `0 queries`; with `of`: `1 of 2 pictures`, where the second number decides."""
    last = n if of is None else of
    before = "" if of is None else f"{n:,} of "
    return f"{before}{last:,} {noun if last == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """`query` -> `queries`, `box` -> `boxes`, `epoch` -> `epochs`."""
    if noun.endswith("y") and noun[-2:-1] not in "aeou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "sh")) else f"{noun}s"


def none_can(n: int, noun: str, *, can: str = "can", whose: str = "the") -> str:
    """`none of the 3 pictures can`, `the only picture cannot`; with `could`: `the only picture could not`."""
    if n == 1:
        return f"{whose} only {noun} {'cannot' if can == 'can' else f'{can} not'}"
    return f"none of {whose} {counted(n, noun)} {can}"


def agreeing(n: int, one: str, many: str) -> str:
    """The verb or word that goes with so many things."""
    return one if n == 1 else many
