"""`lmr`: the group of commands. A command's module is imported when the command runs, so that --help is quick."""

import codecs
import difflib
import importlib
import os
import sys
from collections.abc import Mapping

import click

from cli.terminal import lacking, shown_line, shown_lines, warn, with_options
from retrieval.errors import LmrError
from retrieval.images.noise import told_once

COMMANDS: Mapping[str, tuple[str, str]] = {
    "demo": ("cli.demo.command", "Make a small set of landmarks and run everything on it, or on your own folder."),
    "download": ("cli.download", "Fetch the images of a manifest, resized on arrival."),
    "stats": ("cli.stats", "Tell what is in the data: landmarks, images, duplicates; write a report."),
    "split": ("cli.split", "Split a manifest into train, val, test and non-landmarks."),
    "clean": ("cli.clean", "Find mislabelled, duplicate, low-quality and non-landmark images."),
    "train": ("cli.train", "Train a network on labelled images."),
    "ensemble": ("cli.ensemble", "Join several models into one."),
    "embed": ("cli.embed", "Turn images into descriptors."),
    "join": ("cli.join", "Join what the shares of a job made, by --shard I/N."),
    "export": ("cli.export", "Write a model as ONNX, which needs no torch."),
    "tune": ("cli.tune", "Choose whitening, descriptor and vote of an index on held-out queries."),
    "build-index": ("cli.build_index", "Turn descriptors into an index folder."),
    "bench": ("cli.bench", "Measure kinds of index on your rows: recall, speed, memory."),
    "index": ("cli.index", "Add to an index, remove from it, merge, relabel and verify it."),
    "sync": ("cli.sync", "Bring an index to what a folder of images holds now."),
    "calibrate": ("cli.calibrate", "Tune votes, confidence and thresholds on held-out queries."),
    "evaluate": ("cli.evaluate", "Measure the answers to labelled queries; write a report."),
    "query": ("cli.query", "Name the landmark in images."),
    "search": ("cli.search", "Find the images of an index that are most similar to an image."),
    "explain": ("cli.explain", "Tell what is typical of a landmark, and what it is confused with."),
    "serve": ("cli.serve", "Serve an index as a web page and an HTTP API."),
    "feedback": ("cli.feedback", "Turn feedback on a served index into labels."),
    "submit": ("cli.submit", "Write a Kaggle submission for test.csv."),
    "compare": ("cli.compare", "Train and score several systems on the same data, in one table."),
    "score": ("cli.score", "Score any submission against a solution file."),
    "info": ("cli.info", "Tell what a store, model, index folder or calibration is."),
}


class LmrGroup(click.Group):
    """Commands by name, imported late; what the user can act on becomes one line and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Commands in the order in which they are used."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command's module; None when there is no such command."""
        if cmd_name not in COMMANDS:
            return None
        # Read when torch is imported. Threads that spin while they wait take the cores from those that decode.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Does as click, with the nearest name when there is no such command."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise click.UsageError(f"No such command '{args[0]}'.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of commands, from COMMANDS alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Runs the command; LmrError and failing files end in one line on stderr and exit code 1."""
        from retrieval.data.pipes import pipes_read_once

        try:
            with pipes_read_once(), told_once(warn):
                return super().invoke(ctx)
        except click.UsageError as error:  # names of files are arguments too
            text = error.format_message()
            if shown_lines(text) == text:
                raise
            raise click.UsageError(shown_lines(text), error.ctx) from error
        except LmrError as error:
            raise click.ClickException("\n".join(shown_line(with_options(line)) for line in error.lines)) from error
        except ModuleNotFoundError as error:  # a machine that only serves exported models may do without
            if error.name != "torch":
                raise
            raise click.ClickException("torch is not installed; without it only models of lmr export work") from error
        except OSError as error:
            if isinstance(error, BrokenPipeError) or error.strerror is None:
                raise
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(shown_line(f"{where}{error.strerror}")) from error
        except (MemoryError, RuntimeError, ImportError) as error:
            if not (text := lacking(error)):
                raise
            raise click.ClickException(text) from error
        except KeyboardInterrupt as error:
            after = "begins anew" if ctx.meta.get("overwrite") else "goes on from what is saved"
            raise click.ClickException(f"interrupted; the same command {after}") from error


@click.group(cls=LmrGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="lmr", prog_name="lmr")
def main() -> None:
    """Recognise landmarks, and anything with an individual name, in photographs.

    Images become descriptors, the nearest labelled images vote, and a calibrated confidence rejects images
    that show no known landmark.

    \b
    Start with:
      lmr demo
    or, in a folder with train.csv, test.csv and images/:
      lmr train train.csv && lmr embed && lmr build-index && lmr submit test.csv
    """


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
