"""The words of a report that a language model may write, and those whose refusal is given a name.

What a model may not say cannot be listed: a number, a disease or a drug has more names, misspellings and
languages than any list. So what it *may* say is listed: `VOCABULARY`, plain words that hold no quantity,
judgement, diagnosis, place, advice or negation. The other lists name what is refused, for a better reason
than "not in the vocabulary"; none of their words is in it, and nothing rests on their being complete.
"""

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


VOCABULARY = _words(
    """
    a an the this that these those it its which and while where when is are was were been being has have of
    in on at by for from with within as to into through after during also then here together directly model
    models network networks classifier method program software computer algorithm architecture layers
    predicts predicted predicting prediction predictions assigns assigned assigning gives given giving gave
    outlines outline outlined outlining marks mark marked reports report reported reporting shows show shown
    showing states state stated stating describes described describing description measures measure measured
    measuring measurement measurements computes computed calculated calculates chosen chose chooses selected
    selects makes made making trained trains training tests test tested testing evaluates evaluate evaluated
    evaluation validation uses used using based drawn draws written inserted inserts taken takes follows
    following listed lists list named names name belongs received receives came comes considered concerns
    concerning applies applied expresses expressed means summarises summarizes summarised summarized summary
    presents presented contains contained includes included obtained produced produces provided provides
    noted explained explains computing reached reaches held holds kept put placed entered available image
    images picture pictures slice slices scan scans case cases file files brain head tissue region regions
    volume volumes diameter diameters size contrast brightness quality warning warnings check checks
    probability probabilities calibrated calibration class classes classification segmentation result
    results value values metric metrics score scores accuracy sensitivity specificity precision recall
    overlap distance loss curve interval intervals data set sets parameters step steps next limit limits
    section sections text texts language facts fact table page figure figures map maps heat colours colors
    overlay grad cam hemisphere side sides location position voxel voxels pixel pixels plane planes axial
    coronal sagittal magnetic resonance imaging mri research teaching study purpose purposes intended source
    sources finding findings subject title information details detail output outputs input inputs same
    automatic automatically own finally
    """
)

# After "and", "then", a comma or "to", or at the start of a sentence, these could tell a reader what to do.
ORDERS = _words(
    """
    test measure outline mark check checks list name scan state show report map image set put place value
    score contrast have use take make give
    """
)
# All that is said about next steps beside the steps themselves, which stand in the facts.
OF_STEPS = _words(
    """
    a the this that these those it its which and is are of in for here step steps next follows following
    listed list given stated named report facts section finally also
    """
)

# Allowed in a report of a test run, a training or a hospital, and not in one of an image or a case.
OF_TRAINING = _words(
    """
    round rounds epoch epochs hospital hospitals client clients global local federated centralized central
    share weights
    """
)

# What names the quantity of a measure in prose, by a part of the measure's name: `volume_wt` is told of by a
# sentence with "volume" and "whole". A part that is not here is named by itself.
KEYWORDS = {
    "wt": ("whole",),
    "tc": ("core",),
    "et": ("enhancing",),
    "ml": ("volume",),
    "volume": ("volume",),
    "mm": ("diameter", "distance"),
    "diameter": ("diameter",),
    "distance": ("distance",),
    "p": ("probability",),
    "probability": ("probability",),
    "accuracy": ("accuracy",),
    "precision": ("precision",),
    "recall": ("recall",),
    "sensitivity": ("sensitivity",),
    "specificity": ("specificity",),
    "ece": ("calibration",),
    "calibration": ("calibration",),
    "loss": ("loss",),
    "n": ("images", "pictures", "cases", "slices"),
    "images": ("images", "pictures"),
    "cases": ("cases",),
    "rounds": ("rounds", "round"),
    "round": ("round",),
    "epochs": ("epochs", "epoch"),
    "epoch": ("epoch",),
    "dice": ("dice", "overlap"),
    "hd95": ("distance",),
    "f1": ("score",),
    "auc": ("auc",),
}
REGIONS = {"wt", "tc", "et"}
# Words that may stand beside the value of another quantity, too.
COUNTS = {"n", "images", "cases", "rounds", "round", "epochs", "epoch", "chosen", "trained", "validation"}
QUALITIES = set(KEYWORDS) - REGIONS - COUNTS

NUMBERS = _words(
    """
    zero nil nought null none one ones two three four five six seven eight nine ten eleven twelve thirteen
    fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fourty fifty sixty seventy eighty
    ninety hundred hundreds thousand thousands million millions billion billions trillion dozen dozens
    couple pair pairs trio single singles double doubles doubled doubling triple tripled triplet quadruple
    quadrupled once twice thrice half halves halved halving third thirds quarter quarters fourth fourths
    fifth fifths sixth seventh eighth ninth tenth tenths eleventh twelfth twentieth hundredth thousandth
    first firstly second secondly last percent percentage percentages per cent permille fold twofold
    threefold tenfold times majority minority most mostly many several few fewer some all every each any both
    either neither whole entire more less least fewest largest smallest larger smaller bigger greater higher
    lower highest lowest above below under over between about around approximately roughly nearly almost
    exactly minus plus versus average mean median maximum minimum increase increased decrease decreased grown
    shrunk ml mm cm cc litre litres liter liters millilitre millilitres milliliter milliliters centimetre
    centimetres centimeter centimeters millimetre millimetres millimeter millimeters inch inches cubic
    """
)
DISEASES = _words(
    """
    glioma gliomas glioblastoma gbm meningioma meningiomas pituitary notumor adenoma macroadenoma
    microadenoma astrocytoma oligodendroglioma ependymoma medulloblastoma craniopharyngioma schwannoma
    neurinoma neuroma lymphoma metastasis metastases metastatic carcinoma sarcoma germinoma hemangioblastoma
    haemangioblastoma chordoma lipoma cavernoma papilloma teratoma pineoblastoma pineocytoma ganglioglioma
    neurocytoma melanoma cancer cancers cancerous malignant malignancy benign neoplasm neoplasms neoplastic
    tumour tumours tumor tumors lesion lesions mass masses growth cyst cysts abscess stroke infarct infarction
    ischaemia ischemia haemorrhage hemorrhage bleeding bleed haematoma hematoma aneurysm hydrocephalus oedema
    edema necrosis necrotic infection inflammation encephalitis meningitis sclerosis dementia epilepsy seizure
    seizures atrophy infiltration infiltrating invasive recurrence recurrent progression remission grade
    staging stage idh mgmt diagnosis diagnoses diagnosed diagnostic disease diseases disorder illness
    pathology pathological abnormal abnormality abnormalities normal healthy survival prognosis fatal lethal
    terminal aggressive symptom symptoms syndrome fracture trauma
    """
)
TREATMENTS = _words(
    """
    treatment treatments treat treated treating therapy therapies therapeutic surgery surgical surgeon operate
    operation resection resect craniotomy biopsy radiotherapy radiation irradiation radiosurgery chemotherapy
    chemo temozolomide bevacizumab dexamethasone steroid steroids cortisone levetiracetam lomustine
    carmustine vincristine aspirin ibuprofen paracetamol morphine mannitol antibiotics drug drugs medication
    medications medicine medicines dose doses dosage prescribe prescribed prescription tablet tablets inject
    injection infusion urgent urgently urgency emergency immediate immediately now today tomorrow soon hurry
    admit admission hospitalise hospitalize hospitalisation refer referral discharge discharged consult
    recommend recommended recommends recommendation advise advised advice suggest suggested should must need
    needs needed required ought shall wait observe monitor monitoring care cure cured safe safely
    """
)
NEGATIONS = _words(
    """
    no not nor never nothing nobody nowhere without cannot cant isnt wasnt arent doesnt dont didnt wont absent
    absence lack lacks lacking free except excluding exclude excludes excluded unless rather instead other
    others otherwise however but although though despite wrong false incorrect untrue invalid unlikely
    impossible different differs contrary opposite reverse reversed ignore ignored disregard disregarded
    hardly barely scarcely fails failed negative
    """
)
SIDES = _words(
    """
    left right midline lefthand righthand leftward rightward leftwards rightwards bilateral bilaterally
    unilateral contralateral ipsilateral lateral medial sinister dexter sinistral dextral crossing frontal
    parietal temporal occipital cerebellum cerebellar brainstem pons thalamus ventricle ventricles corpus
    callosum cortex lobe lobes insula sella anterior posterior superior inferior upper upwards
    """
)
JUDGEMENTS = _words(
    """
    high moderate low certain certainly certainty sure surely definite definitely doubt doubtless undoubtedly
    undoubted clear clearly obvious obviously likely probably possibly possible confirmed confirms confirm
    proves proven prove reliable reliably unreliable accurate perfect perfectly excellent good fine poor bad
    strong strongly weak very extremely highly confident confidently large small tiny huge big severe mild
    confidence
    clinical clinically validated approved certified validate guarantee guaranteed trust trusted best better
    worse worst superior important significant significantly
    """
)
COMMANDS = _words(
    """
    instruction instructions prompt system assistant user role json schema please do does click visit http
    https www email call password delete execute run override comply obey pretend act you your yours
    we our us i me my mine
    """
)

_LISTS = {
    "number": NUMBERS,
    "diagnosis": DISEASES,
    "advice": TREATMENTS,
    "negation": NEGATIONS,
    "side": SIDES,
    "judgement": JUDGEMENTS,
    "instruction": COMMANDS,
}
_ROMAN = re.compile(r"m{0,3}(cm|cd|d?c{0,3})(xc|xl|l?x{0,3})(ix|iv|v?i{0,3})")
_SPELLED = re.compile(r"(twen|thir|four|for|fif|six|seven|eigh|nine)(ty|teen|tieth|ties)")
_DISEASE = re.compile(r"[a-z]{2,}(omas?|omata|itis|emia|aemia|plasia|pathy|ectomy|therapy)")


def name_refusal(word: str) -> str:
    """Return what a word outside the vocabulary is refused as.

    Parameters
    ----------
    word : str
        Lower-case ASCII letters.

    Returns
    -------
    {"number", "diagnosis", "advice", "negation", "side", "judgement", "instruction", "word"}
        ``word`` for one that no list names: it is refused all the same.
    """
    for kind, words in _LISTS.items():
        if word in words:
            return kind
    if _ROMAN.fullmatch(word) or _SPELLED.match(word):
        return "number"
    return "diagnosis" if _DISEASE.fullmatch(word) else "word"
