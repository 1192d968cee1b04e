"""What a model file says of itself: how to feed it, how to read it, where it comes from; and its card."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path

from fedutils.data.regions import REGIONS
from fedutils.errors import InputError
from fedutils.results import to_json

INFO_VERSION = 1  # raise it when files of before can no longer be read
NOT_CLINICAL = "Not for clinical use: nothing here has been validated on patients."
TASKS = ("classification", "segmentation")
PREPROCESSING = {
    "grey": "one grey channel in [0, 1], contrast stretched, padded to a square and resized "
    "(fedutils.preprocess.prepare_slice)",
    "slices": "axial slices, each modality clipped to the percentiles 0.5 and 99.5 of the head and z-scored "
    "there, 0 elsewhere; a missing modality is 0 (fedutils.data.segmentation.load_slices)",
    "volume": "the whole volume by the recipe below (fedutils.data.volume_prepare.prepare_case)",
}


@dataclass(frozen=True)
class ModelInfo:
    """Plain values that a model file holds beside its weights.

    Attributes
    ----------
    title : str
        What the model does, in a line.
    task : {"classification", "segmentation"}
    architecture : str
        Which network, and its size.
    outputs : tuple of str
        Classes of a classifier, regions (WT, TC, ET) of a segmentation, in the order of the channels.
    modalities : tuple of str
        The channels that go in; of a classifier ``("grey",)``.
    size : tuple of int
        Sides of what goes in: pixels of an image, or voxels of the window that slides over a volume.
    preprocessing : {"grey", "slices", "volume"}
        See `PREPROCESSING`.
    recipe : dict
        Of ``volume``: the fields of a `fedutils.data.volume_recipes.Recipe`.
    temperature : float
        Logits are divided by it before the softmax, above 0.
    threshold : tuple of float
        A voxel whose probability is above it is of the region: one for all, or one a region.
    smallest : tuple of float
        Components below this volume are removed, in mm³ (in voxels where the spacing is unknown): one for
        all, or one a region.
    flips : tuple of int
        Sides along which images are mirrored too, at inference; see `fedutils.inference.predict_volume`.
    trained_on : dict
        Data, profile, numbers of images and patients, seeds, commit.
    metrics : dict
        Name to number, or to ``[value, low, high]`` with its 95 % interval.
    terms : str
        Of the data that it was trained on, and of this file.
    limits : tuple of str
        What it was not tested on, and where it fails.
    version : int

    Raises
    ------
    InputError
        If a value is not as described.
    """

    title: str
    task: str
    architecture: str
    outputs: tuple[str, ...]
    modalities: tuple[str, ...]
    size: tuple[int, ...]
    preprocessing: str
    recipe: dict = field(default_factory=dict)
    temperature: float = 1.0
    threshold: tuple[float, ...] = (0.5,)
    smallest: tuple[float, ...] = (0.0,)
    flips: tuple[int, ...] = ()
    trained_on: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)
    terms: str = ""
    limits: tuple[str, ...] = ()
    version: int = INFO_VERSION

    def __post_init__(self):
        """Turn the lists of a file into tuples, and check the values."""
        for name in ("outputs", "modalities", "size", "threshold", "smallest", "flips", "limits"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple):
                self._refuse(name, "a list", value)
            object.__setattr__(self, name, tuple(value))
        for name in ("recipe", "trained_on", "metrics"):
            if not isinstance(getattr(self, name), dict):
                self._refuse(name, "names with values", getattr(self, name))
            try:  # as a file would give it back: plain values, sorted
                object.__setattr__(self, name, json.loads(to_json(getattr(self, name))))
            except (TypeError, ValueError) as error:
                self._refuse(name, f"plain, finite values ({error})", getattr(self, name))
        if self.task not in TASKS:
            self._refuse("task", " or ".join(TASKS), self.task)
        allowed = ("grey",) if self.task == "classification" else ("slices", "volume")
        if self.preprocessing not in allowed:
            self._refuse("preprocessing", f"{' or '.join(allowed)} for {self.task}", self.preprocessing)
        rank = 3 if self.preprocessing == "volume" else 2
        if len(self.size) != rank or not all(isinstance(side, int) and side > 0 for side in self.size):
            self._refuse("size", f"{rank} sides above 0", self.size)
        if rank == 2 and self.size[0] != self.size[1]:
            self._refuse("size", "a square", self.size)
        if not self.outputs or not self.modalities:
            self._refuse("outputs and modalities", "at least one each", (self.outputs, self.modalities))
        if self.task == "segmentation" and self.outputs not in (REGIONS, REGIONS[:1]):
            self._refuse("outputs", f"{', '.join(REGIONS)}, or {REGIONS[0]} alone", self.outputs)
        if not (isinstance(self.temperature, int | float) and 0 < self.temperature < float("inf")):
            self._refuse("temperature", "a number above 0", self.temperature)
        for name, most in (("threshold", 1.0), ("smallest", float("inf"))):
            value = getattr(self, name)
            numbers = all(isinstance(v, int | float) and 0 <= v <= most for v in value)
            if len(value) not in (1, len(self.outputs)) or not numbers:
                self._refuse(name, f"1 or {len(self.outputs)} numbers from 0 to {most:g}", value)
        if self.preprocessing == "volume" and not self.recipe:
            self._refuse("recipe", "the fields of the Recipe", self.recipe)

    def _refuse(self, name, expected, found):
        raise InputError(f"model info, {name}: expected {expected}, found {found!r}; mend the ModelInfo")


def parse_info(path: Path, text: str) -> ModelInfo:
    """Return the info that a file holds as JSON; `path` is for errors.

    Raises
    ------
    InputError
        If it is no such record, or a newer version wrote it.
    """
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: expected a readable fedutils.json, found: {error}; replace it") from error
    version = record.get("version") if isinstance(record, dict) else None
    if version != INFO_VERSION:
        raise InputError(
            f"{path}: expected a model file of version {INFO_VERSION}, found version {version!r}; "
            "use the fedutils that wrote it, or a newer one"
        )
    known = {f.name for f in fields(ModelInfo)}
    required = {"title", "task", "architecture", "outputs", "modalities", "size", "preprocessing"}
    if odd := (set(record) - known) | (required - set(record)):
        raise InputError(
            f"{path}: expected the fields of a ModelInfo, found a difference in {', '.join(sorted(odd))}; "
            "write the file anew with fedutils.model_file.save_model"
        )
    try:
        return ModelInfo(**record)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def make_card(info: ModelInfo, file_name: str) -> str:
    """Return the model card: what it is for, what it was trained on, how good it is, what it cannot do.

    Parameters
    ----------
    info : ModelInfo
    file_name : str
        Of the model.

    Returns
    -------
    str
        Markdown.
    """
    many = "image" if info.task == "classification" else "case folder"
    lines = [
        f"# {info.title}",
        "",
        f"**{NOT_CLINICAL}**",
        "",
        f"`{file_name}`: {info.architecture}, for {info.task}.",
        "",
        "## Use",
        "",
        "```",
        f"fedutils predict --model {file_name} {many.upper().replace(' ', '_')}...",
        f"fedutils evaluate --model {file_name} --data DIR",
        "```",
        "",
        "Intended for teaching and research on the data named below, and for nothing else.",
        "",
        f"* In: {', '.join(info.modalities)}, {'x'.join(map(str, info.size))}; "
        f"{PREPROCESSING[info.preprocessing]}.",
    ]
    if info.recipe:
        lines.append(
            "* Recipe: " + ", ".join(f"{k} {_show(v)}" for k, v in info.recipe.items() if v is not None) + "."
        )
    if info.task == "classification":
        lines.append(
            f"* Out: {', '.join(info.outputs)}; softmax of the logits divided by {info.temperature:.4g}, "
            "which was fitted on validation images."
        )
    else:
        lines.append(
            f"* Out: {', '.join(info.outputs)}; probability above {_show(info.threshold)}; components below "
            f"{_show(info.smallest)} mm³ (voxels, where the spacing is unknown) removed."
        )
    if info.flips:
        lines.append(f"* Mean over mirror images along {_show(info.flips)}.")
    lines += ["", "## Trained on", ""]
    lines += [f"* {name}: {_show(value)}" for name, value in info.trained_on.items()] or ["Not stated."]
    lines += ["", "## Measured", ""]
    if info.metrics:
        lines += ["| metric | value | 95 % interval |", "|---|---|---|"]
        for name, value in info.metrics.items():
            value, *interval = value if isinstance(value, list | tuple) else (value,)
            lines.append(f"| {name} | {_show(value)} | {' to '.join(map(_show, interval)) or '–'} |")
    else:
        lines.append("Not measured.")
    lines += ["", "## Limits", ""]
    lines += [f"* {limit}" for limit in info.limits] or ["Not stated."]
    lines += ["", "## Terms", "", info.terms or "Not stated.", ""]
    return "\n".join(lines)


def _show(value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_show, value))
    return str(value)
