"""Pictures of networks whose weights are gone: the published one serves, if it is of these very runs.

Results are small and committed, weights are not. What is drawn from results alone can be drawn anywhere; what
needs a network, only where it was trained.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from fedutils import paths
from fedutils.errors import InputError
from fedutils.results import write_atomic

RESULT = "07_federated_segmentation"


def reuse_outlines(experiment: str, records: Sequence[dict], seed: int, *, root: Path = paths.ROOT) -> dict:
    """Copy the published picture of outlines of an experiment into the figures of the current run.

    Parameters
    ----------
    experiment : str
    records : sequence of dict
        Its results, an algorithm each.
    seed : int
        Of the networks in the picture.
    root : Path
        Holds ``results`` and ``figures``.

    Returns
    -------
    dict of str to float
        By algorithm the Dice of the pictured patient.

    Raises
    ------
    InputError
        If there is no such picture, or it is of other runs.
    """
    path, dice, then = root / "results" / f"{RESULT}.json", None, {}
    stem = root / "figures" / f"{RESULT[:2]}_outlines_{experiment}"
    pictures = [stem.with_suffix(suffix) for suffix in (".png", ".svg")]
    # No two runs take the same time to the microsecond: the seconds that both results hold name a run.
    now = {record["name"]: record["runs"][str(seed)]["seconds"] for record in records}
    if path.is_file():
        told = json.loads(path.read_text())["metrics"]
        dice = told["outlined_dice"].get(experiment)
        then = {name: told["seconds"].get(name, {}).get(str(seed)) for name in now}
    if dice is None or now != then or not all(picture.is_file() for picture in pictures):
        raise InputError(
            f"{experiment}: expected weights on this machine, or a published picture of these runs, found "
            "neither; remove its results to train it again here, or take it out of 'pictured'"
        )
    for picture in pictures:
        write_atomic(paths.figures_dir() / picture.name, picture.read_bytes())
    return dice
