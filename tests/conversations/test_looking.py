"""Rendered conversations as people look at them."""

import numpy as np
import pytest

from teacher_logits.conversations.looking import TEMPLATE, MarkedConversation, roles_of

SAID = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "one or two?"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "two?"},
    {"role": "tool", "content": " 2 "},
    {"role": "assistant", "tool_calls": []},
    {"role": "assistant", "content": "two"},
]
PIECES = ["<s>", "Be", " brief.", "<u>", "one", " or two", "?", "<a>", "two", "<e>", "<u>", "two", "?"]
PIECES += ["<t>", "2", "<a>", "two", "<e>", "\n"]
ROLES = ["template", "system", "system", "template", "user", "user", "user", "template", "assistant", "template"]
ROLES += ["template", "user", "user", "template", "tool", "template", "assistant", "template", "template"]


def test_each_content_behind_the_one_before() -> None:
    assert roles_of(PIECES, SAID) == ROLES


def test_white_space_belongs_to_what_it_leads_to() -> None:
    assert roles_of(["x", " two", "\n\n", "y"], [{"role": "user", "content": "two"}]) == [
        TEMPLATE,
        "user",
        TEMPLATE,
        TEMPLATE,
    ]


@pytest.mark.parametrize("content", [None, "", " \n", ["parts"], "changed by the template"])
def test_what_is_not_found_is_the_templates(content: object) -> None:
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "two"}]
    assert roles_of(["one", "two"], messages) == [TEMPLATE, "assistant"]


def test_runs_of_one_kind() -> None:
    marked = np.isin(np.arange(len(PIECES)), [8, 9, 17])
    seen = MarkedConversation(PIECES, marked, ROLES)
    assert seen.text() == "<s>Be brief.<u>one or two?<a>[[two<e>]]<u>two?<t>2<a>two[[<e>]]\n"
    painted = seen.painted(lambda text, kind: f"{kind[:3]}({text})")
    assert painted.startswith("tem(<s>)sys(Be brief.)tem(<u>)use(one or two?)tem(<a>)mar(two<e>)tem(<u>)use(two?)")
    assert painted.endswith("too(2)tem(<a>)ass(two)mar(<e>)tem(\n)")
