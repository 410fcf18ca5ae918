"""Clean an ingredient line of a recipe to the element that it names.

``Granny Smith apples sliced`` and ``apple, peeled`` differ in preparation, not in what a picture
shows. The rules, in order:

1. resolve entities and accents, write lower case, drop trade mark signs;
2. a heading (``Rub:``) is not an ingredient;
3. drop text in brackets, also after an unclosed and before an unopened bracket (``fluid ounce) can
   chicken broth``); drop everything from ``for``, ``to taste``, ``such as``, ``plus more``,
   ``with``, ``cut``, ``or`` and the like to the end;
4. drop numbers, units and containers (``cup``, ``ounce``, ``can``, ``sprigs``), sizes and qualities
   (``large``, ``fresh``, ``boneless``) and preparations with their adverbs (``finely chopped``);
   ``ground`` only at the end, since ground beef is not beef;
5. make the last word singular;
6. words joined by ``and`` remain one element (``salt and black pepper``).

A line can end up empty. The paper counts 2,736 elements and does not say how it cleaned them; with
these rules ``--min-annotation-items`` sets the number.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from ..tables.tokens import clean_text

_UNITS = """
bag bags bottle bottles box boxes bunch bunches can cans canned carton cartons clove cloves
container containers cube cubes cup cups dash dashes dollop drop drops envelope envelopes fluid
gallon gallons gram grams handful head heads inch inches jar jars jigger jiggers leaf leaves lb
lbs link links liter liters loaf ml ounce ounces oz pack package packages packet packets pinch
pinches pint pints pound pounds quart quarts scoop scoops sheet sheets slice slices sprig sprigs
square squares stalk stalks stick sticks strip strips tablespoon tablespoons tbsp teaspoon
teaspoons tsp
"""
_QUALITIES = """
baby bite boneless bone-in bulk chilled cold cooked cool coarse extra extra-large extra-virgin
fine firm fresh freshly frozen fully hot jumbo large lean leftover light lukewarm medium
medium-size miniature organic prepared quality raw refrigerated ripe room size-pieces skinless
skin-on small soft thick thin uncooked unpeeled warm whole optional very
"""
_PREPARATIONS = """
beaten blanched boiled boiling broken chopped chunked coarsely cored cracked crosswise crumbled
crushed cubed cut deveined diagonally diced dissolved divided drained finely flaked grated
halved heated hulled juiced julienned lengthwise lightly mashed melted minced packed peeled
pitted pressed pureed quartered removed rinsed roughly scrubbed seeded separated shelled
shredded shucked sifted sliced slightly slivered snipped softened split squeezed stemmed thawed
thickly thinly toasted torn trimmed undrained unwrapped washed well zested
"""
_DROPPED = frozenset(f"{_UNITS} {_QUALITIES} {_PREPARATIONS}".split())
_LINKS = frozenset("and or with in of the a an into to plus".split())
# Pairs in which the first word is part of the name.
_KEPT_PAIRS = {"hot sauce", "hot pepper", "hot dog", "baby corn", "cold cut", "whole wheat"}
_KEPT_PAIRS |= {"light cream", "bay leaf", "bay leaves", "fish stick", "fish sticks"}
_BRACKETS = re.compile(r"\([^()]*\)|^[^()]*\)|\([^()]*$")
_REST = re.compile(
    r"\b(for|to taste|such as|plus more|or more|or less|or to taste|as needed|if|cut|or|to serve|"
    r"dissolved in|with|at room|stems removed)\b.*$"
)
_NUMBER = re.compile(r"[\d/.,%]+[\w-]*|#\d+")
_WORD = re.compile(r"[\w'*&-]+")
_SAME = ("ss", "us", "is", "as", "ies")  # endings of words such as molasses and series
_PLURALS = {"leaves": "leaf", "loaves": "loaf", "halves": "half", "cookies": "cookie"}
_PLURALS |= {"chilies": "chili", "chiles": "chile", "peas": "pea"}
_PLURALS |= {"brownies": "brownie", "molasses": "molasses", "hummus": "hummus", "swiss": "swiss"}


@lru_cache(maxsize=1 << 16)
def element_of(line: str) -> str:
    """The element of an ingredient line: words separated by blanks, or empty."""
    text = unicodedata.normalize("NFKD", clean_text(line)).lower()
    text = "".join(char for char in text if not unicodedata.combining(char))
    text = re.sub("[®™©]", "", text).strip()
    if text.endswith(":"):
        return ""
    before = None
    while before != text:  # brackets within brackets
        before, text = text, _BRACKETS.sub(" ", text)
    text = _REST.sub(" ", text)
    words = [word for word in _WORD.findall(text) if not _NUMBER.fullmatch(word)]
    words = _without_fillers(words)
    while words and words[-1] in _LINKS | {"ground"}:
        words.pop()
    while words and words[0] in _LINKS:
        words.pop(0)
    if words:
        words[-1] = singular(words[-1])
    return " ".join(words)


def singular(word: str) -> str:
    """The singular of a lower-case English noun by its ending, or the word itself."""
    if word in _PLURALS:
        return _PLURALS[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("oes", "ches", "shes", "sses", "xes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(_SAME):
        return word[:-1]
    return word


def _without_fillers(words: list[str]) -> list[str]:
    kept: list[str] = []
    for place, word in enumerate(words):
        pairs = {" ".join(words[k : k + 2]) for k in (place - 1, place) if k >= 0}
        if word not in _DROPPED or pairs & _KEPT_PAIRS:
            # "rinsed and drained" leaves its "and" behind, which must not begin or follow a link.
            if word in _LINKS and (not kept or kept[-1] in _LINKS):
                continue
            kept.append(word)
    return kept
