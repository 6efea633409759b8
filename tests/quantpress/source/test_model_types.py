"""quantpress knows what transformers can measure before it fetches anything, and without importing transformers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from quantpress.errors import Refused
from quantpress.source.model_types import known_types, require_known_type, types_in


def test_types_are_those_of_the_installed_transformers() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    assert known_types() == frozenset(CONFIG_MAPPING_NAMES)


def test_a_type_that_nobody_knows_is_refused() -> None:
    with pytest.raises(Refused, match=r"^transformers 5\.\d+\.\d+ does not know the model type 'strange', so the"):
        require_known_type({"model_type": "strange"})
    require_known_type({"model_type": "llama"})
    require_known_type({})


def test_transformers_is_not_imported_for_it() -> None:
    program = (
        "import sys; from quantpress.source.model_types import known_types; known_types(); "
        "print('transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_pairs_and_added_dicts_are_read_and_other_tables_are_not() -> None:
    source = (
        "CONFIG_MAPPING_NAMES = OrderedDict([('a', 'A')])\nCONFIG_MAPPING_NAMES.update({'b': 'B'})\nOTHER = {'c': 'C'}"
    )
    assert list(types_in(source)) == ["a", "b"]
