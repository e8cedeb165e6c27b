"""Rows of the known shapes, and of none of them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from teacher_logits.errors import DatasetError
from teacher_logits.records import Conversation
from tests.conversations.reading import contents, found, of_rows, opened
from tests.tiny import messages

GOOD = messages("a", "b")
USER, ASSISTANT = GOOD


class TestTwoColumns:
    def test_default_names(self, tmp_path: Path) -> None:
        (conversation,) = found(of_rows(tmp_path, [{"id": 7, "question": "  a\n", "answer": "b "}]))
        assert conversation == Conversation(0, messages("  a\n", "b "), None)  # white space stays as it is

    def test_other_names(self, tmp_path: Path) -> None:
        rows = [{"question": "wrong", "answer": "wrong", "in": "a", "out": "b"}]
        source = of_rows(tmp_path, rows, user_col="in", assistant_col="out")
        assert contents(source) == [["a", "b"]]
        assert source.columns.names() == {"user": "in", "assistant": "out"}

    def test_asked_for_columns_win_over_messages(self, tmp_path: Path) -> None:
        rows = [{"messages": messages("x", "y"), "question": "a", "chosen": "b"}]
        assert contents(of_rows(tmp_path, rows)) == [["x", "y"]]
        assert contents(of_rows(tmp_path, rows, assistant_col="chosen")) == [["a", "b"]]

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            ({"question": None, "answer": "b"}, "empty user content"),
            ({"question": "a", "answer": None}, "empty assistant content"),
            ({"question": "", "answer": "b"}, "empty user content"),
            ({"question": "a", "answer": " \n\t\u3000"}, "empty assistant content"),
            ({"answer": "b"}, "empty user content"),
        ],
    )
    def test_what_is_empty_is_named_and_the_rest_goes_on(
        self, row: dict[str, Any], reason: str, tmp_path: Path
    ) -> None:
        fine = {"question": "a", "answer": "b"}
        assert contents(of_rows(tmp_path, [fine, row, fine])) == [["a", "b"], reason, ["a", "b"]]

    @pytest.mark.parametrize(("value", "kind"), [(5, "int"), (2.5, "float"), (True, "bool"), ({"x": 1}, "dict")])
    def test_what_is_not_text_is_named(self, value: object, kind: str, tmp_path: Path) -> None:
        rows = [{"question": "a", "answer": value}]
        assert contents(of_rows(tmp_path, rows)) == [f"assistant content is not text but {kind}"]


class TestMessages:
    def test_found_by_itself(self, tmp_path: Path) -> None:
        source = of_rows(
            tmp_path, [{"question": "x", "answer": "y", "messages": messages("a", "b", "c", "d", system="s")}]
        )
        (conversation,) = found(source)
        assert conversation == Conversation(0, messages("a", "b", "c", "d", system="s"), None)
        assert source.columns.names() == {"messages": "messages"}

    def test_named(self, tmp_path: Path) -> None:
        rows = [{"messages": messages("wrong", "wrong"), "chat": GOOD}]
        assert contents(of_rows(tmp_path, rows, messages_col="chat")) == [["a", "b"]]

    def test_sharegpt(self, tmp_path: Path) -> None:
        said = [("system", "s"), ("human", "a"), ("gpt", "b"), ("user", "c"), ("assistant", "d"), ("tool", "t")]
        rows = [{"conversations": [{"from": speaker, "value": text} for speaker, text in said]}]
        (conversation,) = found(of_rows(tmp_path, rows))
        assert isinstance(conversation, Conversation)
        roles = ["system", "user", "assistant", "user", "assistant", "tool"]
        assert conversation.messages == [
            {"role": role, "content": text} for role, (_, text) in zip(roles, said, strict=True)
        ]

    def test_a_conversation_may_end_with_the_user(self, tmp_path: Path) -> None:
        assert contents(of_rows(tmp_path, [{"messages": messages("a", "b", "c")}])) == [["a", "b", "c"]]

    def test_text_parts_are_joined(self, tmp_path: Path) -> None:
        parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
        rows = [{"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": parts[1:]}]}]
        assert contents(of_rows(tmp_path, rows)) == [["a b", "b"]]

    @pytest.mark.parametrize(
        ("parts", "reason"),
        [
            ([{"type": "image", "image": "x.png"}, {"type": "text", "text": "a"}], "not text: image"),
            ([{"type": "image_url", "text": "an alternative text"}], "not text: image_url"),
            ([{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "a"}], "not text: reasoning"),
            ([{"type": "text", "text": None}], "not text"),
            ([], "empty user content"),
            ([{"type": "text", "text": " "}], "empty user content"),
        ],
    )
    def test_other_parts(self, parts: list[Any], reason: str, tmp_path: Path) -> None:
        (said,) = contents(of_rows(tmp_path, [{"messages": [{"role": "user", "content": parts}, ASSISTANT]}]))
        assert isinstance(said, str) and reason in said

    @pytest.mark.parametrize(
        ("said", "reason"),
        [
            ([], "no messages"),
            (None, "column 'messages' is not a list of messages"),
            ("hello", "column 'messages' is not a list of messages"),
            (5, "column 'messages' is not a list of messages"),
            ({"role": "user", "content": "a"}, "column 'messages' is not a list of messages"),
            ([1, 2], "column 'messages' is not a list of messages"),
            ([None], "column 'messages' is not a list of messages"),
            ([USER], "no assistant message"),
            ([{"role": "system", "content": "s"}], "no assistant message"),
            ([{"role": "Assistant", "content": "b"}, USER], "no assistant message"),
            ([{"content": "a"}, ASSISTANT], "a message without a role"),
            ([{"role": None, "content": "a"}, ASSISTANT], "a message without a role"),
            ([{"role": "", "content": "a"}, ASSISTANT], "a message without a role"),
            ([{"role": 5, "content": "a"}, ASSISTANT], "a message without a role"),
            ([{"role": ["user"], "content": "a"}, ASSISTANT], "a message without a role"),
            ([{"from": ["human"], "value": "a"}, ASSISTANT], "a message without a role"),
            ([{"from": None, "value": "a"}, ASSISTANT], "a message without a role"),
            ([{"role": "user"}, ASSISTANT], "empty user content"),
            ([{"role": "user", "content": None}, ASSISTANT], "empty user content"),
            ([USER, {"role": "assistant", "content": ""}], "empty assistant content"),
            ([USER, {"role": "assistant", "content": "\n"}], "empty assistant content"),
            ([{"from": "human", "value": None}, ASSISTANT], "empty user content"),
            ([{"role": "user", "content": 5}, ASSISTANT], "user content is not text but int"),
            ([{"role": "user", "content": {"a": 1}}, ASSISTANT], "user content is not text but dict"),
        ],
    )
    def test_what_can_not_be_used_is_named_and_the_rest_goes_on(self, said: Any, reason: str, tmp_path: Path) -> None:
        source = of_rows(tmp_path, [{"messages": GOOD}, {"messages": said}, {"messages": GOOD}])
        assert contents(source) == [["a", "b"], reason, ["a", "b"]]

    def test_what_else_a_message_carries_is_kept_and_nulls_are_not(self, tmp_path: Path) -> None:
        """Arrow gives every message all keys that any message has."""
        thinking = {"role": "assistant", "content": "b", "reasoning_content": "hm"}
        (first, second) = found(of_rows(tmp_path, [{"messages": [USER, thinking]}, {"messages": GOOD}]))
        assert isinstance(first, Conversation) and isinstance(second, Conversation)
        assert first.messages == [USER, thinking] and second.messages == GOOD

    def test_a_call_of_a_tool_needs_no_content(self, tmp_path: Path) -> None:
        call = [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]
        calling = {"role": "assistant", "tool_calls": call}
        answer = {"role": "tool", "content": "5"}
        tools = [{"type": "function", "function": {"name": "f"}}]
        (conversation,) = found(of_rows(tmp_path, [{"messages": [USER, calling, answer], "tools": tools}]))
        assert conversation == Conversation(0, [USER, calling, answer], tools)


class TestColumns:
    def test_unknown_columns_are_answered_with_those_there_are(self, tmp_path: Path) -> None:
        with pytest.raises(
            DatasetError, match=r"columns are 'text', 'label': no shape of chat data that is known.*--user"
        ):
            of_rows(tmp_path, [{"text": "a", "label": "b"}])

    @pytest.mark.parametrize("user", ["prompt", "question", "instruction", "query", "problem", "input"])
    @pytest.mark.parametrize("assistant", ["answer", "response", "completion", "output", "solution"])
    def test_names_known_from_different_pairs(self, user: str, assistant: str, tmp_path: Path) -> None:
        source = of_rows(tmp_path, [{"id": 1, assistant: "b", user: "a", "subject": "c"}])
        assert contents(source) == [["a", "b"]] and source.columns.names() == {"user": user, "assistant": assistant}

    def test_messages_in_such_a_pair(self, tmp_path: Path) -> None:
        source = of_rows(tmp_path, [{"prompt": messages("x", "y", "z")[:3], "answer": GOOD[1:]}])
        assert contents(source) == [["x", "y", "z", "b"]]
        assert source.describe().startswith("`prompt` and `answer` as prompt and answer, from")

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            (["prompt", "question", "output"], "'prompt' or 'question' may be the user's, 'output' the assistant's"),
            (["prompt", "answer", "solution"], "'prompt' may be the user's, 'answer' or 'solution' the assistant's"),
            (
                ["instruction", "input", "answer"],
                "'instruction' or 'input' may be the user's, 'answer' the assistant's",
            ),
            (["question", "subject"], "no shape of chat data that is known"),
        ],
    )
    def test_none_of_several_is_guessed(self, columns: list[str], said: str, tmp_path: Path) -> None:
        with pytest.raises(DatasetError) as refused:
            of_rows(tmp_path, [dict.fromkeys(columns, "a")] * 2)
        assert f": {said}. Name them with --user-col" in str(refused.value)
        assert "(--user-col)" not in str(refused.value) and "deeper" not in str(refused.value)

    def test_what_an_option_takes_is_no_candidate(self, tmp_path: Path) -> None:
        rows = [{"instruction": "a", "input": "i", "answer": "b"}]
        assert contents(of_rows(tmp_path, rows, input_col="input")) == [["a\n\ni", "b"]]

    def test_rows_one_level_deeper(self, tmp_path: Path) -> None:
        (tmp_path / "rows.json").write_text('{"data": [{"question": "a", "answer": "b"}], "version": "1"}')
        with pytest.raises(DatasetError, match=r"'data', 'version': no shape .* one level deeper, as in \{\"data\": "):
            opened(tmp_path / "rows.json")

    @pytest.mark.parametrize(
        ("option", "flag"),
        [
            ("user_col", "--user-col"),
            ("assistant_col", "--assistant-col"),
            ("messages_col", "--messages-col"),
            ("index_col", "--index-col"),
        ],
    )
    def test_each_option_is_named(self, option: str, flag: str, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match=rf"no column 'nope' \({flag}\); it has 'question', 'answer'.*{flag}"):
            of_rows(tmp_path, [{"question": "a", "answer": "b"}], **{option: "nope"})

    def test_one_of_two_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match=r"no column 'answer' .*it has 'question', 'in'"):
            of_rows(tmp_path, [{"question": "a", "in": "b"}], user_col="in")


class TestIndex:
    def rows(self, numbers: list[Any], name: str = "original_index") -> list[dict[str, Any]]:
        return [{"question": "a", "answer": "b", name: number} for number in numbers]

    def test_row_number_where_nothing_else_is_said(self, tmp_path: Path) -> None:
        source = of_rows(tmp_path, self.rows([9, 8, 7], "id"))
        assert source.index.tolist() == [0, 1, 2] and source.index_column is None

    def test_original_index_is_taken_by_itself(self, tmp_path: Path) -> None:
        source = of_rows(tmp_path, self.rows([7, 0, 2**31 - 1]))
        assert [c.index for c in found(source)] == [7, 0, 2**31 - 1]  # type: ignore[union-attr]
        assert source.index_column == "original_index"

    def test_another_column_wins(self, tmp_path: Path) -> None:
        rows = [row | {"id": number} for number, row in zip([4, 9], self.rows([1, 1]), strict=True)]
        source = of_rows(tmp_path, rows, index_col="id")
        assert source.index.tolist() == [4, 9] and source.index_column == "id"

    def test_a_slice_keeps_the_numbers_of_the_whole_split(self, tmp_path: Path) -> None:
        source = of_rows(tmp_path, self.rows([1, 2, 3, 4], "id"), split="train[2:]")
        assert [c.index for c in found(source)] == [2, 3]  # type: ignore[union-attr]

    @pytest.mark.parametrize(
        ("numbers", "message"),
        [
            ([1, 5, 1], "'original_index' holds 1 more than once"),
            ([3, -1, -2], "holds -2; .* from 0 to 2,147,483,647"),
            ([2**31, 1], "holds 2147483648;"),
            ([1, None], "with 1 missing"),
            ([1.0, 2.0], "must hold whole numbers .* double"),
            (["1", "2"], "must hold whole numbers .* string"),
            ([True, False], "must hold whole numbers .* bool"),
        ],
    )
    def test_what_is_no_number_of_its_own(self, numbers: list[Any], message: str, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match=message + r"[\s\S]*--index-col"):
            of_rows(tmp_path, self.rows(numbers))

    def test_beyond_int64(self, tmp_path: Path) -> None:
        table = pa.table({"question": ["a"], "answer": ["b"], "id": pa.array([2**64 - 1], pa.uint64())})
        pq.write_table(table, tmp_path / "rows.parquet")
        with pytest.raises(DatasetError, match="holds 18446744073709551615;"):
            opened(tmp_path / "rows.parquet", index_col="id")

    def test_a_double_outside_the_slice_counts_too(self, tmp_path: Path) -> None:
        """The numbers are those of the split, whatever part of it a run takes."""
        with pytest.raises(DatasetError, match="more than once"):
            of_rows(tmp_path, self.rows([1, 2, 2]), split="train[:2]")
