"""The sub-commands for saved models: ``fedutils predict`` and ``fedutils evaluate``."""

import argparse
import json
from pathlib import Path


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the sub-commands to those of ``fedutils``."""
    predict = commands.add_parser("predict", help="say what a saved model sees in images or cases")
    predict.add_argument("--model", type=Path, required=True, metavar="FILE.keras")
    predict.add_argument(
        "inputs", type=Path, nargs="+", metavar="IMAGE_OR_CASE", help="images, cases, or folders of them"
    )
    predict.add_argument("--json", action="store_true", help="print a JSON list, one object an input")
    predict.add_argument("--out", type=Path, metavar="DIR", help="write the masks of cases there")
    predict.set_defaults(call=_predict)

    evaluate = commands.add_parser("evaluate", help="measure a saved model on a folder of data with truth")
    evaluate.add_argument("--model", type=Path, required=True, metavar="FILE.keras")
    evaluate.add_argument("--data", type=Path, required=True, metavar="DIR", help="any layout that is read")
    evaluate.add_argument("--json", action="store_true", help="print one flat JSON object")
    evaluate.add_argument("--split", choices=("testing", "training", "all"), help="of images; testing")
    evaluate.add_argument("--skip-bad", action="store_true", help="go on after what cannot be read")
    evaluate.set_defaults(call=_evaluate)


def _predict(options: argparse.Namespace) -> int:
    from fedutils.errors import InputError
    from fedutils.model_file import load_model
    from fedutils.model_info import NOT_CLINICAL
    from fedutils.predict import find_cases, find_images, measure, predict_case, predict_images, write_mask

    model, info = load_model(options.model)
    records = []
    if info.task == "classification":
        if options.out:
            raise InputError("--out: expected a model for segmentation, found a classifier; leave it out")
        paths = find_images(options.inputs)
        for path, row in zip(paths, predict_images(model, info, paths), strict=True):
            best = int(row.argmax())
            record = {"input": str(path), "class": info.outputs[best], "probability": float(row[best])}
            record |= {f"p_{name}": float(p) for name, p in zip(info.outputs, row, strict=True)}
            records.append(record)
            if not options.json:
                print(f"{path}: {record['class']}, probability {record['probability']:.3f}")
    else:
        for case in find_cases(options.inputs):
            segmented = predict_case(model, info, case)
            volumes, unit = measure(segmented, info.outputs)
            record = {"input": case.name}
            record |= {f"{name.lower()}_{unit}": volume for name, volume in volumes.items()}
            if options.out:
                record["mask"] = str(write_mask(segmented, options.out))
            records.append(record)
            if not options.json:
                sizes = ", ".join(
                    f"{name} {volume:.1f} ml" if unit == "ml" else f"{name} {volume:.0f} voxels"
                    for name, volume in volumes.items()
                )
                print(f"{case.name}: {sizes}" + (f"; {record['mask']}" if options.out else ""))
    print(json.dumps(records, indent=1) if options.json else NOT_CLINICAL)
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from fedutils.evaluate import evaluate_folder, format_table
    from fedutils.model_file import load_model
    from fedutils.model_info import NOT_CLINICAL

    model, info = load_model(options.model)
    record = evaluate_folder(model, info, options.data, split=options.split, skip_bad=options.skip_bad)
    if options.json:
        print(json.dumps(record, indent=1, allow_nan=False))
    else:
        print(f"{info.title}\n{format_table(record)}\n{NOT_CLINICAL}")
    return 0
