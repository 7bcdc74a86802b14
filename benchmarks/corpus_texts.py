"""Parallel sentences in ten languages beside English, put together from phrases: what the benchmarks of corpora read.

Each sentence is a subject, what it does, a place and a time, in the order of its language. Four parts give 3,200
sentences, two sentences side by side ten million.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

ORDERS = {
    "en": "{s} {a} {p} {t}.", "de": "{s} {a} {t} {p}.", "fr": "{s} {a} {p} {t}.", "es": "{s} {a} {p} {t}.",
    "pt": "{s} {a} {p} {t}.", "tr": "{s} {t} {p} {a}.", "ru": "{s} {t} {a} {p}.", "ar": "{s} {a} {p} {t}.",
    "hi": "{s} {t} {p} {a}।", "zh": "{s}{t}{p}{a}。", "ja": "{s}が{t}{p}{a}。",
}  # fmt: skip
LANGUAGES = tuple(code for code in ORDERS if code != "en")

_SUBJECTS = {
    "en": "A dog|A brown bear|An old man|A young painter|A little boy|A boy with a red hat|A small child|A tourist|"
    "The teacher|A white horse",
    "de": "Ein Hund|Ein Braunbär|Ein alter Mann|Ein junger Maler|Ein kleiner Junge|Ein Junge mit einem roten Hut|"
    "Ein kleines Kind|Ein Tourist|Der Lehrer|Ein weißes Pferd",
    "fr": "Un chien|Un ours brun|Un vieil homme|Un jeune peintre|Un petit garçon|Un garçon avec un chapeau rouge|"
    "Un jeune enfant|Un touriste|Le professeur|Un cheval blanc",
    "es": "Un perro|Un oso pardo|Un hombre mayor|Un joven pintor|Un niño pequeño|Un chico con un sombrero rojo|"
    "Un bebé|Un turista|El profesor|Un caballo blanco",
    "pt": "Um cachorro|Um urso pardo|Um homem velho|Um jovem pintor|Um menino pequeno|Um rapaz com um chapéu vermelho|"
    "Uma criança pequena|Um turista|O professor|Um cavalo branco",
    "tr": "Bir köpek|Bir boz ayı|Yaşlı bir adam|Genç bir ressam|Küçük bir oğlan|Kırmızı şapkalı bir çocuk|"
    "Küçük bir çocuk|Bir turist|Öğretmen|Beyaz bir at",
    "ru": "Собака|Бурый медведь|Старик|Молодой художник|Маленький мальчик|Мальчик в красной шапке|Маленький ребёнок|"
    "Турист|Учитель|Белая лошадь",
    "ar": "كلب|دب بني|رجل عجوز|رسام شاب|ولد صغير|ولد بقبعة حمراء|طفل صغير|سائح|المعلم|حصان أبيض",
    "hi": "एक कुत्ता|एक भूरा भालू|एक बूढ़ा आदमी|एक युवा चित्रकार|एक छोटा लड़का|लाल टोपी वाला एक लड़का|एक छोटा बच्चा|एक पर्यटक|"
    "शिक्षक|एक सफ़ेद घोड़ा",
    "zh": "一只狗|一头棕熊|一位老人|一位年轻画家|一个小男孩|一个戴红帽子的男孩|一个小孩子|一名游客|老师|一匹白马",
    "ja": "一匹の犬|一頭のヒグマ|一人の老人|若い画家|小さな男の子|赤い帽子をかぶった少年|幼い子ども|一人の観光客|"
    "先生|一頭の白い馬",
}
_ACTIONS = {
    "en": "is sleeping|is eating an apple|is reading a book|is waiting for the bus|is taking a photo|"
    "is drinking water|is looking at the sky|is singing a song",
    "de": "schläft|isst einen Apfel|liest ein Buch|wartet auf den Bus|macht ein Foto|trinkt Wasser|"
    "schaut in den Himmel|singt ein Lied",
    "fr": "dort|mange une pomme|lit un livre|attend le bus|prend une photo|boit de l'eau|regarde le ciel|"
    "chante une chanson",
    "es": "duerme|come una manzana|lee un libro|espera el autobús|hace una foto|bebe agua|mira el cielo|"
    "canta una canción",
    "pt": "está dormindo|está comendo uma maçã|está lendo um livro|está esperando o ônibus|está tirando uma foto|"
    "está bebendo água|está olhando para o céu|está cantando uma canção",
    "tr": "uyuyor|elma yiyor|kitap okuyor|otobüs bekliyor|fotoğraf çekiyor|su içiyor|gökyüzüne bakıyor|şarkı söylüyor",
    "ru": "спит|ест яблоко|читает книгу|ждёт автобус|фотографирует|пьёт воду|смотрит на небо|поёт песню",
    "ar": "ينام|يأكل تفاحة|يقرأ كتابا|ينتظر الحافلة|يلتقط صورة|يشرب الماء|ينظر إلى السماء|يغني أغنية",
    "hi": "सो रहा है|सेब खा रहा है|किताब पढ़ रहा है|बस का इंतज़ार कर रहा है|तस्वीर ले रहा है|पानी पी रहा है|आसमान की ओर देख रहा है|"
    "गाना गा रहा है",
    "zh": "睡觉|吃苹果|看书|等公共汽车|拍照片|喝水|望着天空|唱歌",
    "ja": "眠っている|りんごを食べている|本を読んでいる|バスを待っている|写真を撮っている|水を飲んでいる|空を見ている|"
    "歌を歌っている",
}
_PLACES = {
    "en": "in the park|on the beach|in front of the house|next to the river|in the kitchen|under a big tree|"
    "at the station|in the old town",
    "de": "im Park|am Strand|vor dem Haus|neben dem Fluss|in der Küche|unter einem großen Baum|am Bahnhof|"
    "in der Altstadt",
    "fr": "dans le parc|sur la plage|devant la maison|à côté de la rivière|dans la cuisine|sous un grand arbre|"
    "à la gare|dans la vieille ville",
    "es": "en el parque|en la playa|delante de la casa|junto al río|en la cocina|bajo un árbol grande|en la estación|"
    "en el casco antiguo",
    "pt": "no parque|na praia|em frente à casa|ao lado do rio|na cozinha|debaixo de uma grande árvore|na estação|"
    "na cidade velha",
    "tr": "parkta|plajda|evin önünde|nehrin yanında|mutfakta|büyük bir ağacın altında|istasyonda|eski şehirde",
    "ru": "в парке|на пляже|перед домом|у реки|на кухне|под большим деревом|на вокзале|в старом городе",
    "ar": "في الحديقة|على الشاطئ|أمام البيت|بجانب النهر|في المطبخ|تحت شجرة كبيرة|في المحطة|في المدينة القديمة",
    "hi": "पार्क में|समुद्र तट पर|घर के सामने|नदी के पास|रसोई में|एक बड़े पेड़ के नीचे|स्टेशन पर|पुराने शहर में",
    "zh": "在公园里|在海滩上|在房子前面|在河边|在厨房里|在一棵大树下|在车站|在老城区",
    "ja": "公園で|浜辺で|家の前で|川のそばで|台所で|大きな木の下で|駅で|旧市街で",
}
_TIMES = {
    "en": "in the morning|today|in the evening|every day|at the weekend",
    "de": "am Morgen|heute|am Abend|jeden Tag|am Wochenende",
    "fr": "le matin|aujourd'hui|le soir|tous les jours|le week-end",
    "es": "por la mañana|hoy|por la tarde|todos los días|el fin de semana",
    "pt": "de manhã|hoje|à noite|todos os dias|no fim de semana",
    "tr": "sabahleyin|bugün|akşamleyin|her gün|hafta sonunda",
    "ru": "утром|сегодня|вечером|каждый день|в выходные",
    "ar": "في الصباح|اليوم|في المساء|كل يوم|في نهاية الأسبوع",
    "hi": "सुबह|आज|शाम को|हर दिन|सप्ताहांत में",
    "zh": "早上|今天|晚上|每天|周末",
    "ja": "朝|今日|夕方|毎日|週末に",
}
PARTS = {
    code: tuple(tuple(table[code].split("|")) for table in (_SUBJECTS, _ACTIONS, _PLACES, _TIMES)) for code in ORDERS
}
_NUMBERED = {
    "en": "Bus {n} stops here {m} times a day.", "de": "Bus {n} hält hier {m} Mal am Tag.",
    "fr": "Le bus {n} s'arrête ici {m} fois par jour.", "es": "El autobús {n} para aquí {m} veces al día.",
    "pt": "O ônibus {n} para aqui {m} vezes por dia.", "tr": "{n} numaralı otobüs burada günde {m} kez durur.",
    "ru": "Автобус {n} останавливается здесь {m} раз в день.", "ar": "تتوقف الحافلة {n} هنا {m} مرة في اليوم.",
    "hi": "बस {n} यहाँ दिन में {m} बार रुकती है।", "zh": "{n}路公共汽车每天在这里停{m}次。",
    "ja": "バス{n}番は一日に{m}回ここに止まります。",
}  # fmt: skip

Choice = tuple[int, ...]


def choose(draw: random.Random) -> Choice:
    """The places of the four phrases of a sentence."""
    return tuple(draw.randrange(len(part)) for part in PARTS["en"])


def sentence(code: str, choice: Choice) -> str:
    """A sentence in a language."""
    subject, action, place, time = (part[number] for part, number in zip(PARTS[code], choice, strict=True))
    return ORDERS[code].format(s=subject, a=action, p=place, t=time)


def numbered(code: str, bus: int, times: int) -> str:
    """A sentence with two numbers."""
    return _NUMBERED[code].format(n=bus, m=times)


def joined(code: str, texts: list[str]) -> str:
    """Sentences side by side."""
    return ("" if code in {"zh", "ja"} else " ").join(texts)


def rows(count: int, seed: int = 0) -> Iterator[dict[str, str]]:
    """Rows of one to three sentences in the ten languages in turn, as a JSONL file has them."""
    draw = random.Random(seed)
    for number in range(count):
        code = LANGUAGES[number % len(LANGUAGES)]
        choices = [choose(draw) for _ in range(draw.choice((1, 2, 2, 3)))]
        english, text = ([sentence(side, choice) for choice in choices] for side in ("en", code))
        if not draw.randrange(5):
            bus, times = draw.randrange(10, 900), draw.randrange(11, 40)
            english, text = [*english, numbered("en", bus, times)], [*text, numbered(code, bus, times)]
        yield {"id": f"row-{number}", "text_en": joined("en", english), "text": joined(code, text), "lang": code}
