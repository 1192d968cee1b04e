"""The sub-commands ``fedutils flower app | key``: what Flower's own commands need; see docs/flower.md."""

import argparse
from pathlib import Path


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the sub-command to those of ``fedutils``."""
    kinds = commands.add_parser(
        "flower", help="prepare a run of Flower over hospitals, or simulated ones"
    ).add_subparsers(required=True, metavar="KIND")

    app = kinds.add_parser("app", help="write the project for flwr run, and the folder for FLWR_HOME")
    app.add_argument("--out", type=Path, required=True, metavar="DIR", help="gets app/ and home/")
    app.add_argument("--model", required=True, metavar="FILE.keras", help="a classifier, to begin with")
    app.add_argument(
        "--validation", required=True, metavar="DIR", help="images of no hospital: they choose the round"
    )
    app.add_argument("--run", required=True, metavar="DIR", help="where the server keeps the run")
    app.add_argument("--hospitals", type=int, default=2, metavar="N", help="needed in a round (2)")
    app.add_argument("--superlink", default="127.0.0.1:8000", metavar="HOST:PORT")
    app.add_argument(
        "--authority", type=Path, default=Path("certificates/server/authority.pem"), metavar="FILE.pem"
    )
    app.add_argument(
        "--simulated-hospitals", default="", metavar="DIR", help="for simulation: a folder of each"
    )
    app.add_argument("--simulation-port", type=int, default=8000, help="of the SuperLink that simulates")
    app.set_defaults(call=_write_app)

    key = kinds.add_parser("key", help="make the key pair of a hospital's SuperNode, at the hospital")
    key.add_argument("--out", type=Path, required=True, metavar="DIR", help="the hospital's own folder")
    key.add_argument("--hospital", required=True, metavar="NAME")
    key.set_defaults(call=_make_key)


def _write_app(options: argparse.Namespace) -> int:
    from fedutils.flower_project import write_project
    from fedutils.flower_settings import read_settings

    settings = read_settings(
        {
            "model": options.model,
            "validation": options.validation,
            "out": options.run,
            "hospitals": options.hospitals,
            "simulated-hospitals": options.simulated_hospitals,
        }
    )
    write_project(
        options.out,
        settings,
        superlink=options.superlink,
        authority=options.authority,
        simulation_port=options.simulation_port,
    )
    print(f"written: {options.out / 'app'} and {options.out / 'home'}; settings are in app/pyproject.toml")
    print(f"start it by: FLWR_HOME={options.out / 'home'} flwr run {options.out / 'app'} --stream")
    return 0


def _make_key(options: argparse.Namespace) -> int:
    from fedutils.flower_project import make_node_key

    private, public = make_node_key(options.out, options.hospital)
    print(f"written: {private} stays here; hand {public} to whoever runs the SuperLink")
    return 0
