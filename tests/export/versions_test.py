import os
import threading
import time

from monolith_tf.export import versions


def _write(folder):
    path = versions.make_temporary(folder)
    (path / "variables").mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(b"x")
    return path


def test_a_version_appears_whole(tmp_path):
    folder = tmp_path / "a" / "b"
    temporary = _write(folder)
    assert versions.versions(folder) == []
    before = int(time.time())
    path = versions.publish(temporary, keep=2)
    assert before <= int(path.name) <= time.time()
    assert not temporary.exists()
    assert sorted(p.name for p in path.iterdir()) == ["saved_model.pb", "variables"]


def test_a_version_is_newer_than_all_others(tmp_path):
    (tmp_path / "99999999999").mkdir()
    assert versions.publish(_write(tmp_path), keep=5).name == "100000000000"


def test_exports_at_once_get_versions_of_their_own(tmp_path):
    temporaries = [_write(tmp_path) for _ in range(4)]
    threads = [
        threading.Thread(target=versions.publish, args=(path, 5))
        for path in temporaries
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(versions.versions(tmp_path)) == 4
    assert not any(path.exists() for path in temporaries)


def test_what_a_killed_export_left_is_removed_after_a_day(tmp_path):
    old, young = _write(tmp_path), _write(tmp_path)
    long_ago = time.time() - 100_000
    os.utime(old, (long_ago, long_ago))
    versions.make_temporary(tmp_path)
    assert not old.exists()
    assert young.exists()


def test_no_folder_has_no_versions(tmp_path):
    assert versions.versions(tmp_path / "x") == []


def test_versions_are_found_as_a_model_server_finds_them(tmp_path):
    for name in ("00000123", "7", "\u00b2", "-1", "v8", "1.5", str(1 << 63)):
        (tmp_path / name).mkdir()
    (tmp_path / "200").write_text("a file")
    assert versions.versions(tmp_path) == [7, 123]
    assert versions.folders(tmp_path)[123].name == "00000123"


def test_old_versions_go_whatever_their_zeros(tmp_path):
    for name in ("0001", "2"):
        (tmp_path / name).mkdir()
    path = versions.publish(_write(tmp_path), keep=1)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
