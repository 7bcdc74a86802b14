"""Code-switched texts: which words are replaced, by what, how often, and the same again after a resumption."""

import pytest
from datasets import Dataset, IterableDataset

from xvlm2vec.corpus.code_switching import CodeSwitcher, Lexicon, LexiconError, read_lexicon
from xvlm2vec.corpus.schema import parallel_features, validate_parallel_rows

ENGLISH = "a red dog, by the (sea)"
GERMAN = {"lang": "de", "text": "ein roter Hund am Meer", "alignment": "0-0 1-1 2-2 3-3 4-3 5-4"}
ITALIAN = {"lang": "it", "text": "un cane rosso al mare", "alignment": None}


@pytest.fixture
def lexicon(tmp_path):
    path = tmp_path / "lexicon.csv"
    path.write_text(
        "en,it,ja\nDog,cane,犬\nice cream,gelato,\nice,ghiaccio,氷\nred,rosso,\nred,rossa,\n", encoding="utf-8"
    )
    return read_lexicon(path)


def switched(switcher, english, *translations):
    """The code-switched text, or None; the other translations are as they were."""
    result = switcher.switch("row", english, translations)
    plain = [{"lang": item["lang"], "text": item["text"]} for item in translations]
    assert result[: len(plain)] == plain
    extra = result[len(plain) :]
    assert len(extra) <= 1
    assert all(item["lang"] == "mul" for item in extra)
    return extra[0]["text"] if extra else None


def test_the_rows_own_alignment_gives_the_words():
    # "am" stands for "by the": neither has a translation of its own. Punctuation stays where it was.
    assert switched(CodeSwitcher(1.0), ENGLISH, GERMAN) == "ein roter Hund, by the (Meer)"


def test_one_word_may_become_several():
    item = {"lang": "fr", "text": "chemin de fer", "alignment": "0-0 0-1 0-2"}
    assert switched(CodeSwitcher(1.0), "railway!", item) == "chemin de fer!"


def test_the_lexicon_gives_the_longest_phrase_and_any_of_several_translations(lexicon):
    assert switched(CodeSwitcher(1.0, lexicon), "Ice cream for the dog.", ITALIAN) == "gelato for the cane."
    seen = {switched(CodeSwitcher(1.0, lexicon, seed), "red", ITALIAN) for seed in range(20)}
    assert seen == {"rosso", "rossa"}


def test_only_languages_of_the_row_are_used_and_all_of_them(lexicon):
    japanese = {"lang": "ja", "text": "赤い犬"}
    assert switched(CodeSwitcher(1.0, lexicon), "dog", GERMAN | {"alignment": ""}) is None
    seen = {
        switched(CodeSwitcher(1.0, lexicon, seed), "dog", ITALIAN, japanese, GERMAN | {"alignment": "0-2"})
        for seed in range(40)
    }
    assert seen == {"cane", "犬", "Hund"}


def test_words_are_replaced_as_often_as_asked(lexicon):
    switcher = CodeSwitcher(0.3, lexicon)
    count = 0
    for number in range(200):
        extra = switcher.switch(f"row-{number}", "dog " * 10, [ITALIAN])[1:]
        count += sum(item["text"].count("cane") for item in extra)
    assert 500 < count < 700  # of 2,000 words, 600 +- 20


def test_seed_epoch_and_row_decide_and_nothing_else(lexicon):
    def text(seed=0, epoch=0, row="row"):
        switcher = CodeSwitcher(0.5, lexicon, seed)
        switcher.epoch = epoch
        return switcher.switch(row, "dog " * 30, [ITALIAN])[-1]["text"]

    assert text() == text()
    assert len({text(), text(seed=1), text(epoch=1), text(row="other")}) == 4


def test_data_sets_and_streams_pass_through_it(lexicon):
    row = {"id": "0", "image": None, "text_en": "a dog", "translations": [ITALIAN], "source": "test"}
    rows = [{**row, "translations": [{"lang": "it", "text": "un cane"}]}]
    switcher = CodeSwitcher(1.0, lexicon)
    expected = [{"lang": "it", "text": "un cane"}, {"lang": "mul", "text": "a cane"}]
    corpus = Dataset.from_list(rows, features=parallel_features()).with_transform(switcher)
    assert corpus[0]["translations"] == expected
    assert corpus[0]["text_en"] == "a dog"
    assert validate_parallel_rows(corpus) == 1
    assert corpus["text_en"][0] == "a dog"
    stream = IterableDataset.from_generator(lambda: iter(rows)).map(switcher, batched=True)
    assert next(iter(stream))["translations"] == expected
    again = Dataset.from_list([next(iter(stream))]).with_transform(switcher)
    assert again[0]["translations"] == expected  # a row that has a code-switched text gets no second one


def test_another_epoch_reaches_a_data_set_that_was_made_before(lexicon):
    switcher = CodeSwitcher(0.5, lexicon)
    rows = [{"id": "0", "text_en": "dog " * 30, "translations": [{"lang": "it", "text": "cane"}]}]
    corpus = Dataset.from_list(rows).with_transform(switcher)
    first = corpus[0]["translations"][-1]["text"]
    switcher.epoch = 1
    assert corpus[0]["translations"][-1]["text"] != first


@pytest.mark.parametrize("alignment", ["0", "0-9", "9-0", "a-b", "0-0-0"])
def test_alignments_that_do_not_fit_are_named(alignment):
    with pytest.raises(ValueError, match="must be pairs of word numbers"):
        CodeSwitcher(1.0).switch("row", "a dog", [{"lang": "it", "text": "un cane", "alignment": alignment}])


@pytest.mark.parametrize("probability", [0, -0.1, 1.5, float("nan")])
def test_a_probability_is_one(probability):
    with pytest.raises(ValueError, match="must be above 0 and at most 1"):
        CodeSwitcher(probability)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("de,fr\na,b\n", "line 1: no column 'en'"),
        ("en\na\n", "line 1: there is no language beside English"),
        ("", "line 1: no column 'en'"),
        ("en,de,de\na,b,c\n", "line 1: the column 'de' stands there 2 times"),
        ("en,Deutsch\na,b\n", "line 1: 'Deutsch' cannot be a column"),
        ("en,de\na,b,c\n", "line 2: 3 cells under 2 languages"),
        ("en,de\na,\n", "no English entry with a translation"),
        ("en,de\nÄ,b\n", "not UTF-8"),
    ],
)
def test_bad_lexicons_are_named(tmp_path, content, message):
    path = tmp_path / "lexicon.csv"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(LexiconError, match=message):
        read_lexicon(path)
    with pytest.raises(FileNotFoundError, match="no lexicon"):
        read_lexicon(tmp_path / "none.csv")


def test_an_empty_lexicon_finds_nothing():
    assert switched(CodeSwitcher(1.0, Lexicon({"de": {("cat",): ("Katze",)}})), "a dog", ITALIAN) is None


def test_codes_of_lexicon_and_rows_may_be_spelled_differently(tmp_path):
    path = tmp_path / "words.csv"
    path.write_text("en,pt_br\ndog,cachorro\n", encoding="utf-8")
    switcher = CodeSwitcher(1.0, read_lexicon(path))
    for code in ("pt-BR", "pt_BR"):
        (_, mixed) = switcher.switch("1", "a dog", [{"lang": code, "text": "um cachorro"}])
        assert mixed == {"lang": "mul", "text": "a cachorro"}
