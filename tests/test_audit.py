import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from fedutils import cli
from fedutils.data.audit import Audit, audit_folder, stop_on_leak, take_split
from fedutils.data.brain_mri import CLASSES, load_images
from fedutils.data.image_audit import audit_images
from fedutils.data.odd_images import compute_robust_score
from fedutils.data.shortcuts import measure_shortcut
from fedutils.errors import InputError


def make_picture(seed, size=(48, 40)):
    """Make a smooth random picture, (width, height): what survives another format."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 8), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def images(tmp_path):
    """Make a clean data set: 12 + 4 pictures a class, all different, of one size and mode."""
    root, seed = tmp_path / "brain_mri", 0
    for split, count in (("Training", 12), ("Testing", 4)):
        for name in CLASSES:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                seed += 1
                make_picture(seed).save(folder / f"{i:02}.png")
    return root


def audit(root, **options) -> Audit:
    return audit_folder(root, progress=False, **options)


def find(found: Audit, kind):
    return next(finding for finding in found.findings if finding.kind == kind)


def rows_of(found: Audit):
    return {row.path: row for row in found.rows}


def load(root):
    return [load_images(root, split, size=24, progress=False) for split in ("Training", "Testing")]


def test_a_clean_set_has_no_finding_and_status_0(images):
    found = audit(images)
    assert found.findings == () and found.status == 0 and found.skipped == ()
    assert found.counts["Training"] == dict.fromkeys(CLASSES, 12)
    assert found.kept() == {"Training": 48, "Testing": 16, "left out": 0}
    assert len({row.group for row in found.rows}) == 64
    assert "nothing found" in found.describe()
    stop_on_leak(found)


def test_an_exact_copy_across_splits_is_a_leak_whatever_its_format(images):
    Image.open(images / "Training/glioma/03.png").convert("RGB").save(images / "Testing/glioma/copy.png")
    found = audit(images)
    leak = find(found, "exact copies across splits")
    assert found.status == 1 and leak.severity == "leak" and leak.count == 1
    assert leak.files == (("Testing/glioma/copy.png", "Training/glioma/03.png"),)
    rows = rows_of(found)
    assert rows["Testing/glioma/copy.png"].part == "Testing"
    assert rows["Training/glioma/03.png"].part == "left out"
    assert "Testing/glioma/copy.png" in rows["Training/glioma/03.png"].why
    assert found.kept() == {"Training": 47, "Testing": 17, "left out": 1}
    other = audit(images, keep="training")
    assert rows_of(other)["Testing/glioma/copy.png"].part == "left out" and other.findings == found.findings
    assert other.kept() == {"Training": 48, "Testing": 16, "left out": 1}
    with pytest.raises(InputError, match="keep: expected one of testing, training"):
        audit(images, keep="both")
    assert found.count("near copies across splits") == 0


def test_a_copy_encoded_again_is_a_near_copy(images):
    Image.open(images / "Training/glioma/03.png").save(images / "Testing/glioma/again.jpg", quality=70)
    found = audit(images)
    leak = find(found, "near copies across splits")
    assert found.status == 1 and leak.count == 1 and found.count("exact copies across splits") == 0
    assert leak.files == (("Testing/glioma/again.jpg", "Training/glioma/03.png"),)
    rows = rows_of(found)
    assert rows["Training/glioma/03.png"].part == "left out"
    assert rows["Testing/glioma/again.jpg"].group == rows["Training/glioma/03.png"].group


def test_a_mirrored_copy_is_found_and_called_so(images):
    image = Image.open(images / "Training/pituitary/05.png")
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(images / "Testing/pituitary/flip.png")
    leak = find(audit(images), "near copies across splits")
    assert leak.files == (("Testing/pituitary/flip.png", "Training/pituitary/05.png"),)
    assert "mirrored left to right" in leak.details[0]


def test_one_picture_in_two_classes_is_a_warning_and_worse_than_a_repeat(images):
    shutil.copy(images / "Training/glioma/00.png", images / "Training/notumor/twin.png")
    shutil.copy(images / "Training/glioma/01.png", images / "Training/glioma/twin.png")
    found = audit(images)
    kinds = [finding.kind for finding in found.findings]
    assert kinds == ["one picture, two labels", "exact repeats within a split"] and found.status == 0
    assert find(found, kinds[0]).files == (("Training/glioma/00.png", "Training/notumor/twin.png"),)
    assert find(found, kinds[0]).severity == "warning" and find(found, kinds[1]).severity == "note"
    out = {path for path, row in rows_of(found).items() if row.part == "left out"}
    assert out == {"Training/glioma/00.png", "Training/notumor/twin.png", "Training/glioma/twin.png"}


def test_near_copies_in_two_classes_are_named(images):
    Image.open(images / "Training/glioma/00.png").save(images / "Training/meningioma/twin.jpg", quality=70)
    finding = find(audit(images), "near copies, two labels")
    assert set(finding.files[0]) == {"Training/glioma/00.png", "Training/meningioma/twin.jpg"}
    assert "glioma and meningioma" in finding.details[0]
    assert {path for path, row in rows_of(audit(images)).items() if row.part == "left out"} == set(
        finding.files[0]
    )


def test_a_class_that_its_size_gives_away(images):
    for path in images.glob("*/notumor/*.png"):
        image = Image.open(path)
        image.resize((72, 60)).save(path)
    found = audit(images)
    shortcuts = {(s.target, s.feature): s for s in found.shortcuts}
    size = shortcuts["class", "size in pixels"]
    # Of four classes one is certain, the others share what is left: recall 1 and, at best, 1 of 3.
    assert size.is_found and 0.3 < size.low < size.score <= 0.55 and size.chance == 0.25
    assert size.majority == 0.25 and not shortcuts["class", "mode"].is_found
    assert not shortcuts["split", "size in pixels"].is_found
    finding = find(found, "shortcut to the class: size in pixels")
    assert finding.severity == "warning" and "chance 25.0%" in finding.message and found.status == 0


def test_the_interval_of_a_certain_shortcut_is_not_a_point():
    labels = np.repeat([0, 1], [30, 12])
    found = measure_shortcut("class", "x", labels[:, None] * 1.0, labels, np.arange(42), seed=0)
    assert found.score == found.high == found.accuracy == 1 and found.majority == 30 / 42
    p = np.array([32 / 34, 14 / 16])
    error = 1.959964 * np.sqrt((p * (1 - p) / [34, 16]).sum()) / 2
    assert found.low == pytest.approx(1 - error)
    copies = np.repeat(np.arange(14), 3)  # 10 and 4 groups: too few of the second to say anything
    assert measure_shortcut("class", "x", labels[:, None] * 1.0, labels, copies, seed=0) is None


def test_odd_images_are_named_the_worst_first(images):
    folder = images / "Training/notumor"
    for i in range(6):  # a class of 22 training and test images
        make_picture(900 + i).save(folder / f"more_{i}.png")
    red = np.zeros((40, 48, 3), np.uint8)
    red[:20, :, 0] = np.asarray(make_picture(990))[:20]
    Image.fromarray(red).save(images / "Training/glioma/red.png")
    make_picture(991, (120, 30)).save(images / "Training/glioma/wide.png")
    Image.fromarray(np.full((40, 48), 90, np.uint8)).save(images / "Training/glioma/flat.png")
    black = (np.asarray(make_picture(992)) * 0.02).astype(np.uint8)
    Image.fromarray(black).save(folder / "black.png")
    found = audit(images)
    assert not any("unlike" in f.kind for f in found.findings)  # all are as unlike as random pictures are
    worst = {f.kind.removeprefix("odd images: "): f.files[0][0] for f in found.findings if "odd" in f.kind}
    assert worst["colour"] == "Training/glioma/red.png"
    assert worst["extreme shape"] == "Training/glioma/wide.png"
    assert worst["nearly constant"] == "Training/glioma/flat.png"
    assert worst["brightness"] == "Training/notumor/black.png"
    assert find(found, "odd images: nearly constant").severity == "note"


def test_robust_scores_by_hand():
    assert compute_robust_score([1, 2, 3, 4, 14]) == pytest.approx(np.array([-2, -1, 0, 1, 11]) / 1.4826)
    assert compute_robust_score([5, 5, 5, 9]).tolist() == [0, 0, 0, 0]


def test_an_unreadable_file_stops_or_is_listed(images):
    bad = images / "Training/glioma/cut.png"
    bad.write_bytes((images / "Training/glioma/00.png").read_bytes()[:200])
    with pytest.raises(InputError, match=r"cut\.png: expected a readable image"):
        audit(images)
    found = audit(images, skip_bad=True)
    assert find(found, "unreadable files").files == (("Training/glioma/cut.png",),) and found.status == 0
    assert [path for path, _ in found.skipped] == ["Training/glioma/cut.png"]
    row = found.rows[-1]
    assert (row.path, row.part, row.group) == ("Training/glioma/cut.png", "left out", -1)


def test_what_is_loaded_is_audited_without_decoding_again(images, monkeypatch):
    shutil.copy(images / "Training/glioma/00.png", images / "Testing/glioma/copy.png")
    training, testing = load(images)
    from_files = audit(images)

    def refuse(path):
        raise AssertionError(f"{path} was decoded again")

    monkeypatch.setattr("fedutils.data.image_audit.read_image", refuse)
    assert audit_images(training, testing) == from_files
    assert audit_images(training, testing, shortcuts=False).shortcuts == ()


def test_a_leak_stops_a_notebook_unless_the_public_split_is_asked_for(images):
    shutil.copy(images / "Training/glioma/00.png", images / "Testing/glioma/copy.png")
    training, testing = load(images)
    found = audit_images(training, testing)
    with pytest.raises(InputError, match=r"brain_mri: expected nothing on both sides.*1 of 17 test images"):
        stop_on_leak(found)
    with pytest.raises(InputError, match="both sides"):
        stop_on_leak(found, allow="deduplicated")
    stop_on_leak(found, allow="public")
    with pytest.raises(InputError, match="deduplicated, public, found 'Public'"):
        stop_on_leak(found, allow="Public")

    public = take_split(found, training, testing, "public")
    assert [part.paths for part in public] == [training.paths, testing.paths]
    copy = [path.name for path in testing.paths].index("copy.png")
    original = training.paths.index(images / "Training/glioma/00.png")
    assert public[1].groups[copy] == public[0].groups[original]
    kept, unseen = take_split(found, training, testing)
    assert len(kept) == 47 and len(unseen) == 17
    assert images / "Training/glioma/00.png" in training.paths and training.paths[0] not in kept.paths
    assert np.array_equal(kept.x[0], training.x[training.paths.index(kept.paths[0])])
    again = audit_images(kept, unseen)
    stop_on_leak(again)
    assert again.status == 0
    with pytest.raises(ValueError, match="not of these"):
        take_split(found, kept, testing)


def test_a_class_of_copies_only_cannot_be_tested(images):
    for path in (images / "Testing/glioma").iterdir():
        shutil.copy(images / "Training/glioma" / path.name, path)
    training, testing = load(images)
    with pytest.raises(InputError, match=r"Testing/glioma: expected an image that is no copy"):
        take_split(audit_images(training, testing, keep="training"), training, testing)
    kept, unseen = take_split(audit_images(training, testing), training, testing)
    assert len(kept) == 44 and len(unseen) == 16


def test_command_line(images, tmp_path, capsys):
    out = tmp_path / "report"
    assert cli.main(["data", "audit", str(images), "--out", str(out)]) == 0
    assert "64 images read: Training 48, Testing 16" in capsys.readouterr().out
    Image.open(images / "Training/glioma/03.png").save(images / "Testing/glioma/<again>.jpg", quality=70)
    assert cli.main(["data", "audit", str(images), "--out", str(out)]) == 1
    assert "LEAK     near copies across splits: 1 other test images of 17" in capsys.readouterr().out
    page = (out / "report.html").read_text()
    assert (
        page.count("data:image/jpeg;base64,") >= 2 and "&lt;again&gt;.jpg" in page and "<again>" not in page
    )
    assert "http" not in page and str(tmp_path) not in page
    plain = json.loads((out / "report.json").read_text())
    assert plain["status"] == 1 and plain["kept"]["left out"] == 1
    rows = list(csv.DictReader((out / "split.csv").open()))
    assert len(rows) == 65 and set(rows[0]) == {"path", "class", "part", "group", "why"}
    assert [r["path"] for r in rows if r["part"] == "left out"] == ["Training/glioma/03.png"]

    assert cli.main(["data", "audit", str(images), "--json", "--out", str(out)]) == 1
    assert json.loads(capsys.readouterr().out) == plain
    assert cli.main(["data", "audit", str(images), "--distance", "65"]) == 2
    assert capsys.readouterr().err.startswith("error: distance: expected 0 to 64 bits")
    (images / "Testing/glioma/note.jpg").write_text("no image")
    assert cli.main(["data", "audit", str(images)]) == 2
    assert "note.jpg: expected a readable image" in capsys.readouterr().err
    assert cli.main(["data", "audit", str(images), "--skip-bad"]) == 1
    assert (tmp_path / "output/audit/brain_mri/report.html").exists()
    assert cli.main(["data", "audit", str(tmp_path / "nowhere")]) == 2


def test_real_copies_plain_mirrored_and_upside_down(real_data, tmp_path):
    """Pairs that were looked at; see the paper for the audit of the whole set."""
    expected = {
        "Testing/meningioma/Te-meTr_0001.jpg": "Training/meningioma/Tr-me_0196.jpg",
        "Testing/notumor/Te-no_0155.jpg": "Training/notumor/Tr-no_0503.jpg",
        "Testing/notumor/Te-no_0225.jpg": "Training/notumor/Tr-no_0821.jpg",
    }
    source = real_data / "brain_mri"
    names = {*expected, *expected.values()}
    for folder in source.glob("*/*"):
        names |= {str(path.relative_to(source)) for path in sorted(folder.iterdir())[:2]}
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(source / name)
    found = audit(tmp_path)
    exact, near = (find(found, f"{kind} copies across splits") for kind in ("exact", "near"))
    assert expected.items() <= {**dict(exact.files), **dict(near.files)}.items()
    assert "Testing/meningioma/Te-meTr_0001.jpg" in dict(exact.files)
    words = dict(zip([files[0] for files in near.files], near.details, strict=True))
    assert "mirrored left to right" in words["Testing/notumor/Te-no_0155.jpg"]
    assert "upside down" in words["Testing/notumor/Te-no_0225.jpg"]
