"""Licences of weights and pictures, as data: the terms that matter to one who makes pictures.

Each row is a reading of the text at ``source`` as of 2026 and no legal advice; the text decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Allowed = Literal["yes", "conditional", "unknown", "no"]
STRICTNESS: tuple[Allowed, ...] = ("yes", "conditional", "unknown", "no")
"""From the freest to the strictest."""


def strictest(found: Iterable[Allowed], none: Allowed = "yes") -> Allowed:
    """The strictest of some; none: of nothing."""
    places = [STRICTNESS.index(each) for each in found]
    return STRICTNESS[max(places)] if places else none


@dataclass(frozen=True)
class Licence:
    """The terms of one licence.

    id: SPDX's where it has one; else the name that model cards use; source: where its text is.
    use: whether what is under it (weights) may be used commercially; outputs: whether what is made
        with it may be; clause: what it says of that, where it is not "yes" for both.
    credit: who copies what is under it has to name its authors, and to say so of pictures that
        contain it; share_alike: what is derived from it has to be under the same terms.
    restrictions: uses that are forbidden; rules: what it says of outputs otherwise.
    aliases: other names that files give it; heads: how its text begins, where not with its name.
    """

    id: str
    name: str
    source: str
    use: Allowed = "yes"
    outputs: Allowed = "yes"
    clause: str = ""
    credit: bool = False
    share_alike: bool = False
    restrictions: str = ""
    rules: str = ""
    aliases: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()

    @property
    def commercial(self) -> Allowed:
        """Whether one may earn by pictures: the stricter of what may be done with the weights, and
        with what they make."""
        return strictest((self.use, self.outputs))


_RAIL = (
    "the uses of its attachment A (harm to minors, disinformation, "
    "discrimination, medical advice …), which are to "
    "be passed on with the model and what is derived from it"
)
_RAIL_OUTPUT = (
    "its licensor claims no rights in outputs; they must not be used against the restrictions"
)
_AUP = "Stability AI's Acceptable Use Policy"
_RIVAL = (
    "outputs must not train a foundational generative model, except Stability's and "
    "what derives from them"
)
_CC = "https://creativecommons.org"
_HF = "https://huggingface.co"

LICENCES: tuple[Licence, ...] = (
    # --- no conditions, or a notice ----------------------------------------------------------
    Licence(
        "CC0-1.0",
        "CC0 1.0",
        f"{_CC}/publicdomain/zero/1.0/legalcode",
        aliases=("cc0", "cc zero", "cc0 1.0 universal"),
    ),
    Licence(
        "LicenseRef-Public-Domain",
        "public domain, as its author states",
        f"{_CC}/publicdomain/",
        aliases=("public domain", "publicdomain", "pd"),
    ),
    Licence(
        "Unlicense",
        "The Unlicense",
        "https://unlicense.org",
        heads=("this is free and unencumbered software released into the public domain",),
    ),
    Licence(
        "MIT",
        "MIT License",
        "https://spdx.org/licenses/MIT.html",
        credit=True,
        heads=("permission is hereby granted, free of charge",),
    ),
    Licence(
        "BSD-3-Clause",
        "BSD 3-Clause License",
        "https://spdx.org/licenses/BSD-3-Clause.html",
        credit=True,
        aliases=("bsd-3",),
    ),
    Licence(
        "Apache-2.0",
        "Apache License 2.0",
        "https://www.apache.org/licenses/LICENSE-2.0",
        credit=True,
        aliases=("apache 2.0", "apache"),
        heads=("apache license version 2.0",),
    ),
    Licence(
        "CC-BY-4.0",
        "CC Attribution 4.0",
        f"{_CC}/licenses/by/4.0/legalcode",
        credit=True,
        heads=("attribution 4.0 international",),
    ),
    Licence(
        "CC-BY-3.0",
        "CC Attribution 3.0",
        f"{_CC}/licenses/by/3.0/legalcode",
        credit=True,
        heads=("attribution 3.0 unported",),
    ),
    # --- share alike -------------------------------------------------------------------------
    Licence(
        "CC-BY-SA-4.0",
        "CC Attribution-ShareAlike 4.0",
        f"{_CC}/licenses/by-sa/4.0/legalcode",
        credit=True,
        share_alike=True,
        heads=("attribution-sharealike 4.0 international",),
    ),
    Licence(
        "CC-BY-SA-3.0",
        "CC Attribution-ShareAlike 3.0",
        f"{_CC}/licenses/by-sa/3.0/legalcode",
        credit=True,
        share_alike=True,
        heads=("attribution-sharealike 3.0 unported",),
    ),
    Licence(
        "GPL-3.0",
        "GNU General Public License 3.0",
        "https://www.gnu.org/licenses/gpl-3.0",
        credit=True,
        share_alike=True,
        rules="outputs are not covered, unless they contain a part of it (section 2)",
        aliases=("gpl-3.0-only", "gpl-3.0-or-later", "gplv3", "gpl 3.0"),
        heads=("gnu general public license version 3",),
    ),
    Licence(
        "AGPL-3.0",
        "GNU Affero General Public License 3.0",
        "https://www.gnu.org/licenses/agpl-3.0",
        credit=True,
        share_alike=True,
        rules=(
            "outputs are not covered, unless they contain a part of it; a service has"
            " to offer what it runs"
        ),
        aliases=("agpl-3.0-only", "agpl-3.0-or-later", "agplv3", "agpl 3.0"),
        heads=("gnu affero general public license version 3",),
    ),
    Licence(
        "Fair-AI-Public-1.0-SD",
        "Fair AI Public License 1.0-SD",
        "https://freedevproject.org/faipl-1.0-sd/",
        credit=True,
        share_alike=True,
        restrictions="its prohibited uses, as CreativeML Open RAIL-M has them",
        rules="outputs are not covered; a service has to offer the models that it derived",
        aliases=("faipl-1.0-sd", "faipl", "fair ai public license"),
    ),
    # --- not commercial ----------------------------------------------------------------------
    Licence(
        "CC-BY-NC-4.0",
        "CC Attribution-NonCommercial 4.0",
        f"{_CC}/licenses/by-nc/4.0/legalcode",
        use="no",
        outputs="no",
        clause="its section 2(a)(1) grants its rights for non-commercial purposes only",
        credit=True,
        aliases=("cc-by-nc",),
        heads=("attribution-noncommercial 4.0 international",),
    ),
    Licence(
        "CC-BY-NC-SA-4.0",
        "CC Attribution-NonCommercial-ShareAlike 4.0",
        f"{_CC}/licenses/by-nc-sa/4.0/legalcode",
        use="no",
        outputs="no",
        clause="its section 2(a)(1) grants its rights for non-commercial purposes only",
        credit=True,
        share_alike=True,
        aliases=("cc-by-nc-sa",),
        heads=("attribution-noncommercial-sharealike 4.0 international",),
    ),
    Licence(
        "CC-BY-NC-ND-4.0",
        "CC Attribution-NonCommercial-NoDerivatives 4.0",
        f"{_CC}/licenses/by-nc-nd/4.0/legalcode",
        use="no",
        outputs="no",
        clause="its section 2(a)(1) grants its rights for non-commercial purposes only",
        credit=True,
        restrictions="to share what is derived from it (section 2(a)(1)(B))",
        aliases=("cc-by-nc-nd",),
        heads=("attribution-noncommercial-noderivatives 4.0 international",),
    ),
    Licence(
        "NoobAI-XL",
        "NoobAI XL model license",
        f"{_HF}/Laxhar/noobai-XL-1.0#model-license",
        use="no",
        outputs="no",
        clause=(
            "it forbids to make money of the model, of what is derived from it, and of what it"
            " makes"
        ),
        credit=True,
        share_alike=True,
        restrictions="its prohibited uses, as CreativeML Open RAIL-M has them",
        aliases=("noobai", "noob ai xl model license"),
    ),
    Licence(
        "sai-nc-community",
        "Stability AI Non-Commercial Research Community License",
        f"{_HF}/stabilityai/cosxl/blob/main/LICENSE",
        use="no",
        outputs="no",
        clause="it grants its rights for research and non-commercial uses only",
        restrictions=_AUP,
        aliases=(
            "stability ai non-commercial license",
            "stabilityai-nc-research-community",
            "cosxl-nc-community",
        ),
    ),
    Licence(
        "flux-1-dev-non-commercial-license",
        "FLUX.1 [dev] Non-Commercial License",
        f"{_HF}/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md",
        use="no",
        outputs="conditional",
        clause=(
            "outputs may be used commercially (section 2(d)), but the model may not be run for"
            " revenue or in production (sections 1(c), 4(a)) without a licence of Black Forest Labs"
        ),
        restrictions=(
            "its section 4 (unlawful, harmful, without the filter or review that it asks for)"
        ),
        rules="outputs must not train a model that competes with it",
        aliases=(
            "flux.1-dev non-commercial license",
            "flux-1-dev-non-commercial",
            "flux-dev-non-commercial-license",
        ),
    ),
    # --- commercial, with conditions ---------------------------------------------------------
    Licence(
        "CreativeML-OpenRAIL-M",
        "CreativeML Open RAIL-M",
        f"{_HF}/spaces/CompVis/stable-diffusion-license",
        restrictions=_RAIL,
        rules=_RAIL_OUTPUT,
        aliases=("creativeml openrail-m", "openrail-m", "openrail"),
    ),
    Licence(
        "CreativeML-OpenRAIL++-M",
        "CreativeML Open RAIL++-M",
        f"{_HF}/stabilityai/stable-diffusion-xl-base-1.0/blob/main/LICENSE.md",
        restrictions=_RAIL,
        rules=_RAIL_OUTPUT,
        aliases=(
            "creativeml openrail++-m",
            "openrail++",
            "openrail++-m",
        ),
    ),
    Licence(
        "stabilityai-ai-community",
        "Stability AI Community License",
        "https://stability.ai/community-license-agreement",
        use="conditional",
        outputs="conditional",
        clause=(
            "free below a yearly revenue of 1,000,000 USD (with registration), above it"
            " Stability's Enterprise License is needed"
        ),
        credit=True,
        restrictions=_AUP,
        rules=_RIVAL,
        aliases=(
            "stability-ai-community",
            "stability ai community license agreement",
        ),
    ),
    Licence(
        "playground-v2dot5-community",
        "Playground v2.5 Community License",
        f"{_HF}/playgroundai/playground-v2.5-1024px-aesthetic/blob/main/LICENSE.md",
        use="conditional",
        outputs="conditional",
        clause=(
            "free below 1,000,000 monthly active users, above it a licence of Playground is needed"
        ),
        credit=True,
        restrictions="Playground's Acceptable Use Policy",
        rules="outputs must not improve other models of pictures",
        aliases=("playground-v2.5-community", "playground-v2-5-community"),
    ),
)


_IGNORED = re.compile(r"[\s_\-\[\]()\"',]+")


def _plain(name: str) -> str:
    """A name without case, the word "licence" at its end, and marks that people leave out."""
    words = _IGNORED.sub(" ", name.lower().replace("license", "licence")).strip()
    return words.removeprefix("the ").removesuffix(" agreement").removesuffix(" licence").strip()


def _known() -> dict[str, Licence]:
    found: dict[str, Licence] = {}
    for licence in LICENCES:
        for name in (licence.id, licence.name, *licence.aliases):
            if found.setdefault(_plain(name), licence) is not licence:
                raise ValueError(f"two licences are called {name!r}")
    return found


_NAMES = _known()
_HEAD = 400  # characters of a text in which it says what it is


def find(name: str) -> Licence | None:
    """The licence of a name, as files and model cards spell it, or None."""
    return _NAMES.get(_plain(name))


def of_text(text: str) -> Licence | None:
    """The licence that a text is, by how it begins, or None."""
    head = f" {_IGNORED.sub(' ', text[:_HEAD].lower().replace('license', 'licence'))} "
    heads = (
        (_IGNORED.sub(" ", phrase.lower().replace("license", "licence")), licence)
        for licence in LICENCES
        for phrase in (licence.name, *licence.heads)
    )
    found = [(len(phrase), licence) for phrase, licence in heads if f" {phrase} " in head]
    return max(found, key=lambda pair: pair[0])[1] if found else None
