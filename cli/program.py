"""The program `lmr`: the commands, in a Python that reads the names of files as UTF-8 whatever the locale."""

import codecs
import os
import sys

from cli.main import main


def program() -> None:
    """Runs the command of the command line."""
    _open_streams()
    _begin_in_utf8()
    main()


def _open_streams() -> None:
    """Opens what the caller has closed of stdin, stdout and stderr, on nothing.

    Otherwise the next file that is opened gets the number of the stream, and what a library prints lands in it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8"))


def _begin_in_utf8() -> None:
    """Starts Python anew in its UTF-8 mode where the locale gives file names another encoding.

    Names are bytes on disk, and ids and labels are made of them: they must be the same text in every locale. Processes
    that this one starts read the mode from the environment. What is printed keeps the encoding of the terminal.
    """
    if os.name != "posix" or codecs.lookup(sys.getfilesystemencoding()).name == "utf-8" or not sys.executable:
        return
    environment = {**os.environ, "PYTHONUTF8": "1"}
    if sys.stdout is not None:
        environment.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:backslashreplace")
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], environment)
