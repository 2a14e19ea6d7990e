"""What an instruction asks for in so many words, read without a model: how many slides, which ones, which language.

Small models do not count. What is said in numbers is therefore read here, and held to.
"""

import re
from collections import Counter
from collections.abc import Mapping

LANGUAGES: Mapping[str, str] = {
    "en": "English",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "it": "Italian",
    "pt": "Portuguese",
    "nl": "Dutch",
    "pl": "Polish",
    "sv": "Swedish",
    "tr": "Turkish",
    "vi": "Vietnamese",
    "id": "Indonesian",
    "ko": "Korean",
    "ja": "Japanese",
    "zh": "Chinese",
    "ar": "Arabic",
    "he": "Hebrew",
    "ru": "Russian",
    "uk": "Ukrainian",
    "el": "Greek",
    "hi": "Hindi",
    "th": "Thai",
}
_SCRIPTS = (
    ("ko", re.compile(r"[\uac00-\ud7a3]")),
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("zh", re.compile(r"[\u4e00-\u9fff]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("he", re.compile(r"[\u0590-\u05ff]")),
    ("uk", re.compile(r"[іїєґ]", re.IGNORECASE)),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
    ("th", re.compile(r"[\u0e00-\u0e7f]")),
)
_SMALL_WORDS: Mapping[str, str] = {
    "en": "the a of and for with about make slides deck on in to",
    "de": "der die das und für mit über eine einen folien ein zu ist",
    "fr": "le la les des et pour avec sur une un du diapositives",
    "es": "el la los las y para con sobre una un del diapositivas",
    "it": "il lo gli di e per con su una un del diapositive",
    "pt": "o os as e para com sobre uma um do da slides",
    "nl": "de het een en voor met over van dia's",
    "pl": "i w na dla z o slajdów jest",
    "sv": "och för med om en ett på bilder",
    "tr": "ve için ile bir hakkında slayt",
}
_COUNTS: Mapping[str, int] = {
    word: number
    for number, words in enumerate(
        (
            "one uno 하나 한",
            "two zwei deux dos due 두 둘 二 两",
            "three drei trois tres tre 세 셋 三",
            "four vier quatre cuatro quattro 네 넷 四",
            "five fünf cinq cinco cinque 다섯 五",
            "six sechs seis sei 여섯 六",
            "seven sieben sept siete sette 일곱 七",
            "eight acht huit ocho otto 여덟 八",
            "nine neun neuf nueve nove 아홉 九",
            "ten zehn dix diez dieci 열 十",
            "eleven elf onze once undici",
            "twelve zwölf douze doce dodici",
        ),
        1,
    )
    for word in words.split()
}
_COUNT = rf"((?<![A-Za-z0-9_.])\d{{1,2}}(?!\d)|(?<!\w)(?:{'|'.join(sorted(_COUNTS, key=len, reverse=True))}))"
_SLIDE = (
    r"(?:slides?|pages?|folien?|seiten?|diapositiv\w*|diapos?|slayt|слайд\w*"
    r"|장|슬라이드|페이지|枚|页|頁|张|張|スライド)"
)
_CHART = r"(?:charts?|graphs?|plots?|diagram\w*|gráfico\w*|grafici|graphique\w*|차트|그래프|图表|グラフ)"
_SLIDES = re.compile(rf"{_COUNT}(?:[\s-]+\w+){{0,2}}?[\s-]*(?:개의\s*)?{_SLIDE}(?!\s*\d)", re.IGNORECASE)
_SLIDES_BEHIND = re.compile(r"(?:슬라이드|スライド|幻灯片|слайд\w*)\s*(\d{1,2})\s*(?:장|枚|张|개)", re.IGNORECASE)
_CHARTS = re.compile(rf"{_COUNT}(?:[\s-]+\w+){{0,2}}?[\s-]*(?:개의\s*)?{_CHART}", re.IGNORECASE)
_CHARTS_BEHIND = re.compile(rf"{_CHART}\s*{_COUNT}\s*개", re.IGNORECASE)
_NAMED = re.compile(
    r"(?:slides?|pages?|folien?|seiten?|diapositiv\w*|슬라이드|페이지|スライド|第)\s*(?:no\.?|nr\.?|number|#)?\s*"
    r"((?:\d{1,2})(?:\s*(?:,|and|und|et|y|&|와|과)\s*\d{1,2})*)",
    re.IGNORECASE,
)
_NAMED_BEHIND = re.compile(
    r"(\d{1,2})\s*(?:st|nd|rd|th|\.|번째|번|枚目)\s*(?:slide|page|folie|seite|슬라이드|페이지|장)?", re.IGNORECASE
)
_LAYOUT_WORDS: Mapping[str, str] = {
    "table": r"tables?|tabell\w*|tableau|tabla|표|表",
    "chart": rf"{_CHART}",
    "quote": r"quot(?:e|ation)|zitat|citation|cita|인용",
    "columns": r"columns?|spalten|compar\w+|side by side|colonnes|columnas|비교",
    "facts": r"facts?|big numbers?|key figures|kennzahlen",
    "code": r"code|코드",
    "formula": r"formula|equation|formel|수식",
    "picture": r"picture|image|photo|bild|그림|사진",
    "bullets": r"bullets?|bullet points?|list|liste|stichpunkte|목록",
}


def count_slides(text: str) -> int:
    """How many slides are asked for; 0: nobody says."""
    found = _SLIDES.search(text) or _SLIDES_BEHIND.search(text)
    return _read_count(found[1]) if found else 0


def count_charts(text: str) -> int:
    found = _CHARTS.search(text) or _CHARTS_BEHIND.search(text)
    return _read_count(found[1]) if found else 0


def named_slides(text: str) -> list[int]:
    """The slides that are spoken of by their number."""
    numbers = [int(n) for found in _NAMED.finditer(text) for n in re.findall(r"\d+", found[1])]
    return list(dict.fromkeys(numbers or [int(found[1]) for found in _NAMED_BEHIND.finditer(text)]))


def named_layout(text: str) -> str | None:
    """The layout that a slide is to get: what is named last, as in "turn the list into a table"."""
    found = {
        layout: max((hit.start() for hit in re.finditer(rf"\b(?:{words})", text, re.IGNORECASE)), default=-1)
        for layout, words in _LAYOUT_WORDS.items()
    }
    best = max(found, key=lambda layout: found[layout])
    return best if found[best] >= 0 else None


def find_language(text: str) -> str:
    """The language that is asked for by name, or else the one that the text is written in."""
    for tag, name in LANGUAGES.items():
        if re.search(rf"\b(?:in|auf|en)\s+{name}\b|\b{name}\s+(?:deck|slides?|presentation)\b", text, re.IGNORECASE):
            return tag
    for tag, script in _SCRIPTS:
        if len(script.findall(text)) * 8 >= len(text.replace(" ", "")):
            return tag
    words = Counter(re.findall(r"[\w']+", text.lower()))
    return max(_SMALL_WORDS, key=lambda tag: sum(words[word] for word in _SMALL_WORDS[tag].split()))


def _read_count(word: str) -> int:
    return int(word) if word.isdigit() else _COUNTS.get(word.lower(), 0)
