"""The sub-commands ``fedutils hospital certificates | revoke | server | client | log``."""

import argparse
from pathlib import Path


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the sub-command to those of ``fedutils``."""
    kinds = commands.add_parser(
        "hospital", help="train one model over hospitals on a real network"
    ).add_subparsers(required=True, metavar="KIND")

    issue = kinds.add_parser("certificates", help="make an authority and certificates for mutual TLS")
    issue.add_argument("--out", type=Path, required=True, metavar="DIR", help="gets a folder for each")
    issue.add_argument("--hospital", nargs="+", default=[], metavar="NAME", help="more can be added later")
    issue.add_argument(
        "--host",
        nargs="+",
        default=["localhost", "127.0.0.1"],
        help="names and addresses by which hospitals reach the server",
    )
    issue.add_argument("--days", type=float, default=365, help="how long certificates are good")
    issue.set_defaults(call=_certificates)

    deny = kinds.add_parser("revoke", help="withdraw certificates; a server that runs notices by itself")
    deny.add_argument("--out", type=Path, required=True, metavar="DIR", help="as of 'certificates'")
    deny.add_argument(
        "--hospital", nargs="+", default=[], metavar="NAME", help="all that it was issued so far"
    )
    deny.add_argument("--serial", nargs="+", default=[], metavar="HEX", help="or single certificates")
    deny.add_argument("--server", type=Path, metavar="DIR", help="the folder server/, if it is elsewhere")
    deny.set_defaults(call=_revoke)

    serve = kinds.add_parser("server", help="hold the model and average what hospitals send")
    serve.add_argument(
        "--model", type=Path, metavar="FILE.keras", help="to begin with; later the state has it"
    )
    serve.add_argument(
        "--state", type=Path, required=True, metavar="FILE", help="all that it must not forget"
    )
    serve.add_argument("--certificates", type=Path, required=True, metavar="DIR", help="the folder server/")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all")
    serve.add_argument("--port", type=int, default=9095)
    serve.add_argument(
        "--aggregate-when", type=int, metavar="N", help="by itself, when N hospitals have sent; no menu"
    )
    serve.add_argument("--no-menu", action="store_true", help="until it is stopped by a signal")
    serve.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="e.g. norm=100; see docs/hospitals.md",
    )
    serve.set_defaults(call=_serve)

    join = kinds.add_parser("client", help="a hospital's console")
    join.add_argument("--settings", type=Path, required=True, metavar="FILE.yaml")
    join.add_argument("--hospital", required=True, metavar="NAME", help="as in its certificate")
    join.add_argument("--do", metavar="LIST", help="of get, train, send, wait, evaluate, save; no menu")
    join.set_defaults(call=_join)

    log = kinds.add_parser("log", help="who sent what to a server, and when")
    log.add_argument("--state", type=Path, required=True, metavar="FILE")
    log.set_defaults(call=_log)


def _certificates(options: argparse.Namespace) -> int:
    from fedutils.hospital.certificates import make_certificates

    for folder in make_certificates(options.out, options.hospital, hosts=options.host, days=options.days):
        print(f"written: {folder}")
    print("hand each hospital its own folder, on a way that nobody else reads; authority/ stays here")
    return 0


def _revoke(options: argparse.Namespace) -> int:
    from fedutils.errors import InputError
    from fedutils.hospital.revocation import FILE, find_serials, revoke

    if not options.hospital and not options.serial:
        raise InputError("revoke: expected --hospital or --serial, found neither; name what to withdraw")
    serials = dict.fromkeys(options.serial, "?")
    for name in options.hospital:
        serials |= find_serials(options.out, name)
    server = options.server or options.out / "server"
    for serial in (new := revoke(server, serials)):
        print(f"withdrawn: {serials[serial]}, serial {serial}")
    print(f"{len(new)} added to {server / FILE}; a server elsewhere needs a copy of it in its folder")
    return 0


def _serve(options: argparse.Namespace) -> int:
    import signal
    import threading

    from fedutils.errors import InputError
    from fedutils.hospital.limits import read_limits
    from fedutils.hospital.menu import run_menu
    from fedutils.hospital.revocation import FILE, DenyList
    from fedutils.hospital.server import Server
    from fedutils.hospital.state import State
    from fedutils.hospital.tls import make_context

    limits = read_limits(options.limit)
    context = make_context(options.certificates, "server", server=True)
    if options.model and not options.state.exists():
        from fedutils.hospital.model_source import read_model

        state = State.create(options.state, *read_model(options.model))
    else:
        state = State(options.state)
        if options.model and options.model.read_bytes() != state.model.file:
            state.close()
            raise InputError(
                f"{options.state}: expected the state of {options.model}, found that of another model; leave "
                "--model out to go on with it, or name a new --state"
            )
    server = Server(
        state,
        context,
        host=options.host,
        port=options.port,
        limits=limits,
        aggregate_when=options.aggregate_when,
        denied=DenyList(options.certificates / FILE),
    )
    alone = options.no_menu or options.aggregate_when
    if alone:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.stop())
    print(f"listening on {options.host}:{server.port}; {_count(state)}", flush=True)
    try:
        if alone:
            server.serve()
        else:
            threading.Thread(target=server.serve, daemon=True).start()
            run_menu(
                "Server",
                [
                    ("Aggregate weights", lambda: f"version {state.aggregate().version}"),
                    ("Check version number", lambda: f"version {state.model.version}"),
                    ("Get number of sets of weights collected", lambda: _count(state)),
                ],
            )
    finally:
        server.stop()
        state.close()
    print("logged out", flush=True)
    return 0


def _count(state) -> str:
    collected = state.list_collected()
    names = f" ({', '.join(submission.hospital for submission in collected)})" if collected else ""
    return f"version {state.model.version}, {len(collected)} sets of weights collected{names}"


def _join(options: argparse.Namespace) -> int:
    from fedutils.hospital.actions import Hospital, read_actions
    from fedutils.hospital.menu import run_menu
    from fedutils.hospital.settings import load_settings

    actions = read_actions(options.do) if options.do else []
    hospital = Hospital(load_settings(options.settings), options.hospital)
    try:
        if actions:
            for action in actions:
                print(hospital.do(action), flush=True)
            return 0
        run_menu(
            f"Hospital {options.hospital}",
            [
                ("Train model", lambda: hospital.do("train")),
                ("Send weights to server", lambda: hospital.do("send")),
                ("Get weights from server", lambda: hospital.do("get")),
            ],
        )
        run_menu(
            "Before you go",
            [
                ("Evaluate the model that came last", lambda: hospital.do("evaluate")),
                ("Save it", lambda: hospital.do("save")),
            ],
        )
    finally:
        hospital.close()
    return 0


def _log(options: argparse.Namespace) -> int:
    import json

    from fedutils.hospital.state import read_log

    for entry in read_log(options.state):
        print(json.dumps(entry))
    return 0
