"""The picture of an Amazon product, in all forms of the field of pictures.

2014: one address. 2018: a list of addresses; the first release had small ones of about 40 pixels
only (``image``), the later one ``imageURL`` and ``imageURLHighRes``. 2023: a list of records with
addresses by size, or a record of lists, as the ``datasets`` library writes the same table.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..tables.sql import quote, ref

_SIZES = ("hi_res", "large", "thumb")  # best first
# Amazon's server scales a picture as its name says: 51abc._SS40_.jpg is 51abc.jpg in 40 pixels.
_SMALL = r"^(.*/[^/.]+)\._(?:[^/]*_)?[SU][SXYL]\d{1,2}_[^/]*\.(\w+)$"
# "No image" icons: buttons and icons of the site, and one per country.
_ICON_NAMES = (
    *("01RmK[+]J4pJL", "01RmK%2BJ4pJL", "01RmK J4pJL", "01RmK%20J4pJL"),
    *("01QFb8SNuTL", "01PkLIhTX3L", "01MKUOLsA5L", "31CTP6oiIBL"),
)
ICONS = (
    r"/x-site/icons/",
    r"[/._-]no[-_]?(img|image|photo|picture)[^/]*$",
    rf"/images/I/({'|'.join(_ICON_NAMES)})[._]",
)


def picture_sql(fields: Sequence[str]) -> str:
    """The address of a product's picture as SQL: text, null if no field has an address.

    Args:
        fields: Of a record, best first; columns of type JSON.
    """
    url = f"coalesce({', '.join(_address(ref(field)) for field in fields)})"
    return f"regexp_replace({url}, {quote(_SMALL)}, '\\1.\\2')"


def _address(field: str) -> str:
    """The address in one field, in any of its forms."""
    main = f"list_filter(TRY_CAST({field} AS JSON[]), lambda x: x->>'variant' = 'MAIN')[1]"
    record = f"coalesce({main}, {field}->0)"
    place = f"coalesce(list_position(json_extract_string({field}, '$.variant[*]'), 'MAIN'), 1)"
    of_list = [_http(f"{record}->>{quote(size)}") for size in _SIZES]
    of_list += [_first_http(f"json_extract_string({field}, '$[*].{size}')") for size in _SIZES]
    of_record = [_http(f"json_extract_string({field}, '$.{size}[*]')[{place}]") for size in _SIZES]
    of_record += [_http(f"{field}->>{quote(size)}") for size in _SIZES]
    texts = _first_http(f"json_extract_string({field}, '$[*]')")
    return (
        f"CASE json_type({field}) WHEN 'VARCHAR' THEN {_http(f'''{field}->>'$' ''')} "
        f"WHEN 'OBJECT' THEN coalesce({', '.join(of_record)}) "
        f"WHEN 'ARRAY' THEN CASE json_type({field}, '$[0]') "
        f"WHEN 'OBJECT' THEN coalesce({', '.join(of_list)}) ELSE {texts} END END"
    )


def _http(text: str) -> str:
    return f"CASE WHEN starts_with({text}, 'http') THEN {text} END"


def _first_http(texts: str) -> str:
    return f"list_filter({texts}, lambda x: starts_with(x, 'http'))[1]"
