"""The sub-command for reports: ``fedutils report``."""

import argparse
import functools
from pathlib import Path


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the sub-command to those of ``fedutils``."""
    report = commands.add_parser(
        "report", help="write a page for each image or case: picture, numbers, words"
    )
    report.add_argument("--model", type=Path, required=True, metavar="FILE.keras")
    report.add_argument(
        "inputs", type=Path, nargs="+", metavar="IMAGE_OR_CASE", help="images, cases, or folders of them"
    )
    report.add_argument("--out", type=Path, metavar="DIR", help="folder of the reports; build/lab/reports")
    report.add_argument("--pdf", action="store_true", help="write PDF too")
    report.add_argument(
        "--llm",
        metavar="URL",
        help="let a language model on this machine write the words, e.g. "
        "http://127.0.0.1:8080; they are checked, and the rules write where they fail",
    )
    report.add_argument("--llm-model", metavar="NAME", help="the language model's name at that server")
    report.add_argument(
        "--allow-remote", metavar="HOST", help="let the facts of patients leave for this host, by name"
    )
    report.set_defaults(call=_report)


def _report(options: argparse.Namespace) -> int:
    from fedutils.errors import InputError

    if not options.llm and (options.llm_model or options.allow_remote):
        raise InputError("--llm: expected a URL beside --llm-model or --allow-remote, found none; add it")
    from fedutils.report import compose

    write = compose
    if options.llm:
        from fedutils.report_llm import Endpoint, ask

        endpoint = Endpoint(
            options.llm, options.llm_model or "default", allow_remote=options.allow_remote or False
        )
        write = functools.partial(ask, endpoint=endpoint)

    from fedutils.model_file import load_model
    from fedutils.model_info import NOT_CLINICAL
    from fedutils.paths import output_dir
    from fedutils.predict import find_cases, find_images
    from fedutils.report_pages import report_cases, report_images

    model, info = load_model(options.model)
    find, make = (find_images, report_images) if info.task == "classification" else (find_cases, report_cases)
    folder = options.out or output_dir() / "reports"
    made = make(
        model,
        info,
        find(options.inputs),
        folder,
        write=write,
        model_file=options.model.name,
        pdf=options.pdf,
    )
    for path, facts, prose in made:
        print(f"{path}: {prose.sections['finding'].splitlines()[0]} Confidence: {facts.confidence}.")
        if prose.reason:
            print(f"  the rules wrote it: {prose.reason}")
    print(NOT_CLINICAL)
    return 0
