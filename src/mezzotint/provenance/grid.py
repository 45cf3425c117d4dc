"""How much greenhouse gas a kilowatt-hour stands for, by country, without asking anybody.

The figures are Ember's, "Yearly Electricity Data" (CC BY 4.0), as co2.js 0.19 of the Green Web
Foundation has them: life-cycle emissions of a year's generation in grams of CO2 equivalent per kWh,
rounded; of each country its latest year.  Imports, losses in the grid and the hour of the day are
not in them.
"""

from __future__ import annotations

import difflib
import os
from typing import NamedTuple

VARIABLE = "MEZZOTINT_GRID"
"""The environment variable by which a user says where the electricity comes from."""
WORLD = "WORLD"

_FIGURES = {
    2024: (
        "AE:468 AM:244 AR:345 AT:103 AU:554 AZ:633 BA:638 BD:695 BE:118 BG:264 BO:468 BR:106 "
        "BY:324 CA:185 CH:37 CL:266 CN:558 CO:286 CR:63 CY:512 CZ:414 DE:342 DK:143 DO:566 "
        "EC:210 EE:341 EG:574 ES:146 EU:213 FI:72 FR:44 GB:216 GE:143 GR:320 HR:174 HU:183 "
        "IE:280 IN:709 IR:649 IT:288 JP:484 KE:85 KG:153 KH:497 KR:416 KW:637 KZ:802 LT:139 "
        "LU:135 LV:136 MA:578 MD:630 ME:414 MK:569 MM:570 MN:784 MT:484 MX:483 MY:604 NG:508 "
        "NL:253 NO:31 NZ:120 OM:545 PE:263 PH:613 PK:399 PL:615 PR:665 PT:112 QA:603 RO:246 "
        "RS:671 RU:446 SA:692 SE:36 SG:499 SI:227 SK:96 SV:99 TH:555 TJ:99 TN:560 TR:470 TW:635 "
        "US:384 UY:97 VN:486 WORLD:473 XK:959 ZA:714 "
    ),
    2023: (
        "AF:124 AG:611 AL:24 AO:167 AS:647 BB:600 BF:555 BH:902 BI:231 BJ:590 BN:893 BT:24 "
        "BW:849 BZ:156 CD:27 CG:714 CI:394 CM:286 CU:639 DJ:450 DM:600 DZ:634 ER:591 ET:24 "
        "FJ:278 GA:429 GH:453 GM:667 GN:183 GQ:605 GT:273 GY:634 HK:682 HN:290 ID:682 IL:567 "
        "IQ:689 IS:28 KM:643 KY:643 LA:232 LB:369 LR:436 LY:831 ML:394 MU:633 MV:612 MZ:128 "
        "NA:48 NE:688 NI:288 NR:750 PA:259 PG:514 PY:25 RW:302 SB:636 SC:571 SD:214 SL:48 "
        "SN:535 SO:524 SR:383 SS:610 SZ:143 TC:654 TG:478 TM:1306 TO:571 TT:682 TZ:372 UZ:1121 "
        "VC:600 VE:180 VG:647 VI:642 VU:500 WS:400 YE:586 ZM:111 ZW:298 "
    ),
    2022: (
        "AW:550 BS:654 CK:250 CV:480 FK:1000 FO:354 GD:667 GF:204 GL:111 GP:494 GU:611 GW:625 "
        "HT:535 JM:561 JO:539 KI:500 KN:636 KP:344 LC:650 LK:510 LS:21 MG:477 MO:449 MQ:517 "
        "MR:482 MS:1000 MW:55 NC:586 NP:23 PF:437 PM:600 PS:461 RE:525 ST:556 SY:682 TD:615 "
        "UA:250 UG:57 "
    ),
}


_ALSO = {"UK": "GB", "EL": "GR"}
"""What the EU and the countries themselves write in place of ISO's letters."""


class GridError(ValueError):
    """A country that is not in the table, or a figure that is none; one line with the remedy."""


class Grid(NamedTuple):
    """g_per_kwh: grams of CO2 equivalent; name: of what, with the year, as it is shown."""

    g_per_kwh: float
    name: str


def _table() -> dict[str, Grid]:
    found: dict[str, Grid] = {}
    for year, figures in _FIGURES.items():
        for row in figures.split():
            code, _, grams = row.partition(":")
            name = f"world average {year}" if code == WORLD else f"{code} {year}"
            found[code] = Grid(float(grams), f"{name}, Ember")
    return {**found, **{used: found[code] for used, code in _ALSO.items()}}


GRIDS = _table()
"""By ISO 3166-1's two letters, and "EU" and "WORLD"."""


def grid(wish: str = WORLD) -> Grid:
    """A grid by a country's two letters, or a figure in grams per kWh as text.

    Raises:
        GridError: it is neither.
    """
    text = wish.strip()
    if (found := GRIDS.get(text.upper())) is not None:
        return found
    try:
        figure = float(text)
    except ValueError:
        near = difflib.get_close_matches(text.upper(), GRIDS, n=3, cutoff=0.5)
        hint = f" (nearest: {', '.join(near)})" if near else ""
        raise GridError(
            f"{text[:24]!r} is no grid that is known{hint}: give a country's two letters, as DE, "
            "or grams of CO2 per kWh, as 380"
        ) from None
    if not 0 <= figure <= 3000:
        raise GridError(f"{text[:24]!r}: give grams of CO2 per kWh from 0 to 3000")
    return Grid(figure, f"{figure:g} g/kWh, as given")


def chosen(wish: Grid | None = None) -> Grid:
    """The grid that was wished, else that of the environment variable, else the world's.

    Raises:
        GridError: the variable has none.
    """
    if wish is not None:
        return wish
    try:
        return grid(os.environ.get(VARIABLE) or WORLD)
    except GridError as error:
        raise GridError(f"{VARIABLE}: {error}") from None
