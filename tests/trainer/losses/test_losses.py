"""Losses in closed form: values worked out by hand, gradients in float64, invariances, and readable errors."""

import json
import math

import pytest
import torch
from torch.autograd import gradcheck

from xvlm2vec.trainer.losses import (
    CrossModalAlignmentLoss,
    ImageDistillationLoss,
    LanguageDisentanglementLoss,
    LossSum,
    MatryoshkaLoss,
    MultilingualContrastiveLoss,
    OneToManyContrastiveLoss,
    SelfDistillationLoss,
)

ROWS = torch.tensor([0, 0, 1, 2, 2, 2])
LANGUAGES = ["it", "de", "it", "it", "de", "fr"]
DISTILLED = ("student_en", "student_lang", "teacher_en")
# One way to call every loss: its keywords, and those through which gradients flow.
CALLS = {
    "mse": (SelfDistillationLoss(), DISTILLED),
    "cosine": (SelfDistillationLoss(distance="cosine"), DISTILLED),
    "smooth-l1": (SelfDistillationLoss(distance="smooth_l1"), DISTILLED),
    "image": (ImageDistillationLoss(), (*DISTILLED, *(f"{name}_image" for name in DISTILLED))),
    "multilingual": (MultilingualContrastiveLoss(0.5), ("student_lang", "teacher_en", "row_of_pair")),
    "one-to-many": (OneToManyContrastiveLoss(0.5), ("student_lang", "teacher_en", "row_of_pair")),
    "cross-modal": (CrossModalAlignmentLoss(0.5), ("student_lang", "teacher_image", "row_of_pair")),
    "disentanglement": (LanguageDisentanglementLoss(), ("student_en", "student_lang", "languages")),
    "matryoshka": (MatryoshkaLoss(SelfDistillationLoss(), [2, 5], [1, 0.5]), DISTILLED),
    "sum": (LossSum({"a": SelfDistillationLoss(), "b": MultilingualContrastiveLoss()}, {"b": 0.1}), DISTILLED),
}
every_loss = pytest.mark.parametrize(("loss", "names"), list(CALLS.values()), ids=list(CALLS))


def inputs(names, dtype=torch.float64, width=5):
    generator = torch.Generator().manual_seed(0)
    others = {"row_of_pair": ROWS, "languages": LANGUAGES}
    return {
        name: others[name] if name in others else torch.randn(6, width, generator=generator, dtype=dtype)
        for name in names
    }


@every_loss
def test_gradients_in_float64_reach_the_student_and_never_the_teacher(loss, names):
    given = inputs(names)
    students = [name for name in names if name.startswith("student")]
    for name, value in given.items():
        if name.startswith(("student", "teacher")):
            value.requires_grad_()

    def value(*vectors):
        return loss(**{**given, **dict(zip(students, vectors, strict=True))})

    assert gradcheck(value, [given[name] for name in students])
    loss(**given).backward()
    for name in names:
        if name.startswith("student"):
            assert given[name].grad.norm() > 0
        elif name.startswith("teacher"):
            assert given[name].grad is None


@every_loss
def test_values_are_float32_scalars_also_from_bfloat16_and_under_autocast(loss, names):
    exact = loss(**{name: v.bfloat16().float() if torch.is_tensor(v) else v for name, v in inputs(names).items()})
    rounded = {
        name: v.bfloat16() if torch.is_tensor(v) and v.is_floating_point() else v for name, v in inputs(names).items()
    }
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(**rounded)
    assert value.dtype == torch.float32
    assert value.shape == ()
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)


@every_loss
def test_unknown_keywords_are_ignored_and_missing_ones_named_with_the_loss(loss, names):
    given = inputs(names)
    assert loss(**given, something_else=torch.zeros(3)) == loss(**given)
    given.pop("student_lang")
    inner = r"\w*Loss"
    with pytest.raises(TypeError, match=rf"{inner}\.forward\(\) missing .* argument: 'student_lang'"):
        loss(**given)


@every_loss
def test_vectors_of_different_shapes_are_refused_by_name(loss, names):
    given = inputs(names)
    given["student_lang"] = given["student_lang"][:-1]
    with pytest.raises(ValueError, match=r"Loss compares vectors .*student_lang \(5, "):
        loss(**given)


@every_loss
def test_settings_are_json_and_sources_are_bibtex(loss, names):
    settings = loss.get_config_dict()
    assert json.loads(json.dumps(settings)) == settings
    for entry in loss.citation.split("\n\n"):
        assert entry.startswith("@misc{")
        assert entry.count("{") == entry.count("}")
        assert "eprint" in entry


@every_loss
@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_vectors_that_are_all_equal_or_huge_give_finite_gradients(loss, names, scale):
    given = {
        name: torch.full((6, 5), scale, requires_grad=True) if torch.is_tensor(v) and v.is_floating_point() else v
        for name, v in inputs(names).items()
    }
    loss(**given).backward()
    for name in names:
        if name.startswith("student"):
            assert given[name].grad.isfinite().all()


# -- distillation -----------------------------------------------------------------------------------------------------

TEACHER = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
ENGLISH = torch.tensor([[1.0, 0.0], [2.0, 1.0]])  # off by 1 in one of two values: mse 1/2
TRANSLATED = torch.tensor([[0.0, 2.0], [0.0, 0.0]])  # off by 2 in one of two values: mse 2


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 0.5), (0.5, 1.25), (1.0, 2.0), (0.25, 0.875)])
def test_mean_squared_errors_are_weighed(weight, expected):
    loss = SelfDistillationLoss(weight)
    assert loss(student_en=ENGLISH, student_lang=TRANSLATED, teacher_en=TEACHER).item() == pytest.approx(expected)


def test_cosine_distance_by_hand_ignores_length():
    loss = SelfDistillationLoss(distance="cosine")
    teacher = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    english = torch.tensor([[5.0, 0.0], [0.0, 0.1]])  # 0, 0
    translated = torch.tensor([[0.0, 7.0], [0.0, -2.0]])  # 1, 2
    assert loss(student_en=english, student_lang=translated, teacher_en=teacher).item() == pytest.approx(0.75)


def test_smooth_l1_is_squared_near_and_linear_far():
    loss = SelfDistillationLoss(language_weight=1, distance="smooth_l1")
    teacher = torch.zeros(1, 2)
    value = loss(student_en=teacher, student_lang=torch.tensor([[0.5, 4.0]]), teacher_en=teacher)
    assert value.item() == pytest.approx((0.5 * 0.25 + 3.5) / 2)


def test_image_loss_is_the_mean_of_four_errors():
    value = ImageDistillationLoss()(
        student_en=ENGLISH,
        student_lang=TRANSLATED,
        teacher_en=TEACHER,
        student_en_image=TEACHER + 3,
        student_lang_image=TEACHER - 1,
        teacher_en_image=TEACHER,
    )
    assert value.item() == pytest.approx((0.5 + 2 + 9 + 1) / 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SelfDistillationLoss(1.5), "language_weight=1.5"),
        (lambda: SelfDistillationLoss(distance="l3"), "choose one of mse, cosine, smooth_l1"),
        (lambda: MultilingualContrastiveLoss(0), "temperature=0"),
        (lambda: MatryoshkaLoss(SelfDistillationLoss(), []), "dims"),
        (lambda: MatryoshkaLoss(SelfDistillationLoss(), [4, 4]), "dims"),
        (lambda: MatryoshkaLoss(SelfDistillationLoss(), [4, 2], [1]), "1 weights for 2 dims"),
        (lambda: LossSum({}), "at least one"),
        (lambda: LossSum({"a": SelfDistillationLoss()}, {"b": 1}), "no loss called 'b'"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# -- contrastive ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_equal_vectors_give_log_of_the_batch(rows, temperature):
    same = torch.ones(rows, 4)
    expected = pytest.approx(math.log(rows), abs=1e-6)
    own_rows = torch.arange(rows)
    assert MultilingualContrastiveLoss(temperature)(student_lang=same, teacher_en=same).item() == expected
    assert CrossModalAlignmentLoss(temperature)(student_lang=same, teacher_image=same).item() == expected
    one_to_many = OneToManyContrastiveLoss(temperature)
    assert one_to_many(student_lang=same, teacher_en=same, row_of_pair=own_rows).item() == expected


def test_multilingual_contrast_by_hand():
    student = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    teacher = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    half = math.sqrt(0.5)
    first = -math.log(math.exp(2) / (math.exp(2) + math.exp(2 * half)))  # temperature 1/2
    second = -math.log(math.exp(2 * half) / (math.exp(0) + math.exp(2 * half)))
    value = MultilingualContrastiveLoss(0.5)(student_lang=student, teacher_en=teacher)
    assert value.item() == pytest.approx((first + second) / 2)


def test_pairs_of_the_same_english_row_are_no_negatives():
    loss = MultilingualContrastiveLoss()
    same = torch.ones(4, 3)
    two_rows = torch.tensor([0, 0, 1, 1])
    assert loss(student_lang=same, teacher_en=same, row_of_pair=two_rows).item() == pytest.approx(math.log(3))
    one_row = torch.zeros(4, dtype=torch.long)
    assert loss(student_lang=same, teacher_en=same, row_of_pair=one_row).item() == pytest.approx(0)


def test_one_to_many_by_hand_counts_every_row_once():
    # Row 0 has two translations, row 1 one.
    teacher = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    total_0, total_1 = math.e + 1 + 1, 1 + math.e + math.e
    row_0 = -(math.log(math.e / total_0) + math.log(1 / total_0)) / 2
    row_1 = -math.log(math.e / total_1)
    value = OneToManyContrastiveLoss(1.0)(student_lang=student, teacher_en=teacher, row_of_pair=torch.tensor([0, 0, 1]))
    assert value.item() == pytest.approx((row_0 + row_1) / 2)


def test_one_to_many_is_least_when_all_languages_are_equally_near():
    teacher = torch.tensor([[1.0, 0.0]] * 2 + [[-1.0, 0.0]] * 2)
    rows = torch.tensor([0, 0, 1, 1])
    loss = OneToManyContrastiveLoss(0.01)
    best = loss(student_lang=teacher, teacher_en=teacher, row_of_pair=rows).item()
    assert best == pytest.approx(math.log(2))
    skewed = teacher.clone()
    skewed[1] = torch.tensor([0.9, 0.4])
    assert loss(student_lang=skewed, teacher_en=teacher, row_of_pair=rows).item() > best


@pytest.mark.parametrize("name", ["multilingual", "one-to-many", "cross-modal"])
def test_contrast_does_not_depend_on_length_rotation_or_order(name):
    loss, names = CALLS[name]
    given = inputs(names)
    value = loss(**given)
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    lengths = torch.rand(6, 1, dtype=torch.float64) + 0.5
    turned = {
        k: (v @ rotation) * (lengths if k == "student_lang" else 3) if v.dim() == 2 else v for k, v in given.items()
    }
    torch.testing.assert_close(loss(**turned), value)
    order = torch.randperm(6)
    torch.testing.assert_close(loss(**{k: v[order] for k, v in given.items()}), value)


def test_rows_without_an_image_are_left_out():
    given = inputs(("student_lang", "teacher_image", "row_of_pair"))
    loss = CrossModalAlignmentLoss()
    seen = torch.tensor([True, True, False, True, True, True])
    expected = loss(**{name: value[seen] for name, value in given.items()})
    torch.testing.assert_close(loss(**given, has_image=seen), expected)
    student = given["student_lang"].requires_grad_()
    nothing = loss(**given, has_image=torch.zeros(6, dtype=torch.bool))
    nothing.backward()
    assert nothing.item() == 0
    assert student.grad.eq(0).all()


@pytest.mark.parametrize("name", ["multilingual", "one-to-many", "cross-modal"])
def test_labels_of_another_number_are_refused(name):
    loss, names = CALLS[name]
    with pytest.raises(ValueError, match="one entry of row_of_pair for each vector: 2 for 6"):
        loss(**{**inputs(names), "row_of_pair": torch.zeros(2, dtype=torch.long)})


# -- disentanglement --------------------------------------------------------------------------------------------------


def test_a_language_that_can_be_read_off_costs_and_meaning_does_not():
    meaning = torch.randn(8, 6, dtype=torch.float64)
    languages = ["it", "de"] * 4
    loss = LanguageDisentanglementLoss()
    assert loss(student_en=meaning, student_lang=meaning, languages=languages).item() == 0
    accent = {"it": torch.eye(6)[0].double(), "de": -torch.eye(6)[1].double()}
    spoken = meaning + torch.stack([accent[language] for language in languages])
    strong = meaning + 2 * torch.stack([accent[language] for language in languages])
    values = [loss(student_en=meaning, student_lang=vectors, languages=languages) for vectors in (spoken, strong)]
    assert 0 < values[0] < values[1] < 1


def test_the_penalty_by_hand():
    # One dimension, one language: English at 0 and translations at 2. The vectors' variance is 1, that of the two label
    # columns 1/4 + 1/4; each column's covariance with the deviations (-1 and 1) is 1/2.
    value = LanguageDisentanglementLoss()(
        student_en=torch.zeros(3, 1), student_lang=torch.full((3, 1), 2.0), languages=["it"] * 3
    )
    assert value.item() == pytest.approx((2 * 0.25) / (1 * 0.5))


def test_the_penalty_knows_no_scale_shift_rotation_or_order():
    given = inputs(("student_en", "student_lang"))
    loss = LanguageDisentanglementLoss()
    value = loss(**given, languages=LANGUAGES)
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    moved = {name: 7 * vectors @ rotation + 3 for name, vectors in given.items()}
    torch.testing.assert_close(loss(**moved, languages=LANGUAGES), value)
    order = torch.randperm(6).tolist()
    shuffled = {name: vectors[order] for name, vectors in given.items()}
    torch.testing.assert_close(loss(**shuffled, languages=[LANGUAGES[i] for i in order]), value)


def test_descending_the_penalty_blinds_a_linear_probe():
    torch.manual_seed(0)
    meaning = torch.randn(60, 4)
    codes = torch.arange(60) % 3
    languages = [["it", "de", "fr"][code] for code in codes]
    vectors = (meaning + 2 * torch.eye(3, 4)[codes]).requires_grad_()
    loss = LanguageDisentanglementLoss()
    before = probe_accuracy(vectors.detach(), codes)
    optimizer = torch.optim.Adam([vectors], lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        loss(student_en=meaning, student_lang=vectors, languages=languages).backward()
        optimizer.step()
    assert before > 0.8
    assert probe_accuracy(vectors.detach(), codes) < 0.6


def probe_accuracy(vectors, codes):
    inputs = torch.cat([vectors, torch.ones(len(vectors), 1)], dim=1)
    weights = torch.linalg.lstsq(inputs, torch.eye(3)[codes]).solution
    return (inputs @ weights).argmax(dim=1).eq(codes).float().mean().item()


def test_the_text_language_counts_under_every_instruction_language():
    # An Italian text leans one way behind an Italian instruction and the other way behind an English one: over both
    # the accents cancel, so only the label of both languages sees them.
    meaning = torch.randn(4, 3, dtype=torch.float64)
    accent = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    spoken = meaning + torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]) * accent
    loss = LanguageDisentanglementLoss()
    call = {"student_en": meaning, "student_lang": spoken, "languages": ["it"] * 4}
    assert loss(**call).item() == pytest.approx(0)
    assert loss(**call, instruction_languages=["it", "en", "it", "en"]).item() > 0.01


@pytest.mark.parametrize("name", ["languages", "instruction_languages"])
def test_language_labels_of_another_number_are_refused(name):
    given = {**inputs(("student_en", "student_lang", "languages")), name: ["it"]}
    with pytest.raises(ValueError, match=f"one entry of {name} for each vector: 1 for 6"):
        LanguageDisentanglementLoss()(**given)


# -- composition ------------------------------------------------------------------------------------------------------


def test_matryoshka_is_the_weighted_sum_over_truncations():
    given = inputs(("student_lang", "teacher_en", "row_of_pair"))
    inner = MultilingualContrastiveLoss()
    value = MatryoshkaLoss(inner, [1, 3, 5], [0.5, 1, 2])(**given)
    cut = [{k: v[:, :m] if v.dim() == 2 else v for k, v in given.items()} for m in (1, 3, 5)]
    torch.testing.assert_close(value, 0.5 * inner(**cut[0]) + inner(**cut[1]) + 2 * inner(**cut[2]))
    torch.testing.assert_close(MatryoshkaLoss(inner, [5])(**given), inner(**given))


def test_the_terms_inside_matryoshka_are_those_of_all_sizes():
    given = {name: torch.randn(6, 8) for name in ("student_en", "student_lang", "teacher_en")}
    given |= {"row_of_pair": torch.arange(6), "languages": ["de"] * 6}
    total = LossSum({"a": SelfDistillationLoss(), "b": MultilingualContrastiveLoss()}, {"b": 0.5})
    value = MatryoshkaLoss(total, [2, 4, 8], [1, 0.5, 2])(**given)
    terms = total.last_terms
    torch.testing.assert_close(terms["a"] + 0.5 * terms["b"], value)


def test_another_row_with_the_same_image_is_no_negative():
    images = torch.eye(2, 4)[[0, 0, 1]]
    given = {"teacher_image": images, "student_lang_alone": images, "row_of_pair": torch.arange(3)}
    loss = CrossModalAlignmentLoss(0.01)
    assert loss(**given).item() == pytest.approx(2 / 3 * math.log(2), abs=1e-5)
    assert loss(**given, image_of_pair=torch.tensor([-7, -7, 5])).item() == pytest.approx(0, abs=1e-5)


def test_matryoshka_names_a_vector_that_is_too_short():
    loss = MatryoshkaLoss(SelfDistillationLoss(), [2, 8])
    with pytest.raises(ValueError, match=r"student_en \(6, 5\) to 8 values"):
        loss(**inputs(DISTILLED))


def test_a_sum_keeps_its_terms_for_the_log():
    given = inputs(("student_en", "student_lang", "teacher_en", "row_of_pair", "languages"))
    losses = {
        "distillation": SelfDistillationLoss(),
        "small": MatryoshkaLoss(SelfDistillationLoss(), [2]),
        "language": LanguageDisentanglementLoss(),
    }
    total = LossSum(losses, {"language": 0.1, "small": 3})
    value = total(**given)
    terms = total.last_terms
    assert list(terms) == list(losses)
    for name, loss in losses.items():
        torch.testing.assert_close(terms[name], loss(**given))
        assert not terms[name].requires_grad
    torch.testing.assert_close(value, terms["distillation"] + 3 * terms["small"] + 0.1 * terms["language"])
    assert total.get_config_dict()["small"]["weight"] == 3
    assert total.citation.count("@misc") == 3
