"""The command line ``fedutils``: a sub-command for each thing it does; ``fedutils --help`` lists them."""

import argparse
import sys
from pathlib import Path

from fedutils import cli_experiment, cli_flower, cli_models, cli_report
from fedutils.errors import InputError
from fedutils.hospital import command as hospital


def _reproduce(options: argparse.Namespace) -> int:
    from fedutils.reproduce import reproduce

    return reproduce(options.profile, options.data, tuple(options.only), options.jobs)


def _phantom(options: argparse.Namespace) -> int:
    from fedutils.data import phantom

    phantom.write_brats(options.out / "brats", options.cases, voxel_mm=options.voxel_mm, seed=options.seed)
    phantom.write_brain_mri(
        options.out / "brain_mri", options.training, options.testing, size=options.size, seed=options.seed
    )
    print(f"phantom written to {options.out}: no patient is in it")
    return 0


def _audit(options: argparse.Namespace) -> int:
    from fedutils.data.audit import audit_folder
    from fedutils.data.audit_report import find_pictures, write_report
    from fedutils.data.hashes import NEAR_BITS
    from fedutils.paths import output_dir
    from fedutils.results import to_json

    distance = NEAR_BITS if options.distance is None else options.distance
    audit = audit_folder(options.folder, skip_bad=options.skip_bad, keep=options.keep, distance=distance)
    out = options.out or output_dir() / "audit" / audit.name
    report = write_report(audit, out, find_pictures(options.folder, audit.layout))
    if options.json:
        print(to_json(audit.to_plain()), end="")
    else:
        print(f"{audit.describe()}\nreport: {report}")
    return audit.status


def _kernel(options: argparse.Namespace) -> int:
    from fedutils.notebook import register_kernel

    print(f"Jupyter kernel: {register_kernel()}")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of every sub-command."""
    parser = argparse.ArgumentParser(prog="fedutils", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("reproduce", help="run the notebooks of a profile, its figures and the paper")
    run.add_argument("--profile", default="laptop", help="smoke, laptop (default) or thesis")
    run.add_argument("--data", help="folder of real data, for the thesis profile")
    run.add_argument("--jobs", type=int, help="notebooks at a time (two by default, one of the thesis)")
    run.add_argument("--only", nargs="*", default=[], help="tasks of dodo.py, e.g. paper")
    run.set_defaults(call=_reproduce)

    kernel = commands.add_parser("kernel", help="register a Jupyter kernel named for this machine's device")
    kernel.set_defaults(call=_kernel)

    data = commands.add_parser("data", help="make or check data").add_subparsers(
        required=True, metavar="KIND"
    )
    phantom = data.add_parser("phantom", help="write the phantom: BraTS cases and 4-class slices")
    phantom.add_argument("--out", type=Path, required=True, help="folder to write")
    phantom.add_argument("--cases", type=int, default=10, help="BraTS-like cases")
    phantom.add_argument("--voxel-mm", type=float, default=1.0, help="side of a voxel, in mm")
    phantom.add_argument("--training", type=int, default=150, help="training slices of each class")
    phantom.add_argument("--testing", type=int, default=50, help="test slices of each class")
    phantom.add_argument("--size", type=int, default=256, help="side of a slice, in pixels")
    phantom.add_argument("--seed", type=int, default=7)
    phantom.set_defaults(call=_phantom)

    audit = data.add_parser(
        "audit",
        help="look for leaks, copies, shortcuts and odd images; exit status 0 clean, 1 leak, 2 bad input",
    )
    audit.add_argument(
        "folder", type=Path, metavar="DIR", help="a data set in any layout that fedutils reads"
    )
    audit.add_argument("--out", type=Path, help="folder of report.html, report.json and split.csv")
    audit.add_argument("--json", action="store_true", help="print the report as JSON")
    audit.add_argument("--skip-bad", action="store_true", help="go on after files that cannot be read")
    audit.add_argument(
        "--keep", default="testing", help="side that split.csv keeps whole: testing (default) or training"
    )
    audit.add_argument("--distance", type=int, help="bits of 64 in which near copies may differ")
    audit.set_defaults(call=_audit)

    cli_models.add_commands(commands)
    cli_report.add_commands(commands)
    cli_experiment.add_commands(commands)
    hospital.add_commands(commands)
    cli_flower.add_commands(commands)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a command; bad input is one line on standard error and status 2."""
    options = build_parser().parse_args(arguments)
    try:
        return options.call(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on from the last finished step", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
