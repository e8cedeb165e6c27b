"""The real client against the server: what it writes is there, what it reads is what was written."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    hf_hub_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder

from tests.hub_server import HubServer, hub_environment
from tests.hub_server.repository import ATTRIBUTES

REPO = "tester/logits"


def shard(rows: int, first: int = 0) -> bytes:
    """A Parquet file of `rows` rows: their index, and a text that doesn't compress to nothing."""
    index = list(range(first, first + rows))
    texts = [f"row {number} {number * 2654435761 % 2**32:x}" for number in index]
    sink = io.BytesIO()
    pq.write_table(pa.table({"index": index, "text": texts}), sink, row_group_size=max(rows // 4, 1))
    return sink.getvalue()


def add(path: str, content: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path, content)


@pytest.fixture
def repo(api: HfApi) -> str:
    return api.create_repo(REPO, repo_type="dataset", private=True).repo_id


def test_account_and_creation(server: HubServer, api: HfApi):
    assert api.whoami()["name"] == "tester"
    url = api.create_repo("logits", repo_type="dataset", private=True)
    assert url == f"{server.endpoint}/datasets/{REPO}"
    assert server.is_private(REPO)
    assert api.create_repo(REPO, repo_type="dataset", exist_ok=True) == url
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo(REPO, repo_type="dataset")
    with pytest.raises(HfHubHTTPError, match="403"):
        api.create_repo("stranger/logits", repo_type="dataset")
    api.create_repo("team/logits")
    assert server.exists("team/logits", repo_type="model")
    api.delete_repo(REPO, repo_type="dataset")
    assert not server.exists(REPO)


def test_tokens(server: HubServer, api: HfApi, repo: str):
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info(repo, token=False)
    with pytest.raises(HfHubHTTPError, match="401"):
        api.dataset_info(repo, token="another-token")
    with pytest.raises(HfHubHTTPError, match="401"):
        api.create_repo("tester/other", repo_type="dataset", token=False)
    assert api.dataset_info(repo).private
    assert {request.authorized for request in server.requests} == {True, False}
    assert not any(server.token in str(request) or "another-token" in str(request) for request in server.requests)


def test_commit_and_listing(server: HubServer, api: HfApi, repo: str):
    data = shard(100)
    before = api.dataset_info(repo).sha
    made = api.create_commit(
        repo,
        [add("data/train-0.parquet", data), add("notes.txt", b"hello"), add("README.md", b"---\nlicense: mit\n---\n")],
        commit_message="First shard",
        commit_description="One of many",
        repo_type="dataset",
        parent_commit=before,
    )
    assert server.files(repo) == {
        ".gitattributes": ATTRIBUTES,
        "data/train-0.parquet": data,
        "notes.txt": b"hello",
        "README.md": b"---\nlicense: mit\n---\n",
    }
    newest, initial = server.commits(repo)
    assert (newest.oid, newest.parent, newest.title) == (made.oid, initial.oid, "First shard")
    assert (newest.files["data/train-0.parquet"].lfs, newest.files["notes.txt"].lfs) == (True, False)

    info = api.dataset_info(repo, files_metadata=True)
    assert (info.sha, info.card_data.license) == (made.oid, "mit")
    sizes = {sibling.rfilename: (sibling.size, bool(sibling.lfs)) for sibling in info.siblings}
    assert sizes["data/train-0.parquet"] == (len(data), True)
    assert sizes["notes.txt"] == (5, False)
    assert api.dataset_info(repo, revision=before).sha == before
    assert [commit.title for commit in api.list_repo_commits(repo, repo_type="dataset")] == [
        "First shard",
        "initial commit",
    ]
    assert api.list_repo_refs(repo, repo_type="dataset").branches[0].target_commit == made.oid
    found = api.get_paths_info(repo, ["data", "data/train-0.parquet", "absent"], repo_type="dataset", expand=True)
    assert [type(entry) for entry in found] == [RepoFolder, RepoFile]
    assert found[1].lfs.sha256 == newest.files["data/train-0.parquet"].sha256
    assert found[1].last_commit.oid == made.oid


def test_tree_in_pages(server: HubServer, api: HfApi):
    paths = [f"data/part-{number}/{name}" for number in range(4) for name in ("a.parquet", "b.json")]
    server.add_files(REPO, {path: path.encode() for path in paths})
    server.settings.page_size = 3
    entries = list(api.list_repo_tree(REPO, repo_type="dataset", recursive=True, expand=True))
    assert [entry.path for entry in entries if isinstance(entry, RepoFile)] == [".gitattributes", *paths]
    folders = ["data", *(f"data/part-{number}" for number in range(4))]
    assert sorted(entry.path for entry in entries if isinstance(entry, RepoFolder)) == folders
    assert len([request for request in server.requests if "/tree/" in request.path]) == 5
    below = [entry.path for entry in api.list_repo_tree(REPO, "data/part-1", repo_type="dataset")]
    assert below == ["data/part-1/a.parquet", "data/part-1/b.json"]
    server.settings.page_size = 1
    assert len(api.list_repo_commits(REPO, repo_type="dataset")) == 2
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(REPO, "nowhere", repo_type="dataset"))


def test_stale_parent_and_unchanged_content(server: HubServer, api: HfApi, repo: str):
    first = api.dataset_info(repo).sha
    second = api.upload_file(
        path_or_fileobj=b"one", path_in_repo="a.txt", repo_id=repo, repo_type="dataset", parent_commit=first
    ).oid
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as refusal:
        api.create_commit(repo, [add("a.txt", b"two")], commit_message="late", repo_type="dataset", parent_commit=first)
    assert refusal.value.response.status_code == 412
    again = api.create_commit(
        repo, [add("a.txt", b"one")], commit_message="again", repo_type="dataset", parent_commit=first
    )
    assert again.oid == second
    assert len(server.commits(repo)) == 2


def test_deletion_copy_branch_and_tag(server: HubServer, api: HfApi, repo: str):
    operations = [add("data/a.parquet", shard(4)), add("data/b.json", b"{}"), add("old.txt", b"old")]
    api.create_commit(repo, operations, commit_message="all", repo_type="dataset")
    api.create_tag(repo, tag="v1", repo_type="dataset")
    api.create_branch(repo, branch="trial", repo_type="dataset")
    operations = [
        CommitOperationCopy("data/a.parquet", "kept.parquet"),
        CommitOperationDelete("data/"),
        CommitOperationDelete("old.txt"),
    ]
    api.create_commit(repo, operations, commit_message="move", repo_type="dataset", revision="trial")
    assert set(server.files(repo, "trial")) == {".gitattributes", "kept.parquet"}
    assert server.files(repo, "v1") == server.files(repo)
    with pytest.raises(EntryNotFoundError, match="doesn't exist"):
        api.delete_file("old.txt", repo, repo_type="dataset", revision="trial")


def test_preupload_then_commit(server: HubServer, api: HfApi, repo: str, tmp_path: Path):
    data = shard(50)
    local = tmp_path / "shard.parquet"
    local.write_bytes(data)
    operation = CommitOperationAdd("data/0.parquet", local)
    api.preupload_lfs_files(repo, [operation], repo_type="dataset")
    assert list(server.objects(repo).values()) == [data]
    assert "data/0.parquet" not in server.files(repo)
    api.create_commit(repo, [operation], commit_message="commit", repo_type="dataset")
    assert server.files(repo)["data/0.parquet"] == data
    api.create_commit(repo, [add("data/1.parquet", data)], commit_message="same", repo_type="dataset")
    puts = [request for request in server.requests if request.method == "PUT"]
    assert len(puts) == 1, "an object that is stored doesn't go up again"
    assert not puts[0].authorized


def test_upload_in_parts(server: HubServer, api: HfApi, repo: str):
    server.settings.multipart_bytes = 1000
    data = shard(500)
    api.upload_file(path_or_fileobj=data, path_in_repo="0.parquet", repo_id=repo, repo_type="dataset")
    assert server.files(repo)["0.parquet"] == data
    assert len([request for request in server.requests if request.method == "PUT"]) == -(-len(data) // 1000)


def test_signed_addresses_expire(server: HubServer, api: HfApi, repo: str):
    server.settings.signed_seconds = 0
    with pytest.raises(RuntimeError, match=r"0\.parquet") as failure:
        api.upload_file(path_or_fileobj=shard(5), path_in_repo="0.parquet", repo_id=repo, repo_type="dataset")
    assert "403" in str(failure.value.__cause__)
    assert not server.objects(repo)


@pytest.mark.parametrize("redirects", [True, False])
def test_download(server: HubServer, tmp_path: Path, redirects: bool):
    server.settings.redirects = redirects
    head = server.add_files(REPO, {"0.parquet": shard(100), "sub/notes é.txt": b"hello"})
    options = {"repo_type": "dataset", "endpoint": server.endpoint, "cache_dir": tmp_path, "token": server.token}
    for path, content in server.files(REPO).items():
        local = Path(hf_hub_download(REPO, path, **options))
        assert local.read_bytes() == content
        assert head.oid in local.parts
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(REPO, "absent", **options)
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download(REPO, "0.parquet", revision="absent", **options)
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("tester/absent", "0.parquet", **options)
    server.create_repository("tester/gated", repo_type="model", gated=True)
    with pytest.raises(GatedRepoError):
        hf_hub_download("tester/gated", "config.json", **{**options, "repo_type": "model"})
    stored = [request for request in server.requests if request.path.startswith("/storage/")]
    assert len(stored) == redirects
    assert not any(request.authorized for request in stored)


def test_ranges(server: HubServer):
    server.add_files(REPO, {"0.parquet": shard(20000)})
    content = server.files(REPO)["0.parquet"]
    files = HfFileSystem(endpoint=server.endpoint, token=server.token, skip_instance_cache=True)
    path = f"datasets/{REPO}/0.parquet"
    assert files.cat_file(path, start=1000, end=1100) == content[1000:1100]
    assert files.cat_file(path, start=-8) == content[-8:]
    server.clear_requests()
    with files.open(path, cache_type="none") as file:
        index = pq.ParquetFile(file).read_row_group(1, columns=["index"])
    assert index["index"].to_pylist() == list(range(5000, 10000))
    assert {request.status for request in server.requests if "range" in request.headers} == {302, 206}
    assert sum(request.sent for request in server.requests) < len(content) / 4


def test_model_repository(server: HubServer, tmp_path: Path):
    server.add_files("maker/model", {"config.json": b"{}", "model.safetensors": b"\0" * 64}, repo_type="model")
    api = HfApi(endpoint=server.endpoint, token=False)
    folder = Path(api.snapshot_download("maker/model", cache_dir=tmp_path))
    assert (folder / "model.safetensors").read_bytes() == b"\0" * 64
    assert api.model_info("maker/model").sha == server.commits("maker/model", repo_type="model")[0].oid


def test_readme_metadata(api: HfApi, repo: str):
    with pytest.raises(ValueError, match="Invalid metadata"):
        api.create_commit(repo, [add("README.md", b"---\na: [\n---\n")], commit_message="bad", repo_type="dataset")
    with pytest.warns(UserWarning, match="empty or missing yaml"):
        api.create_commit(repo, [add("README.md", b"# Title")], commit_message="bare", repo_type="dataset")


DATASETS_SCRIPT = """
import json, sys
from datasets import Dataset, load_dataset

streamed = [row["index"] for row in load_dataset("tester/logits", split="train", streaming=True)]
loaded = load_dataset("tester/logits", split="train")
Dataset.from_dict({"index": [1, 2, 3]}).push_to_hub("tester/pushed", private=True)
pushed = load_dataset("tester/pushed", split="train")["index"][:]
json.dump({"streamed": streamed, "loaded": loaded["index"][:], "text": loaded[7]["text"], "pushed": pushed}, sys.stdout)
"""


def test_datasets_library(server: HubServer, tmp_path: Path):
    shards = {f"data/train-{number:05d}.parquet": shard(20, 20 * number) for number in range(2)}
    server.add_files(REPO, {**shards, "README.md": b"---\nlicense: mit\n---\n"})
    done = subprocess.run(
        [sys.executable, "-c", DATASETS_SCRIPT],
        env=hub_environment(server, tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["streamed"] == seen["loaded"] == list(range(40))
    assert seen["text"].startswith("row 7 ")
    assert seen["pushed"] == [1, 2, 3]
    assert server.is_private("tester/pushed")
    assert all(request.status is not None and request.status < 500 for request in server.requests)
