import dataclasses
import html
import io
import json
import os
import random
import re
import time
from html.parser import HTMLParser

import pytest
from PIL import Image, ImageDraw

from xvlm2vec.common.languages import language
from xvlm2vec.eval.report import page as html_report
from xvlm2vec.eval.report.colors import heat_colors
from xvlm2vec.eval.report.data import Answer, Credit, Example, LanguageInfo, ReportData, SearchEntry
from xvlm2vec.eval.report.page import render_report, write_report

TASKS = {
    "c": "classification",
    "i2t": "image to text",
    "t2i": "text to image",
    "vqa": "questions about images",
    "vg": "grounding",
}
CODES = ("en", "de", "fr", "ru", "fa", "ar", "zh", "ja", "ko", "tr")
CONTROLS = ("ko", "tr")
COLORS = {
    "red": "#d64541",
    "blue": "#3867d6",
    "green": "#20a464",
    "yellow": "#f0b429",
    "black": "#2b2b33",
    "orange": "#e67e22",
}
SHAPES = ("circle", "square", "triangle", "star")
WORDS = {
    "en": "red blue green yellow black orange circle square triangle star",
    "de": "rot blau grün gelb schwarz orange Kreis Quadrat Dreieck Stern",
    "fr": "rouge bleu vert jaune noir orange cercle carré triangle étoile",
    "ru": "красный синий зелёный жёлтый чёрный оранжевый круг квадрат треугольник звезда",
    "fa": "قرمز آبی سبز زرد سیاه نارنجی دایره مربع مثلث ستاره",
    "ar": "أحمر أزرق أخضر أصفر أسود برتقالي دائرة مربع مثلث نجمة",
    "zh": "红色 蓝色 绿色 黄色 黑色 橙色 圆形 正方形 三角形 星形",
    "ja": "赤い 青い 緑の 黄色い 黒い オレンジの 円 四角 三角 星",
    "ko": "빨간 파란 초록 노란 검은 주황 원 사각형 삼각형 별",
    "tr": "kırmızı mavi yeşil sarı siyah turuncu daire kare üçgen yıldız",
}
HOSTILE = "</script><img src=x onerror=alert(1)>&\u2028'\""


def draw(color: str, shape: str, rng: random.Random) -> Image.Image:
    """A 48-pixel image of one shape on a noisy pale ground."""
    ground = tuple(rng.randrange(200, 245) for _ in range(3))
    image = Image.new("RGB", (48, 48), ground)
    pen = ImageDraw.Draw(image)
    x, y, r = rng.randrange(19, 29), rng.randrange(19, 29), rng.randrange(11, 17)
    fill = COLORS[color]
    if shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif shape == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), fill=fill)
    else:
        pen.regular_polygon((x, y, r), 3, fill=fill)
        if shape == "star":
            pen.regular_polygon((x, y, r), 3, rotation=180, fill=fill)
    return image


def phrase(code: str, color: str, shape: str) -> str:
    """The name of a shape in one language; grammar is not the point."""
    words = WORDS[code].split()
    first, second = words[list(COLORS).index(color)], words[6 + SHAPES.index(shape)]
    parts = (second, first) if code in ("fr", "fa", "ar") else (first, second)
    return ("" if code in ("zh", "ja") else " ").join(parts)


def role(code: str) -> str:
    return "english" if code == "en" else "control" if code in CONTROLS else "taught"


def make_data(seed: int = 0) -> ReportData:
    rng = random.Random(seed)
    concepts = [(color, shape) for color in COLORS for shape in SHAPES]
    ids = [f"{color} {shape}" for color, shape in concepts]

    def score(mean: float) -> dict:
        p = min(max(rng.gauss(mean, 0.015), 0.0), 1.0)
        return {"p_at_1": p, "n": 300, "ci95": [max(p - 0.04, 0.0), min(p + 0.04, 1.0)]}

    level = {"c": 0.81, "i2t": 0.85, "t2i": 0.86, "vqa": 0.47, "vg": 0.83}
    scores = {
        model: {
            task: {
                code: score(
                    level[task]
                    if code == "en" or (model == "student" and role(code) == "taught")
                    else 0.3 if task in ("vqa", "vg") else 0.02
                )
                for code in CODES
            }
            for task in TASKS
        }
        for model in ("teacher", "student")
    }  # fmt: skip

    def found(gold: str, good: bool, k: int) -> list[str]:
        others = rng.sample([key for key in ids if key != gold], k)
        return [gold, *others[: k - 1]] if good else others

    def knows(model: str, code: str) -> bool:
        return rng.random() < (0.88 if code == "en" or (model == "student" and role(code) == "taught") else 0.05)

    search = [
        SearchEntry(code, phrase(code, *pair), key, *(found(key, knows(m, code), 6) for m in ("teacher", "student")))
        for pair, key in zip(concepts, ids, strict=True)
        for code in CODES
    ]

    def example(task: str, code: str) -> Example:
        index = rng.randrange(len(ids))
        by_image = task in ("t2i", "vg")
        gold = ids[index]

        def candidate(key: str) -> Answer:
            text = None if by_image else phrase(code, *concepts[ids.index(key)])
            return Answer(text, key if by_image else None, key == gold)

        known = [knows(model, code) for model in ("teacher", "student")]
        answers = [[candidate(key) for key in found(gold, right, 5)] for right in known]
        ranks = [1 if right else rng.randrange(6, 20) for right in known]
        text = phrase(code, *concepts[index]) if by_image else "?" if task == "vqa" else None
        return Example(task, code, text, None if by_image else gold, candidate(gold), *answers, *ranks)

    return ReportData(
        title="An English model that now understands nine languages",
        subtitle="Made on a laptop: drawn shapes, ten languages, one small model that learned from itself.",
        languages=[LanguageInfo.of(code, role(code)) for code in CODES],
        tasks=TASKS,
        scores=scores,
        seconds={"data": 12.0, "teacher": 301.4, "distill": 268.2, "evaluate": 34.0, "release": 8.1},
        training_stages=("teacher", "distill"),
        parameters=2_100_000,
        peak_rss_mb=1834.2,
        facts=[("seed", "0"), ("torch", "2.13.0"), ("images", "48 x 48 pixels")],
        images={key: draw(*pair, rng) for pair, key in zip(concepts, ids, strict=True)},
        captions={key: key for key in ids},
        search=search,
        examples=[example(task, code) for task in TASKS for code in CODES for _ in range(3)],
        examples_note="Drawn at random from the test set.",
        withheld={m: {c: scores[m]["c"][c] for c in ("en", "de", "ar")} for m in ("teacher", "student")},
        withheld_languages=["de", "ar"],
        credits=[
            Credit("Shapes drawn by this test", None),
            Credit("Unicode CLDR, Unicode License", "https://cldr.unicode.org"),
        ],
    )


@pytest.fixture(scope="module")
def data() -> ReportData:
    return make_data()


@pytest.fixture(scope="module")
def page(data: ReportData) -> str:
    return render_report(data)


def payload(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


class Elements(HTMLParser):
    """Collects the start tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_page_loads_nothing(page):
    for tag, attributes in Elements(page).tags:
        for name in ("src", "srcset", "poster", "action", "data"):
            assert name not in attributes, f"<{tag} {name}> in the static page"
        if tag == "link":
            assert attributes["href"].startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in page
    assert not re.search(r"url\(|fetch\(|XMLHttpRequest|import\(", page)
    assert "default-src 'none'" in page


def test_every_score_is_on_the_page(data, page):
    tips = [
        attributes["data-tip"] for tag, attributes in Elements(page).tags if tag == "td" and "data-tip" in attributes
    ]
    assert len(tips) == 2 * len(CODES) * len(TASKS)
    for model, word in (("teacher", "before"), ("student", "after")):
        for task, label in TASKS.items():
            for code in CODES:
                score = data.scores[model][task][code]
                low, high = (f"{100 * bound:.1f}" for bound in score["ci95"])
                value = f"{100 * score['p_at_1']:.1f}%, 95% CI {low} to {high}, n = 300"
                assert f"{language(code).name} · {label} · {word}: {value}" in tips


def test_headline_is_computed(data, page):
    taught = [code for code in CODES if role(code) == "taught"]

    def mean(model: str, codes: list[str]) -> str:
        values = [data.scores[model][task][code]["p_at_1"] for task in ("c", "i2t", "t2i", "vg") for code in codes]
        return f"{100 * sum(values) / len(values):.1f}%"

    text = html.unescape(page)
    assert f"7 taught languages rose from {mean('teacher', taught)} to {mean('student', taught)}" in text
    assert f"English went from {mean('teacher', ['en'])} to {mean('student', ['en'])}" in text
    assert f"2 languages left out as a control from {mean('teacher', list(CONTROLS))}" in text
    worse = dataclasses.replace(data, scores={"teacher": data.scores["student"], "student": data.scores["teacher"]})
    assert "7 taught languages fell from" in render_report(worse)


def test_payload_refers_to_images_by_index(data, page):
    content = payload(page)
    keys = list(data.images)
    assert len(content["images"]) == len(keys)
    assert all(uri.startswith("data:image/webp;base64,") for uri in content["images"])
    assert len(content["search"]) == len(data.search)
    lang, text, gold, teacher, student = content["search"][17]
    entry = data.search[17]
    assert (lang, text, keys[gold]) == (entry.lang, entry.text, entry.gold)
    assert [keys[i] for i in teacher] == entry.teacher
    assert [keys[i] for i in student] == entry.student
    assert [example["lang"] for example in content["examples"]] == [example.lang for example in data.examples]


def test_facts_stages_and_credits_are_shown(page):
    text = Elements(page).text
    for expected in (
        "torch",
        "2.13.0",
        "distill",
        "4.5 min",
        "1,834 MiB",
        "Unicode CLDR, Unicode License",
        "2.1 million",
    ):
        assert expected in text


def test_hostile_texts_stay_text(data):
    search = [dataclasses.replace(data.search[0], text=HOSTILE), *data.search[1:]]
    examples = [dataclasses.replace(data.examples[0], query_text=HOSTILE), *data.examples[1:]]
    hostile = dataclasses.replace(
        data,
        title=HOSTILE,
        subtitle=HOSTILE,
        facts=[(HOSTILE, HOSTILE)],
        search=search,
        examples=examples,
        captions={key: HOSTILE for key in data.images},
        credits=[Credit(HOSTILE, "javascript:alert(1)")],
    )
    page = render_report(hostile)
    elements = Elements(page)
    assert [tag for tag, _ in elements.tags if tag == "img"] == []
    assert sum(tag == "script" for tag, _ in elements.tags) == page.count("</script>") == 2
    assert not any(attributes.get("href", "").startswith("javascript") for _, attributes in elements.tags)
    content = payload(page)
    assert content["search"][0][1] == content["examples"][0]["text"] == content["captions"][0] == HOSTILE


def test_encoded_images_are_kept(data):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "PNG")
    page = render_report(dataclasses.replace(data, images={**data.images, "more": buffer.getvalue()}))
    assert payload(page)["images"][-1].startswith("data:image/png;base64,")
    with pytest.raises(ValueError, match=r"image 'more' is neither"):
        render_report(dataclasses.replace(data, images={**data.images, "more": b"not an image"}))


def test_contradictions_are_named(data):
    with pytest.raises(ValueError, match=r"search\[0\].*'nowhere'"):
        render_report(dataclasses.replace(data, search=[dataclasses.replace(data.search[0], gold="nowhere")]))
    with pytest.raises(ValueError, match=r"search\[0\].*'xx'"):
        render_report(dataclasses.replace(data, search=[dataclasses.replace(data.search[0], lang="xx")]))
    with pytest.raises(ValueError, match=r"examples\[0\].*'xx'"):
        render_report(dataclasses.replace(data, examples=[dataclasses.replace(data.examples[0], task="xx")]))
    with pytest.raises(ValueError, match="one language at most"):
        render_report(dataclasses.replace(data, languages=[*data.languages, LanguageInfo.of("en-GB", "english")]))
    with pytest.raises(ValueError, match=r"no task has scores of the languages \['he'\]"):
        render_report(dataclasses.replace(data, languages=[*data.languages, LanguageInfo.of("he", "control")]))
    without = {task: {c: s for c, s in row.items() if c != "de"} for task, row in data.scores["teacher"].items()}
    with pytest.raises(ValueError, match=r"scores\['teacher'\]\['c'\] lacks the languages \['de'\]"):
        render_report(dataclasses.replace(data, scores={**data.scores, "teacher": without}))
    with pytest.raises(ValueError, match="scores of the 'student' are missing"):
        render_report(dataclasses.replace(data, scores={"teacher": data.scores["teacher"]}))
    with pytest.raises(ValueError, match="withheld needs"):
        render_report(dataclasses.replace(data, withheld={"teacher": data.withheld["teacher"]}))


def test_page_without_the_optional_parts(data):
    bare = ReportData("t", "s", data.languages[:2], TASKS, data.scores)
    text = Elements(render_report(bare)).text
    assert "Every task in every language" in text
    assert "Search it yourself" not in text
    assert "Words that distillation never saw" not in text


def test_full_size_page_stays_small(data):
    rng = random.Random(1)
    images = {str(i): Image.frombytes("RGB", (48, 48), rng.randbytes(48 * 48 * 3)) for i in range(300)}
    keys = list(images)
    search = [
        SearchEntry(
            rng.choice(CODES), f"a name of usual length {i}", rng.choice(keys), rng.sample(keys, 6), rng.sample(keys, 6)
        )
        for i in range(4200)
    ]
    page = render_report(dataclasses.replace(data, images=images, search=search, examples=(), captions={}))
    assert len(page.encode()) < 4_000_000


def test_write_is_atomic(data, tmp_path, monkeypatch):
    path = write_report(data, tmp_path / "new" / "report.html")
    before = path.read_text(encoding="utf-8")
    assert before == render_report(data)

    def fail(*_args):
        raise OSError("disk full")

    monkeypatch.setattr(html_report.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(dataclasses.replace(data, title="other"), path)
    assert path.read_text(encoding="utf-8") == before
    assert os.listdir(path.parent) == ["report.html"]


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_heat_colors_are_ordered_and_readable():
    steps = [heat_colors(i / 100) for i in range(101)]
    light = [luminance(step["l"]) for step in steps]
    dark = [luminance(step["d"]) for step in steps]
    assert light == sorted(light, reverse=True)
    assert dark == sorted(dark)
    for step in steps:
        for ground, ink in ((step["l"], step["li"]), (step["d"], step["di"])):
            high, low = sorted((luminance(ground), luminance(ink)), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5
    assert heat_colors(-1) == heat_colors(0)
    assert heat_colors(2) == heat_colors(1)


def test_languages():
    assert language("fa").rtl
    assert language("ar").native_name == "العربية"
    assert not language("de").rtl
    assert language("pt-BR").name == "Portuguese (Brazil)"
    assert language("xx").name == "xx"
    assert language("he").rtl
    with pytest.raises(ValueError, match="empty"):
        language("")


@pytest.fixture
def opened(browser, data, tmp_path):
    browser.get(write_report(data, tmp_path / "report.html").as_uri())
    yield browser
    assert browser.get_log("browser") == []


def images_of(browser, side: str) -> list[int]:
    found = browser.find_elements("css selector", f'#answer [data-side="{side}"] img')
    assert all(browser.execute_script("return arguments[0].naturalWidth", image) == 48 for image in found)
    return [int(image.get_attribute("data-image")) for image in found]


@pytest.mark.browser
@pytest.mark.parametrize(("code", "typed"), [("de", "GRUN s"), ("ja", "緑の"), ("ar", "نجمة"), ("en", "star")])
def test_search_box_finds_names_in_every_script(opened, data, code, typed):
    keys = list(data.images)
    box = opened.find_element("id", "box")
    opened.find_element("css selector", f'#filter [data-value="{code}"]').click()
    box.send_keys(typed)
    options = opened.find_elements("css selector", "#options [role=option]")
    texts = [option.find_element("css selector", "span").text for option in options]
    assert texts
    assert {option.find_element("css selector", "small").text for option in options} == {language(code).name}
    assert box.get_attribute("aria-expanded") == "true"
    if len(options) > 1:
        box.send_keys("\ue015")
        assert box.get_attribute("aria-activedescendant") == "option-1"
        assert options[1].get_attribute("aria-selected") == "true"
    chosen = texts[min(1, len(texts) - 1)]
    box.send_keys("\ue007")
    entry = next(entry for entry in data.search if entry.lang == code and entry.text == chosen)
    assert box.get_property("value") == chosen
    assert [keys[i] for i in images_of(opened, "before")] == entry.teacher
    assert [keys[i] for i in images_of(opened, "after")] == entry.student
    marked = opened.find_elements("css selector", '#answer [data-side="after"] li.ok img')
    assert [keys[int(image.get_attribute("data-image"))] for image in marked] == [entry.gold] * (
        entry.gold in entry.student
    )
    asked = opened.find_element("css selector", "#answer .asked span")
    assert (asked.get_attribute("lang"), asked.get_attribute("dir")) == (code, "rtl" if language(code).rtl else "ltr")


@pytest.mark.browser
def test_search_box_says_when_nothing_matches_and_closes(opened):
    box = opened.find_element("id", "box")
    box.send_keys("qqqq")
    assert opened.find_element("css selector", "#options").text == "No such name"
    box.send_keys("\ue00c")
    assert box.get_attribute("aria-expanded") == "false"
    assert not opened.find_element("id", "options").is_displayed()


@pytest.mark.browser
def test_examples_switch_by_task_language_and_outcome(opened, data):
    def cards() -> list[tuple[str, str]]:
        found = opened.find_elements("css selector", "#example-list article")
        return [(card.get_attribute("data-task"), card.get_attribute("data-lang")) for card in found]

    deadline = time.monotonic() + 20  # the page draws them when a busy machine lets it
    while not cards() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert cards() == [("c", "de")] * 3
    opened.find_element("css selector", '#pick-task [data-value="t2i"]').click()
    opened.find_element("css selector", '#pick-lang [data-value="ko"]').click()
    assert cards() == [("t2i", "ko")] * 3
    query = opened.find_element("css selector", "#example-list .q")
    assert query.text == next(e.query_text for e in data.examples if (e.task, e.lang) == ("t2i", "ko"))
    opened.find_element("css selector", '#pick-show [data-value="wrong"]').click()
    here = [e for e in data.examples if (e.task, e.lang) == ("t2i", "ko")]
    assert len(cards()) == sum(not e.student[0].correct for e in here)


@pytest.mark.browser
def test_image_under_all_its_names_leads_to_the_search(opened, data):
    opened.find_element("id", "another").click()
    names = opened.find_elements("css selector", "#one .names b")
    assert [name.text for name in names] == [entry.text for entry in data.search[len(CODES) : 2 * len(CODES)]]
    names[-1].click()
    assert opened.find_element("css selector", "#answer .asked span").text == data.search[2 * len(CODES) - 1].text


@pytest.mark.browser
def test_heat_map_by_keyboard(opened):
    cell = opened.find_element("css selector", ".heat td")
    opened.execute_script("arguments[0].focus()", cell)
    cell.send_keys("\ue014")
    active = opened.switch_to.active_element
    assert opened.find_element("id", "tip").text == active.get_attribute("data-tip")
    assert active.get_attribute("data-tip").startswith("English · image to text · before:")


@pytest.mark.browser
def test_narrow_screens_do_not_scroll_sideways(opened):
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        assert opened.execute_script("return document.documentElement.scrollWidth") <= 400
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
