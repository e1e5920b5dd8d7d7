"""The server behind the demo page: what it takes, what it gives, what it refuses, and that it goes on."""

from __future__ import annotations

import io
import json
import resource
import socket
import zipfile

import pytest

from mmseg.apis.demo.choices import Choices
from mmseg.apis.demo.server import DemoServer, DemoSettings
from mmseg.apis.demo.videos import harmless
from mmseg.errors import ConfigError
from tests.apis.demo_server import CONFIG, OTHER, ROOT, Client, running, write_choices, write_sound, write_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def choices(folder):
    return write_choices(folder)


@pytest.fixture(scope="module")
def client(choices):
    with running(choices, max_upload=200_000, keep=3) as server:
        yield Client(server)


@pytest.fixture(scope="module")
def video(folder):
    return write_video(folder / "a square.mp4")


def test_from_an_upload_to_the_files(client, video):
    state = client.ask("GET", "/api/state")
    assert state["configs"] == ["gsfm.py", CONFIG] and state["checkpoints"] == ["damaged.pth", OTHER, "tiny.pth"]
    asked = json.dumps({"config": CONFIG, "checkpoint": "tiny.pth"}).encode()
    about = client.ask("POST", "/api/describe", asked)
    assert (about["classes"], about["objects"], about["flow"]) == (3, False, False)
    taken = client.upload(video, "../../a square<b>.mp4")
    assert taken["name"] == "a_square_b" and (taken["width"], taken["height"]) == (70, 44)
    assert (taken["fps"], taken["length"], taken["marked"]) == (10, 6, False)
    assert client.raw("GET", f"/api/videos/{taken['key']}/first.png")[2].startswith(b"\x89PNG")
    job = client.wait(client.submit(taken, CONFIG, "tiny.pth"))
    assert job["state"] == "done" and job["done"] == job["total"] == 6, job
    assert list(job["files"]) == ["a_square_b_overlay.mp4", "a_square_b.json", "a_square_b_results.zip"]
    files = f"/api/jobs/{job['key']}/files"
    status, headers, film = client.raw("GET", f"{files}/a_square_b_overlay.mp4")
    assert status == 200 and headers["Content-Type"] == "video/mp4"
    assert len(film) == job["files"]["a_square_b_overlay.mp4"]
    for asked, part in (("bytes=0-9", film[:10]), ("bytes=-5", film[-5:]), ("bytes=7-", film[7:]), ("bytes=9-2", film)):
        status, headers, content = client.raw("GET", f"{files}/a_square_b_overlay.mp4", Range=asked)
        assert content == part and status == (200 if part == film else 206)
    _, headers, archive = client.raw("GET", f"{files}/a_square_b_results.zip?download")
    assert headers["Content-Disposition"] == 'attachment; filename="a_square_b_results.zip"'
    names = zipfile.ZipFile(io.BytesIO(archive)).namelist()
    assert sum(name.startswith("a_square_b/labels/") for name in names) == 6 and "a_square_b/run.json" in names


def test_files_that_are_no_videos(client, folder, video):
    (folder / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    write_sound(folder / "sound.mp4")
    (folder / "cut.mp4").write_bytes(video.read_bytes()[:300])
    before = set((client.server.folder / "videos").iterdir())
    for name, message in (
        ("list.mp4", "no video, but a text"),
        ("empty.mp4", "an empty file"),
        ("noise.mp4", "noise.mp4"),
        ("cut.mp4", "cut.mp4"),
        ("sound.mp4", "no video|sound"),
    ):
        refused = client.upload(folder / name, status=400)
        assert any(part in refused["found"] for part in message.split("|")), refused
        assert refused["expected"] and str(client.server.folder) not in json.dumps(refused)
    for name in ("list.txt", "page.html", "noise", ".mp4"):
        assert "no video by its name" in client.upload(video, name, status=400)["found"]
    (folder / "large.mp4").write_bytes(bytes(200_001))
    refused = client.upload(folder / "large.mp4", status=400)
    assert "MB" in refused["found"] and "--max-upload" in refused["action"]
    assert set((client.server.folder / "videos").iterdir()) == before


def test_an_upload_that_is_broken_off_leaves_nothing(client):
    before = set((client.server.folder / "videos").iterdir())
    with socket.create_connection(client.server.server_address[:2]) as connection:
        head = b"POST /api/videos?name=a.mp4 HTTP/1.1\r\nHost: localhost\r\nX-Requested-With: mmseg-demo\r\n"
        connection.sendall(head + b"Content-Length: 1000\r\n\r\n" + bytes(10))
        connection.shutdown(socket.SHUT_WR)
        assert b"10 of 1000 bytes came" in connection.makefile("rb").read()
    assert set((client.server.folder / "videos").iterdir()) == before


def test_what_other_pages_and_strangers_try(client, video):
    taken = client.upload(video)
    for path in ("/../../etc/passwd", "/page.html", "/api/videos/../first.png", f"/api/videos/{taken['key']}/../x"):
        assert client.raw("GET", path)[0] in (400, 404)
    status, headers, content = client.raw("GET", "/api/state", Host="evil.example:80")
    assert status == 400 and b"127.0.0.1" in content
    assert client.raw("POST", "/api/sample", X_Requested_With="")[0] == 400
    assert "default-src 'self'" in headers["Content-Security-Policy"] and headers["X-Content-Type-Options"] == "nosniff"
    for config, checkpoint in (("../secret.py", "none"), ("/etc/passwd", "none"), (CONFIG, "../../tiny.pth")):
        assert "in the list" in client.submit(taken, config, checkpoint, status=400)["expected"]
    assert "not there any more" in client.submit({"key": "guessed"}, CONFIG, "none", status=400)["found"]
    assert client.raw("GET", "//[::1")[0] == 404
    assert client.raw("POST", "/api/videos?name=a.mp4", Content_Length="9" * 5000)[0] == 400
    query = f"video={taken['key']}&config={CONFIG}&checkpoint=tiny.pth&opacity=nan"
    assert "a number from 0 to 1" in client.ask("POST", f"/api/jobs?{query}", status=400)["expected"]
    assert client.raw("GET", "/")[0] == 200


def test_a_failing_job_says_why_and_the_next_one_runs(client, folder, video):
    taken = client.upload(video)
    for checkpoint in (OTHER, "damaged.pth"):
        job = client.wait(client.submit(taken, CONFIG, checkpoint))
        assert job["state"] == "failed" and checkpoint in job["error"]["found"] and job["error"]["action"], job
        assert not job["files"] and str(folder) not in json.dumps(job)
    assert "no checkpoint" in client.submit(taken, "inside", "none", status=400)["found"]
    for config, checkpoint in (
        ("inside", "none"),
        ("inside", "damaged.pth"),
        ("gone.py", "none"),
        (CONFIG, "gone.pth"),
    ):
        asked = json.dumps({"config": config, "checkpoint": checkpoint}).encode()
        error = client.ask("POST", "/api/describe", asked)["error"]
        assert "choose" in error["action"] and str(folder) not in json.dumps(error)
    assert client.wait(client.submit(taken, CONFIG, "tiny.pth"))["state"] == "done"


def test_a_full_disk_is_told_without_the_place(client, folder, caplog):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    taken = client.upload(write_video(folder / "twelve.mp4", frames=12))
    (folder / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        refused = client.upload(folder / "noise.mp4", status=400)
        job = client.wait(client.submit(taken, CONFIG, "tiny.pth"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for error in (refused, job["error"]):
        assert "cannot be written" in error["found"] and str(client.server.folder) not in json.dumps(error)
    assert caplog.text.count(str(client.server.folder)) >= 2
    assert not list((client.server.folder / "results").glob(job["key"]))


def test_a_queue(choices, folder):
    long = write_video(folder / "long.mp4", frames=200)
    with running(choices) as server:
        client = Client(server)
        taken = client.upload(long)
        jobs = [client.submit(taken, CONFIG, "tiny.pth") for _ in range(3)]
        client.wait(jobs[0], "running", "done")
        assert client.ask("GET", f"/api/jobs/{jobs[2]['key']}")["before"] == 2
        for job in (jobs[1], jobs[0]):  # one that waits, one in the middle
            client.ask("POST", f"/api/jobs/{job['key']}/cancel")
        assert [client.wait(job)["state"] for job in jobs[:2]] == ["cancelled", "cancelled"]
        assert not list((server.folder / "results" / jobs[0]["key"]).glob("*/*"))
        client.wait(jobs[2], "running")  # and is left in its middle when the server ends


def test_old_videos_make_room(client, video):
    first = client.upload(video)
    for _ in range(3):
        last = client.upload(video)
    assert client.raw("GET", f"/api/videos/{first['key']}/first.png")[0] == 400
    assert client.raw("GET", f"/api/videos/{last['key']}/first.png")[0] == 200
    assert len(list((client.server.folder / "videos").iterdir())) == 3


def test_objects_need_marks_of_the_size_of_the_frame(client, video):
    taken = client.upload(video)
    for mask, message in (
        (bytes(70 * 44), "no object is marked"),
        (bytes(5), "a mask of 5 pixels"),
        (b"", "of 0 pixels"),
    ):
        assert message in client.submit(taken, "gsfm.py", "none", mask, status=400)["found"]


def test_configs_for_videos_that_nobody_has_seen():
    toy = Choices([ROOT / "local_configs/toy"], [])
    assert toy.config("cffm_fine_w_proto.b0.py", "none").model.decode_head.prototypes == "auto"
    assert "prototypes" not in toy.config("cffm.b0.py", "none").model.decode_head
    with pytest.raises(ConfigError, match=r"gsfm_stage0.*for a training alone"):
        toy.config("gsfm_stage0.py", "none")
    with pytest.raises(ConfigError, match=r"gene_prototype.*labels none"):
        toy.config("cffm_gene_prototype.b0.py", "none")
    assert toy.describe("hfan.b0.py", "none") == {"model": "HFAN", "classes": 2, "objects": False, "flow": True}


def test_a_port_that_is_taken(client, choices):
    with pytest.raises(ConfigError, match=r"(?s)--port.*another address or port"):
        DemoServer(choices, DemoSettings(port=client.server.server_address[1]))


def test_names_that_mean_a_place():
    assert harmless("../../etc/pass wd.mp4") == "pass_wd" and harmless("C:\\x\\a<b>.mp4") == "a_b"
    assert harmless("...mp4") == "video" and harmless("日本.mp4") == "video" and len(harmless("x" * 300 + ".mp4")) == 60
