"""Templates that are missing, broken, unmarked or peculiar; dates; tokenizers."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import ByT5Tokenizer

from teacher_logits.conversations import (
    ChatRenderer,
    ConversationDataset,
    RendererSpec,
    Unusable,
    get_transform_fn,
    load_tokenizer,
    renderer_spec,
    tokenizer_sha256,
)
from teacher_logits.conversations.thoughts import THINK
from teacher_logits.errors import ChatTemplateError, TeacherError
from teacher_logits.records import Conversation, Example
from teacher_logits.settings import ExtractionConfig, SourceOptions
from tests.conversations.reading import of_rows
from tests.tiny import CHATML, UNMARKED, messages, question_rows, tiny_tokenizer

DATED = "{{ strftime_now('%d %B %Y') }}|" + CHATML
GENERATION = "{% generation %}{{ messages[-1].content }}{% endgeneration %}"


def spec_of(template: str | None, folder: Path, **options: Any) -> RendererSpec:
    tokenizer = tiny_tokenizer(template)
    return renderer_spec(ExtractionConfig(model=str(folder), **options), tokenizer, None, [2, 0, 2])


def spec(template: str, **options: Any) -> RendererSpec:
    return RendererSpec("a model", None, False, template, options.pop("pinned_date", None), **options)


def renderer(template: str, **options: Any) -> ChatRenderer:
    return ChatRenderer(spec(template, **options), tiny_tokenizer())


class TestWhichTemplate:
    def test_the_tokenizers_own(self, tmp_path: Path) -> None:
        assert spec_of(CHATML, tmp_path).template == CHATML

    def test_one_from_a_file_wins(self, tmp_path: Path) -> None:
        (tmp_path / "other.jinja").write_text(GENERATION, encoding="utf-8")
        assert spec_of(CHATML, tmp_path, chat_template=str(tmp_path / "other.jinja")).template == GENERATION
        assert spec_of(None, tmp_path, chat_template=str(tmp_path / "other.jinja")).template == GENERATION

    def test_a_byte_order_mark_is_no_part_of_it(self, tmp_path: Path) -> None:
        (tmp_path / "other.jinja").write_text(GENERATION, encoding="utf-8-sig")
        assert spec_of(CHATML, tmp_path, chat_template=str(tmp_path / "other.jinja")).template == GENERATION

    def test_a_tokenizer_without_one(self, tmp_path: Path) -> None:
        with pytest.raises(ChatTemplateError, match=r"no chat template\. Pass one with --chat-template FILE"):
            spec_of(None, tmp_path)

    def test_one_without_markers(self, tmp_path: Path) -> None:
        assert spec_of(UNMARKED, tmp_path).template == UNMARKED
        with pytest.raises(ChatTemplateError, match=r"{% generation %}"):
            renderer(UNMARKED)

    @pytest.mark.parametrize("tag", ["{% generation %}", "{%- generation -%}", "{%generation%}", "{%-  generation  %}"])
    def test_markers_in_any_spelling(self, tag: str, tmp_path: Path) -> None:
        assert spec_of(CHATML.replace("{% generation %}", tag), tmp_path).template

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ChatTemplateError, match=r"--chat-template .*nope\.jinja can't be read"):
            spec_of(CHATML, tmp_path, chat_template=str(tmp_path / "nope.jinja"))

    def test_a_folder_or_bytes_instead_of_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(ChatTemplateError, match="can't be read"):
            spec_of(CHATML, tmp_path, chat_template=str(tmp_path))
        (tmp_path / "bytes.jinja").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ChatTemplateError, match="can't be read"):
            spec_of(CHATML, tmp_path, chat_template=str(tmp_path / "bytes.jinja"))

    @pytest.mark.parametrize("held", [{"chat_template": CHATML}, [{"name": "default"}], CHATML])
    def test_json(self, held: Any, tmp_path: Path) -> None:
        path = tmp_path / "tokenizer_config.json"
        path.write_text(json.dumps(held), encoding="utf-8")
        with pytest.raises(ChatTemplateError, match=r'tokenizer_config\.json is JSON.*value of "chat_template"'):
            spec_of(CHATML, tmp_path, chat_template=str(path))

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "hello",
            "{% generation %}hello{% endgeneration %}",
            "{% for m in conversation %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
            "{% for m in messages %}{{ m.role }}: {{ m.value }}{% endfor %}",
            "{{ tools | length }}",
        ],
    )
    def test_what_is_no_chat_template(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "other.jinja"
        path.write_text(text, encoding="utf-8")
        reason = "prints nothing of what the messages say, so it is no chat template"
        with pytest.raises(ChatTemplateError, match=rf"--chat-template .*other\.jinja {reason}.*leave that option out"):
            spec_of(CHATML, tmp_path, chat_template=str(path))
        if text:  # a tokenizer has none where it is empty
            with pytest.raises(ChatTemplateError, match=rf"the tokenizer's chat template {reason}.*FILE\.$"):
                spec_of(text, tmp_path)

    @pytest.mark.parametrize(
        "text",
        [
            "{{ messages[0].content | upper }}",
            "{% if messages[0].role == 'system' %}{{ messages[1].content }}{% endif %}",
            "{% if tools %}{{ messages[0].content }}{% endif %}",
            "{{ messages[5].content }}",
        ],
    )
    def test_peculiar_ones_are_left_to_the_data(self, text: str, tmp_path: Path) -> None:
        assert spec_of(text, tmp_path).template == text

    @pytest.mark.parametrize(
        "broken", ["{% if %}", "{{ ", "{% endfor %}", "{% for m in messages %}", "{{ x|nofilter }}"]
    )
    @pytest.mark.parametrize("dated", ["", "{{ strftime_now('%Y') }}"])
    def test_broken_jinja(self, broken: str, dated: str, tmp_path: Path) -> None:
        with pytest.raises(ChatTemplateError, match=r"not valid Jinja: .*line 2.*--chat-template FILE"):
            spec_of(dated + GENERATION + "\n" + broken, tmp_path)
        with pytest.raises(ChatTemplateError, match="not valid Jinja"):
            renderer(dated + GENERATION + broken)

    def test_a_block_that_is_not_closed(self, tmp_path: Path) -> None:
        with pytest.raises(ChatTemplateError, match="not valid Jinja"):
            spec_of("{% generation %}{{ messages[0].content }}", tmp_path)


class TestRefusedConversations:
    """A template is a program: what it does to one conversation is that conversation's fate alone."""

    @pytest.mark.parametrize(
        ("program", "reason"),
        [
            ("{{ raise_exception('Roles must alternate') }}", "Roles must alternate"),
            ("{{ 1 / 0 }}", "division by zero"),
            ("{{ '{} {}'.format('a') }}", "index"),
            ("{{ 'a' + 1 }}", "can only concatenate str"),
            ("{{ messages[9].content }}", "no element 9"),
            ("{{ missing.attribute }}", "'missing' is undefined: chat templates are given messages, tools"),
            ("{{ bos_token + 'a' }}", "'bos_token' is undefined: this tokenizer has no bos token"),
            ("{{ missing | tojson }}", "not JSON serializable"),
            ("{{ range(99999999) | list }}", "Range too big"),
            ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
            ("{% include 'passwords' %}", "no loader"),
            ("{{ ''.__class__.__mro__[1] }}{{ messages.append(1) }}", "unsafe"),
            ("{% for m in 5 %}{% endfor %}", "not iterable"),
            ("{{ 'abc'.index('z') }}", "substring not found"),
        ],
    )
    def test_the_others_go_on(self, program: str, reason: str) -> None:
        template = "<|im_start|>" + GENERATION + "{% if messages[0].content == 'bad' %}" + program + "{% endif %}"
        chats = [Conversation(n, messages(text, "b")) for n, text in enumerate(("good", "bad", "good"))]
        first, refused, last = renderer(template).render(chats)
        assert isinstance(first, Example) and isinstance(last, Example)
        assert isinstance(refused, Unusable)
        assert str(refused).startswith("the chat template refuses it: ") and reason in str(refused)

    def test_tools_that_are_none(self) -> None:
        (reason,) = renderer(CHATML).render([Conversation(0, messages("a", "b"), ["no schema"])])  # type: ignore[list-item]
        assert isinstance(reason, Unusable) and "refuses" in str(reason)


class TestDates:
    CHAT = Conversation(0, messages("a", "b"))

    def test_a_template_that_prints_the_date_gets_todays(self, tmp_path: Path) -> None:
        before = date.today()
        made = spec_of(DATED, tmp_path).pinned_date
        assert made is not None and before <= date.fromisoformat(made) <= date.today()

    def test_others_are_given_none(self, tmp_path: Path) -> None:
        assert spec_of(CHATML, tmp_path).pinned_date is None

    def test_a_resumed_run_keeps_its_own(self, tmp_path: Path) -> None:
        config = SourceOptions(model=str(tmp_path))
        assert renderer_spec(config, tiny_tokenizer(DATED), None, [], "2001-02-03").pinned_date == "2001-02-03"

    def test_it_is_what_the_template_prints(self) -> None:
        assert renderer(DATED, pinned_date="2001-02-03").show(self.CHAT).startswith("03 February 2001|")

    def test_two_renderers_each_keep_theirs(self) -> None:
        """transformers compiles a template once a process."""
        first, second = renderer(DATED, pinned_date="2001-02-03"), renderer(DATED, pinned_date="2024-12-31")
        for _ in range(2):
            assert first.show(self.CHAT).startswith("03 February 2001|")
            assert second.show(self.CHAT).startswith("31 December 2024|")

    def test_in_a_fresh_process_too(self, save_tiny_teacher: Callable[..., Path]) -> None:
        """As worker processes do: what travels is the spec."""
        folder = save_tiny_teacher(template=DATED)
        program = (
            "import json, sys\n"
            "from teacher_logits.conversations import RendererSpec\n"
            "from teacher_logits.records import Conversation\n"
            "spec, chat = json.load(sys.stdin)\n"
            "example, = RendererSpec(**spec).build().render([Conversation(0, chat)])\n"
            "print(example.input_ids.tolist())\n"
        )
        made = RendererSpec(str(folder), None, False, DATED, "2001-02-03")
        told = json.dumps([vars(made), self.CHAT.messages])
        answer = subprocess.run([sys.executable, "-c", program], input=told, capture_output=True, text=True, check=True)
        (here,) = made.build().render([self.CHAT])
        assert isinstance(here, Example)
        assert json.loads(answer.stdout.splitlines()[-1]) == here.input_ids.tolist()
        assert load_tokenizer(str(folder), None, False).decode(here.input_ids).startswith("03 February 2001|")


class TestSpec:
    def test_exclusions(self, tmp_path: Path) -> None:
        plain = spec_of(CHATML, tmp_path)
        assert plain.end_ids == () and plain.think_tags == ()
        without = spec_of(CHATML, tmp_path, exclude_end_tokens=True, exclude_think_tokens=True)
        assert without.end_ids == (0, 2) and without.think_tags == (THINK,)
        assert spec_of(CHATML, tmp_path, exclude_think_tokens=True, think_tags="<a> </a>").think_tags == (
            ("<a>", "</a>"),
        )

    def test_other_commands_have_none(self, tmp_path: Path) -> None:
        assert renderer_spec(SourceOptions(model=str(tmp_path)), tiny_tokenizer(), None, [2]).end_ids == ()


class TestTokenizers:
    def test_of_a_folder(self, tiny_teacher: Path) -> None:
        text = "What is the name?<|im_end|>"
        assert load_tokenizer(str(tiny_teacher), None, False).encode(text) == tiny_tokenizer().encode(text)

    def test_a_slow_one_is_refused(self, tmp_path: Path) -> None:
        ByT5Tokenizer().save_pretrained(tmp_path)
        (tmp_path / "config.json").write_text('{"model_type": "t5"}')
        with pytest.raises(TeacherError, match=r"ByT5Tokenizer.*tokenizer\.json"):
            load_tokenizer(str(tmp_path), None, False)

    def test_a_folder_without_one(self, tmp_path: Path) -> None:
        with pytest.raises(TeacherError, match=r"tokenizer of .* can't be loaded"):
            load_tokenizer(str(tmp_path), None, False)

    @pytest.mark.parametrize(
        "content", ['{"version":', "{}", '{"added_tokens": [], "model": {"type": "None"}}', "[]", ""]
    )
    def test_a_damaged_one(self, content: str, tiny_teacher: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(tiny_teacher, tmp_path / "teacher"))
        (folder / "tokenizer.json").write_text(content)
        with pytest.raises(TeacherError, match="can't be loaded"):
            load_tokenizer(str(folder), None, False)

    def test_hash_ignores_the_place_and_what_calls_leave_behind(self, tiny_teacher: Path, tmp_path: Path) -> None:
        one = load_tokenizer(str(tiny_teacher), None, False)
        other = load_tokenizer(str(shutil.copytree(tiny_teacher, tmp_path / "elsewhere")), None, False)
        before = tokenizer_sha256(one)
        assert before == tokenizer_sha256(other)
        one("a text", truncation=True, max_length=2, padding="max_length")
        assert tokenizer_sha256(one) == before

    def test_hash_sees_what_changes_ids(self) -> None:
        plain = tokenizer_sha256(tiny_tokenizer())
        assert tokenizer_sha256(tiny_tokenizer(template=None)) == plain  # the template has a hash of its own
        assert tokenizer_sha256(tiny_tokenizer(nfc=True)) != plain
        assert tokenizer_sha256(tiny_tokenizer(eos_token="<|im_end|>")) != plain
        longer = tiny_tokenizer()
        longer.add_tokens(["river"])
        assert tokenizer_sha256(longer) != plain


class TestConversationDataset:
    def test_examples_by_place(self, tmp_path: Path) -> None:
        rows = question_rows(6)
        rows[3]["answer"] = None
        source = of_rows(tmp_path, rows)
        made = renderer(CHATML)
        dataset = ConversationDataset(source, np.array([5, 3, 1]), made)
        assert len(dataset) == 3
        expected = made.render([Conversation(n, messages(rows[n]["question"], rows[n]["answer"])) for n in (5, 1)])
        for place, example in zip((0, 2), expected, strict=True):
            got = dataset[place]
            assert isinstance(got, Example) and isinstance(example, Example)
            assert got.index == example.index
            assert got.input_ids.tolist() == example.input_ids.tolist()
            assert got.positions.tolist() == example.positions.tolist()
        assert str(dataset[1]) == "empty assistant content"
        several = dataset.__getitems__([2, 1, 0])
        assert [e.index if isinstance(e, Example) else str(e) for e in several] == [1, "empty assistant content", 5]

    def test_transform(self) -> None:
        transform = get_transform_fn(renderer(CHATML))
        assert transform(Conversation(8, messages("a", "b"))).index == 8
        with pytest.raises(Unusable, match="no assistant tokens"):
            transform(Conversation(8, messages("a")))
