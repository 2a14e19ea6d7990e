"""Texts in Markdown that mean nothing there, and what is found of fonts. The PDFs of `test_pdf.py` show them drawn."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.ppt_maker.fonts import read_listing
from tools.ppt_maker.marp_text import WORD_JOINER, comment, escape, escape_alt, fence, math, quote_css, quote_yaml


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# a", r"\# a"),
        ("1. a", r"1\. a"),
        ("- a --- b", r"\- a \-\-\- b"),
        ("<b>&lt;", r"\<b\>\&lt;"),
        ("a|b `c` **d** _e_", r"a\|b \`c\` \*\*d\*\* \_e\_"),
        ("![x](y) $z$ :s: ~~t~~ ==m==", r"\!\[x\](y) \$z\$ \:s\: \~\~t\~\~ \=\=m\=\="),
        (r"\# done", r"\\\# done"),
        ("한국어, 50 % (ok).", "한국어, 50 % (ok)."),
    ],
)
def test_signs_lose_their_meaning_and_nothing_else_changes(text: str, expected: str) -> None:
    assert escape(text) == expected


def test_descriptions_of_pictures_hold_no_word_that_marp_knows() -> None:
    assert escape_alt("bg  w:10") == f"{WORD_JOINER}bg {WORD_JOINER}w\\:10"


@pytest.mark.parametrize("text", ["theme: gaia", "a --> b", "a --!> b", "--->", "a\n-->\nclass: x"])
def test_notes_stay_in_their_comment_and_give_no_orders(text: str) -> None:
    lines = comment(text).split("\n")
    assert (lines[0], lines[-1]) == ("<!--", "-->")
    assert all(line.startswith(WORD_JOINER) for line in lines[1:-1])
    assert "->" not in "".join(lines[1:-1])
    assert "-!>" not in "".join(lines[1:-1])


def test_fences_are_longer_than_any_in_the_code() -> None:
    assert fence("a\n````\nb", "py") == "`````py\na\n````\nb\n`````"


@pytest.mark.parametrize(
    "latex", [r"\href{x}{y}", r"\require{html}", r"\def\x{\x\x}\x", "a $$ b", r"\style{x}{y}", " "]
)
def test_formulas_that_do_more_than_set_mathematics_are_not_set(latex: str) -> None:
    assert math(latex) is None


def test_formulas_are_set() -> None:
    assert math(r"$\frac{a}{b} < c$") == "$$\n\\frac{a}{b} < c\n$$"


def test_values_stay_within_their_quotes() -> None:
    assert quote_yaml('a"\n---\n<b>') == '"a\\"\\n---\\n<b>"'
    assert quote_css('"}</style><b>\\') == '"\\22 \\7d \\3c \\2f style\\3e \\3c b\\3e \\5c "'


def test_scripts_without_a_font_are_told_with_the_package_that_has_it() -> None:
    latin, carlito = "DejaVu Sans,DejaVu\t20-7e a0-ff 370-52f 5d0-5ea 627-64a", "Carlito\t20-7e"
    fonts = read_listing(f"{latin}\n{carlito}\nrubbish\n")
    assert {"Latin", "Greek", "Cyrillic", "Hebrew", "Arabic"} == set(fonts.covered)
    assert {"Korean", "Chinese", "emoji", "Caladea"} <= set(fonts.missing)
    assert "Carlito" not in fonts.missing
    assert {"fonts-noto-cjk", "fonts-noto-color-emoji", "fonts-crosextra-caladea"} <= set(fonts.packages)


def test_the_start_script_is_told_which_packages_are_missing(tmp_path: Path) -> None:
    listing = tmp_path / "fc-list"
    listing.write_text("#!/bin/sh\nprintf 'Noto Sans\\t20-7e a0-52f 590-e7f 3000-ffff\\n'\n")
    listing.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "tools.ppt_maker.engines"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout
    named = told.split()
    assert "fonts-noto-color-emoji" in named
    assert "fonts-crosextra-carlito" in named
    assert "fonts-noto-cjk" not in named
