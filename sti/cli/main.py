"""Entry point of ``sti``: arguments in, exit code out.

Knows which subcommands there are and what their options are called, not what they do: each lives
in a module of its own that is imported when it runs, so that ``sti run`` starts as fast as it can.
A subcommand's module has ``execute(args)``, which prints its answer on stdout and raises
``StiError`` for what the user can mend. Messages and notices go to stderr.

Exit codes: 0; 1 for a failure; 2 for bad usage, bad input or storage that fails; 130 for Ctrl-C;
141 where the reader of stdout went away.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO

from sti.cli.stdout import output_failed
from sti.errors import StiError, StiWarning
from sti.version import __version__

_TARGET_HELP = """\
targets:
  Without --latency the best quality in the pack is used, however long it takes. Times are written
  as 200ms or 1.5s, sizes as 4MB, 512KB or 2MiB. A target can be named in sti.toml:

    [targets.voice]
    latency = "150ms"
    preload = "2MB"

  looked for in the working directory, then in ~/.config/sti; options given here win over it.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments behind the program's name; those of the process by default.

    Returns:
        The exit code. Bad usage leaves through ``SystemExit`` with code 2, as argparse does.
    """
    name = "sti"
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # Labels and texts may hold what the terminal cannot show.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            args = _parse(argv)
        finally:
            sys.stdout.flush()  # help and the version leave through SystemExit
        name = f"sti {args.command}"
        with _notices():
            importlib.import_module(f"sti.cli.{args.module}").execute(args)
            sys.stdout.flush()
    except StiError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        return output_failed(error, name)
    except ModuleNotFoundError as error:
        if error.name not in ("numpy", "onnxruntime"):
            raise
        from sti.report.wording import how_to_install

        how = how_to_install(error.name)
        print(f"{name}: {error.name} is missing: `{how}`", file=sys.stderr)
        return 1
    except MemoryError:
        advice = "give fewer texts at once, or ask for a smaller --preload"
        print(f"{name}: out of memory; {advice}", file=sys.stderr)
        return 1
    return 0


def command() -> NoReturn:
    """``main`` as a process of its own.

    After a success the process ends as it is: the command has closed its engine and flushed its
    answer, and to take the interpreter apart behind it would take some 20 ms, an eighth of a start.
    """
    if getattr(sys, "stdout", None) is None:  # Python has none where it is closed
        print("sti: standard output: it is closed", file=sys.stderr)
        sys.exit(2)
    code = main()
    if code == 0 and sys.getprofile() is None and sys.gettrace() is None:
        os._exit(0)  # standard error is written line by line
    sys.exit(code)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments, texts behind options included, which argparse alone would refuse."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    options = rest[: rest.index("--")] if "--" in rest else rest
    if rest and (args.command != "run" or any(text[:1] == "-" for text in options)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.texts += [text for place, text in enumerate(rest) if place != len(options)]
    return args


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="sti",
        description="Run transformers from packs, streamed from storage within a latency target.",
        epilog="`sti COMMAND --help` explains a command. Packs are made with `sti-shard build`.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sti {__version__}")
    # Without a name, argparse would lay out a whole usage line to find it, at every start.
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, prog=parser.prog
    )
    _add_run(commands)
    _add_plan(commands)
    _add_bench(commands)
    _add_calibrate(commands)
    _add_doctor(commands)
    return parser


def _add_run(commands: Any) -> None:
    parser = _command(
        commands,
        "run",
        "answer texts with a pack",
        """\
examples:
  sti run model.sti.safetensors "a text" "another text"
  sti run model.sti.safetensors --input texts.txt --latency 200ms --preload 4MB
  sti run model.sti.safetensors --pair "a premise" "a hypothesis" --json
  cat texts.txt | sti run model.sti.safetensors --target voice

"""
        + _TARGET_HELP,
    )
    _add_pack(parser)
    parser.add_argument(
        "texts",
        nargs="*",
        metavar="TEXT",
        help="texts to answer; without any, the lines of --input or of standard input",
    )
    parser.add_argument(
        "--pair",
        action="store_true",
        help="texts come in pairs: two by two, or as lines of two texts with a TAB between them",
    )
    parser.add_argument("--input", metavar="FILE", help="file with a text a line; - for stdin")
    _add_target(parser)
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare everything that is read with its checksum; without it, a damaged pack may "
        "answer wrongly",
    )
    _add_json(parser)
    parser.add_argument("--trace", metavar="FILE", help="write a trace that Perfetto opens")
    _refuse_device(parser)


def _add_plan(commands: Any) -> None:
    parser = _command(
        commands,
        "plan",
        "show what would be read, and how long it would take",
        """\
examples:
  sti plan model.sti.safetensors --latency 100ms --preload 2MB
  sti plan model.sti.safetensors --tokens 128 --latency 50ms --output night.json
  sti run model.sti.safetensors --plan night.json "a text"
  sti plan model.sti.safetensors --device paper-board --latency 200ms
  sti plan model.sti.safetensors --device phone.json --latency 200ms

  A device file is what `sti calibrate PACK --json` printed on the device, or a board's times of
  one layer, as the paper-board that ships has them.

"""
        + _TARGET_HELP,
    )
    _add_pack(parser)
    _add_workload(parser)
    _add_target(parser)
    parser.add_argument(
        "--device",
        metavar="NAME|FILE",
        help="plan for a machine that is not at hand: a device that ships, or a file of its times",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="save the plan; `--plan FILE` pins it again"
    )
    _add_json(parser)


def _add_bench(commands: Any) -> None:
    parser = _command(
        commands,
        "bench",
        "measure runs, cold and warm, pipelined and sequential",
        """\
examples:
  sti bench model.sti.safetensors
  sti bench model.sti.safetensors --tokens 128 --latency 100ms --output json
  sti bench model.sti.safetensors --storage microsd
  sti bench model.sti.safetensors --storage 300MB/s:0.2ms
  sti bench model.sti.safetensors --fidelity 4 --preload 2MB --against model-int8.onnx

  Cold: a fresh process, nothing of the pack in the page cache, opening and the first run.
  Warm: an engine that is open; weights are streamed again in every run.
  Against: the same texts through ONNX Runtime, the model resident as people run it: each system in
  processes of its own, in turns; the ONNX model takes input_ids, attention_mask, token_type_ids.

"""
        + _TARGET_HELP,
    )
    _add_pack(parser)
    _add_workload(parser)
    parser.add_argument(
        "--repeat", type=_count, default=9, metavar="N", help="warm runs of each kind (default 9)"
    )
    parser.add_argument(
        "--cold-repeat", type=_count, default=3, metavar="N", help="cold runs (default 3)"
    )
    parser.add_argument(
        "--storage",
        metavar="DEVICE",
        help="delay reads to the pace of a slower device: microsd, emmc, ufs3, ufs4, or RATE or "
        "RATE:LATENCY; warm runs only",
    )
    parser.add_argument(
        "--against",
        action="append",
        metavar="MODEL",
        help="an ONNX file of the same model to measure beside the pack, external data beside it "
        "as MODEL*data*; may be repeated",
    )
    _add_target(parser)
    parser.add_argument("--output", choices=("md", "json", "csv"), default="md")
    _add_json(parser)
    _refuse_device(parser)


def _add_calibrate(commands: Any) -> None:
    parser = _command(
        commands,
        "calibrate",
        "measure this device with a pack, and remember it",
        """\
examples:
  sti calibrate model.sti.safetensors      measure, and choose the number of threads
  sti calibrate                            list what was measured before

  A first run measures by itself, in about two seconds. Calibrate again after a change of the
  system's power settings, or when a pack was moved to other storage.
""",
    )
    parser.add_argument("pack", nargs="?", metavar="PACK", help="pack to measure with")
    parser.add_argument(
        "--threads", type=_count, metavar="N", help="only this number of compute threads"
    )
    _add_json(parser)


def _add_doctor(commands: Any) -> None:
    parser = _command(
        commands,
        "doctor",
        "show what this device offers, and what is missing",
        """\
examples:
  sti doctor
  sti doctor model.sti.safetensors         storage rates where the pack lies
""",
    )
    parser.add_argument("pack", nargs="?", metavar="PACK", help="pack to look at, too")
    _add_json(parser)


def _command(commands: Any, name: str, summary: str, epilog: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(module=name)
    return parser


def _add_pack(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pack", metavar="PACK", help="the pack, a .safetensors file")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document and nothing else"
    )


def _add_workload(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tokens", type=_count, metavar="N", help="tokens a text (default 32)")
    parser.add_argument(
        "--batch", type=_count, default=1, metavar="N", help="texts at once (default 1)"
    )


def _add_target(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("target")
    group.add_argument("--latency", metavar="TIME", help="from text in to answer out, e.g. 200ms")
    group.add_argument("--preload", metavar="SIZE", help="bytes held between runs, e.g. 4MB")
    pinned = group.add_mutually_exclusive_group()
    pinned.add_argument(
        "--fidelity", type=_count, metavar="BITS", help="every shard at so many bits, no planning"
    )
    pinned.add_argument("--plan", metavar="FILE", help="follow a saved plan and its target")
    group.add_argument("--config", metavar="FILE", help="configuration file (default sti.toml)")
    group.add_argument("--target", metavar="NAME", help="a target of the configuration")
    group.add_argument("--threads", type=_count, metavar="N", help="compute threads")


class _OnlyPlanned(argparse.Action):
    """An option of ``plan`` that running cannot have; says so instead of "unrecognized"."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.error(
            f"{self.option_strings[0]} is for `sti plan` alone: this machine cannot run as another "
            "one; a plan saved with --output can be followed here with --plan"
        )


def _refuse_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", action=_OnlyPlanned, nargs="?", help=argparse.SUPPRESS)


def _count(text: str) -> int:
    """A number of at least one; argparse turns the error into one of usage."""
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


@contextmanager
def _notices() -> Iterator[None]:
    """Show Python warnings as notices of one line."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        from sti.cli.opening import show_notice  # most commands have nothing to tell

        show_notice(message)

    with warnings.catch_warnings():
        warnings.simplefilter("always", StiWarning)
        warnings.showwarning = show
        yield
