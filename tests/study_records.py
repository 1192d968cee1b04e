"""A small study, planned in files and partly done, with numbers that a test can work out by hand."""

from fedutils.metrics import summarise

TRAINING = {"num_rounds": 3, "batch_size": 8, "client_learning_rate": 0.01, "cosine": True}
COUNTS = [[10, 0], [10, 20], [30, 30]]  # three hospitals of 10, 30 and 60 images
PARTS = ("deduplicated", "public")
SCORES = ("accuracy", "recall", "f1", "auc")


def plan(name, *, kind="iid", **algorithms):
    """Return an experiment of three hospitals, three rounds and the seeds 0 and 1."""
    return {
        "name": name,
        "title": f"Toy, {name}",
        "data": {"source": "phantom", "image_size": 16},
        "partition": {"kind": kind, "num_clients": 3},
        "model": {"name": "cnn"},
        "training": TRAINING,
        "algorithms": algorithms or {"local": {}, "fedavg": {}, "scaffold": {}, "central": {}},
        "report_rounds": [2],
        "seeds": [0, 1],
    }


def make_run(seed, tested, curve, *, participants=None, simulated=None, up=300_000):
    """Return one seed's run: test accuracy, validation accuracy by round, and who took part."""
    alone = participants is None
    test = {part: dict.fromkeys(SCORES, tested) | {"confusion": [[6, 0], [1, 1]]} for part in PARTS}
    worst = {part: {"accuracy": tested, "own_mixture": tested - 0.1} for part in PARTS}
    run = {
        "run": f"toy-{seed}",
        "seed": seed,
        "unit": "epoch" if alone else "round",
        "passes_per_step": 1,
        "rounds_planned": 3,
        "rounds_done": len(curve),
        "best_round": 1 + curve.index(max(curve)),
        "seconds": 600.0 * len(curve),
        "validation": {"accuracy": curve, "loss": [1 - v for v in curve]},
        "partition": {"counts": COUNTS, "classes": ["a", "b"], "label_distance": 0.25},
        "test": test,
        "worst": worst,
        "after": {} if alone else {"2": {"test": test, "worst": worst}},
    }
    if alone:
        return run
    sent = sum(map(len, participants))
    return run | {
        "participants": participants,
        "simulated_s": simulated,
        "bytes": {
            "down_per_client": 200_000,
            "up_per_client": up,
            "down_total": 200_000 * sent,
            "up_total": None if up is None else up * sent,
        },
    }


def make_record(experiment, algorithm, runs, *, name=None):
    """Return the result of an algorithm from its runs, as `fedutils.experiments` writes it."""

    def told(measured):
        return {
            part: {key: summarise([m["test"][part][key] for m in measured]) for key in SCORES}
            | {
                "worst": summarise([m["worst"][part]["accuracy"] for m in measured]),
                "own_mixture": summarise([m["worst"][part]["own_mixture"] for m in measured]),
            }
            for part in PARTS
        }

    after = runs[0]["after"]
    return {
        "name": f"{experiment}-{algorithm}",
        "title": f"Toy, {experiment}",
        "experiment": experiment,
        "algorithm": algorithm,
        "settings": {"training": {"algorithm": name or algorithm, "weighted": True}},
        "seeds": [run["seed"] for run in runs],
        "seeds_planned": [0, 1],
        "rounds_planned": 3,
        "data": {"source": "phantom", "num_training": 100, "num_deduplicated": 40},
        "runs": {str(run["seed"]): run for run in runs},
        "summary": told(runs) | {"after": {r: told([run["after"][r] for run in runs]) for r in after}},
    }


ALL = [[0, 1, 2]] * 3
FEDAVG = make_record(
    "skew",
    "fedavg",
    [
        make_run(0, 0.5, [0.3, 0.7, 0.6], participants=ALL),
        make_run(1, 0.7, [0.2, 0.4, 0.5], participants=[[0, 1], [2], [0, 1, 2]]),
    ],
)
CENTRAL = make_record("skew", "central", [make_run(0, 0.8, [0.5, 0.6, 0.9])])
STUDY = (plan("skew"), plan("even", fedavg={}, central={}))
