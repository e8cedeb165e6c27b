"""Which rows a run takes."""

from pathlib import Path
from typing import Any

import pytest

from teacher_logits.conversations import Source, open_source, select_rows
from teacher_logits.errors import DatasetError
from teacher_logits.settings import SourceOptions
from tests.conversations.reading import of_rows
from tests.tiny import write_jsonl

SUBJECTS = ["maths", "art", None, "maths", "", "history", "maths", "art", None, "maths"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {"question": f"q{n}", "answer": "a", "subject": subject, "level": None if n == 9 else n % 3}
        for n, subject in enumerate(SUBJECTS)
    ]
    return write_jsonl(tmp_path_factory.mktemp("rows") / "rows.jsonl", rows)


def selected(path: Path, **options: Any) -> list[int]:
    config = SourceOptions(dataset=str(path), **options)
    return select_rows(open_source(config), config).tolist()


class TestSlices:
    @pytest.mark.parametrize(
        ("split", "rows"),
        [
            ("train", range(10)),
            ("train[:]", range(10)),
            ("train[2:5]", range(2, 5)),
            ("train[:50%]", range(5)),
            ("train[-3:]", range(7, 10)),
            ("train[:-3]", range(7)),
            ("train[33%:66%]", range(3, 7)),
            ("train[-20%:]", range(8, 10)),
            ("train[:99]", range(10)),
            ("train[-99:]", range(10)),
        ],
    )
    def test_as_the_datasets_library_means_it(self, split: str, rows: range, path: Path) -> None:
        assert selected(path, split=split) == list(rows)

    @pytest.mark.parametrize("split", ["train[a:b]", "train[]", "train[3]", "train[1:2:3]", "train[:200%]"])
    def test_what_is_no_slice(self, split: str, path: Path) -> None:
        with pytest.raises(DatasetError, match=r"is not a slice of split 'train'"):
            selected(path, split=split)

    @pytest.mark.parametrize("split", ["train[5:2]", "train[20:]", "train[0:0]"])
    def test_an_empty_one(self, split: str, path: Path) -> None:
        with pytest.raises(DatasetError, match=r"No conversation is selected.*--split"):
            selected(path, split=split)

    def test_offset_and_limit_count_within_it(self, path: Path) -> None:
        assert selected(path, split="train[2:8]", start_offset=1, limit=2) == [3, 4]


class TestLimits:
    def test_offset_and_limit(self, path: Path) -> None:
        assert selected(path, start_offset=3) == [3, 4, 5, 6, 7, 8, 9]
        assert selected(path, limit=2) == [0, 1]
        assert selected(path, start_offset=8, limit=5) == [8, 9]

    def test_an_offset_past_the_end(self, path: Path) -> None:
        with pytest.raises(DatasetError, match=r"has 10 rows.*--start-offset"):
            selected(path, start_offset=10)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return of_rows(tmp_path_factory.mktemp("many"), [{"question": "a", "answer": "b"} for _ in range(500)])


class TestRandomSample:
    def choose(self, source: Source, **options: Any) -> list[int]:
        return select_rows(source, SourceOptions(random_sample=True, **options)).tolist()

    def test_a_larger_limit_only_adds(self, many: Source) -> None:
        before: set[int] = set()
        for limit in (1, 10, 100, 499, 500):
            chosen = self.choose(many, limit=limit)
            assert len(chosen) == len(set(chosen)) == limit
            assert chosen == sorted(chosen)
            assert before <= set(chosen)
            before = set(chosen)

    def test_it_depends_on_the_seed_and_on_nothing_else(self, many: Source) -> None:
        assert self.choose(many, limit=50) == self.choose(many, limit=50)
        assert self.choose(many, limit=50) != self.choose(many, limit=50, seed=43)

    def test_the_choice_is_the_same_for_ever(self, many: Source) -> None:
        """A run that is resumed makes it again, perhaps with another version of this program."""
        assert self.choose(many, limit=6) == [40, 46, 132, 232, 472, 473]

    def test_it_is_spread_over_the_rows_after_the_offset(self, many: Source) -> None:
        chosen = self.choose(many, limit=100, start_offset=100)
        assert min(chosen) >= 100
        assert 240 < sum(chosen) / 100 < 360  # uniform on 100 ... 499: mean 299.5, standard error 10.3
        assert chosen != list(range(100, 200))


class TestSubjects:
    @pytest.mark.parametrize(
        ("quota", "rows"),
        [
            ({"maths": 2}, [0, 3]),
            ({"maths": 99}, [0, 3, 6, 9]),
            ({"*": 1}, [0, 1, 5]),
            ({"": 2}, [2, 4]),
            ({"maths": 1, "*": 9}, [0, 1, 5, 7]),
            ({"maths": 0, "*": 1, "": 9}, [1, 2, 4, 5, 8]),
        ],
    )
    def test_so_many_of_each(self, quota: dict[str, int], rows: list[int], path: Path) -> None:
        assert selected(path, subject_col="subject", sample_subject=quota) == rows

    def test_limit_and_offset_with_it(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """What is said is what is taken in the end."""
        with caplog.at_level("INFO", "teacher_logits"):
            assert selected(path, subject_col="subject", sample_subject={"maths": 9}, start_offset=1, limit=2) == [3, 6]
        assert caplog.messages == ["subject 'maths': 2 conversations"]

    def test_at_random(self, path: Path) -> None:
        def choose(seed: int, count: int) -> set[int]:
            options = {"subject_col": "subject", "sample_subject": {"maths": count}, "random_sample": True}
            return set(selected(path, seed=seed, **options))

        chosen = {frozenset(choose(seed, 2)) for seed in range(8)}
        assert len(chosen) > 1 and all(len(rows) == 2 and rows <= {0, 3, 6, 9} for rows in chosen)
        assert all(choose(seed, 2) <= choose(seed, 3) for seed in range(8))

    def test_a_limit_at_random_takes_of_all_subjects(self, tmp_path: Path) -> None:
        """Though there are far more rows of one, and its quota alone would fill the limit."""
        rows = [{"question": "q", "answer": "a", "subject": "art" if n % 50 == 0 else "maths"} for n in range(2000)]
        data = write_jsonl(tmp_path / "rows.jsonl", rows)
        given: dict[str, Any] = {"subject_col": "subject", "sample_subject": {"maths": 60, "art": 40}}
        found = [selected(data, random_sample=True, limit=limit, **given) for limit in (20, 50, 100)]
        assert [len(rows) for rows in found] == [20, 50, 100] and set(found[0]) < set(found[1]) < set(found[2])
        art = [sum(row % 50 == 0 for row in rows) for rows in found]
        assert 3 <= art[0] <= 13 and 12 <= art[1] <= 28 and art[2] == 40

    def test_a_limit_without_a_quota_counts_for_each(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Rows without a subject count as one more. What is chosen of a subject is what a quota would choose."""
        with caplog.at_level("INFO", "teacher_logits"):
            assert selected(path, subject_col="subject", limit=1) == [0, 1, 2, 5]
        assert caplog.messages == [
            *("subject 'maths': 1 conversation", "subject 'art': 1 conversation"),
            *("without a subject: 1 conversation", "subject 'history': 1 conversation"),
        ]
        assert selected(path, subject_col="subject", limit=2, start_offset=1) == [1, 2, 3, 4, 5, 6, 7]
        at_random = {"subject_col": "subject", "random_sample": True, "seed": 3}
        quota = {"*": 2, "": 2}
        assert selected(path, **at_random, limit=2) == selected(path, **at_random, sample_subject=quota)
        assert set(selected(path, **at_random, limit=1)) < set(selected(path, **at_random, limit=2))

    def test_a_column_alone_chooses_nothing(self, path: Path) -> None:
        assert selected(path, subject_col="subject") == list(range(10))

    def test_whole_numbers_as_subjects(self, path: Path) -> None:
        """A missing one among them doesn't make 1.0 of 1."""
        assert selected(path, subject_col="level", sample_subject={"1": 9}) == [1, 4, 7]
        assert selected(path, subject_col="level", sample_subject={"": 9}) == [9]

    def test_an_unknown_subject_is_answered_with_those_there_are(self, path: Path) -> None:
        with pytest.raises(DatasetError, match=r"names 'physics', which no row has.*'maths', 'art'.*'history'"):
            selected(path, subject_col="subject", sample_subject={"physics": 3})

    def test_an_unknown_column(self, path: Path) -> None:
        with pytest.raises(DatasetError, match=r"no column 'topic' \(--subject-col\).*'subject'"):
            selected(path, subject_col="topic", sample_subject={"*": 3})

    def test_none_of_any(self, path: Path) -> None:
        with pytest.raises(DatasetError, match=r"No conversation is selected.*--sample-subject"):
            selected(path, subject_col="subject", sample_subject={"maths": 0})


def test_a_subject_column_that_is_not_there(path: Path) -> None:
    """Whether or not there is anything to choose by it."""
    for options in ({"start_offset": 1}, {"limit": 2}):
        with pytest.raises(DatasetError, match=r"no column 'topic' \(--subject-col\)"):
            selected(path, subject_col="topic", **options)


def test_nothing_left_behind_the_offset(path: Path) -> None:
    with pytest.raises(DatasetError, match="No conversation is selected: the split has"):
        selected(path, subject_col="subject", sample_subject={"maths": 1}, start_offset=10**6)
