"""The version of lmr that runs. Packages are looked through when it is asked for, not when a module is imported."""


def program_version() -> str:
    """The version that is installed, such as 0.1.0."""
    from importlib.metadata import version

    return version("lmr")
