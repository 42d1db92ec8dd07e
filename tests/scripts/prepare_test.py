"""Tests of the preparation scripts on small files in the real formats."""

import gzip
import importlib
import itertools
import json
import os
import pathlib
import sys
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

_FOLDER = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "prepare"
_NAMES = ("amazon", "frappe", "movielens_1m", "criteo", "avazu", "taobao_ad")


@pytest.fixture
def scripts(monkeypatch):
    """Imports the scripts as they import each other, by bare names."""
    monkeypatch.syspath_prepend(str(_FOLDER))
    yield importlib.import_module
    for name in ("streaming", "leave_one_out", "in_time_order", *_NAMES):
        sys.modules.pop(name, None)


def _rows(path):
    return pq.read_table(path).to_pylist()


_FRAPPE = (
    "label,user,item,daytime,weekday,isweekend,homework,cost,weather,country,city\r\n"
    "1,266,1244,5042,5049,5054,5055,5058,5062,5070,5152\r\n"
    "0,0,957,5039,5046,5053,5055,5058,5060,5069,5149\r\n"
)


def test_frappe_takes_the_zip_file(scripts, tmp_path):
    with zipfile.ZipFile(tmp_path / "Frappe_x1.zip", "w") as archive:
        for split in ("train", "valid", "test"):
            archive.writestr(f"Frappe_x1/{split}.csv", _FRAPPE)
    out = tmp_path / "frappe"
    scripts("frappe").make(tmp_path / "Frappe_x1.zip", out, check=False)
    rows = _rows(out / "valid.parquet")
    assert len(rows) == 2
    assert rows[0]["label"] == 1
    assert rows[0]["item"] == 1244
    assert rows[1]["city"] == 5149
    assert sorted(p.name for p in out.iterdir()) == [
        "test.parquet",
        "train.parquet",
        "valid.parquet",
    ]


def test_frappe_says_that_a_file_is_not_the_published_one(scripts, tmp_path):
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.csv").write_text(_FRAPPE, newline="")
    with pytest.raises(SystemExit, match=r"MD5 sum \w+, not the published ba7306e6"):
        scripts("frappe").make(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_frappe_takes_libfm_files(scripts, tmp_path):
    ids = [266, 1244, 5042, 5049, 5054, 5055, 5058, 5062, 5070, 5152]
    line = " ".join(f"{id_}:1" for id_ in ids)
    for name in ("train", "validation", "test"):
        text = f"1 {line}\n-1 {line}\n"
        (tmp_path / f"frappe.{name}.libfm").write_text(text)
    scripts("frappe").make(tmp_path, tmp_path / "out")
    rows = _rows(tmp_path / "out" / "train.parquet")
    assert [row["label"] for row in rows] == [1, 0]
    assert list(rows[0].values()) == [1, *ids]


def test_frappe_rejects_a_short_libfm_row(scripts, tmp_path):
    (tmp_path / "frappe.train.libfm").write_text("1 2:1\n")
    with pytest.raises(ValueError, match=r"must have 10 ids\. Received: '1 2:1"):
        scripts("frappe").make(tmp_path, tmp_path / "out")


def test_movielens_joins_users_and_movies(scripts, tmp_path):
    source = tmp_path / "ml-1m.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("ml-1m/users.dat", "1::F::1::10::48067\n2::M::56::16::70072\n")
        archive.writestr(
            "ml-1m/movies.dat",
            "73::Misérables, Les (1995)::Drama|Musical\n".encode("latin-1"),
        )
        archive.writestr("ml-1m/ratings.dat", "2::73::4::978300760\n1::73::5::1\n")
    scripts("movielens_1m").make(source, tmp_path / "out", check=False)
    assert _rows(tmp_path / "out" / "ratings.parquet") == [
        {
            "user": 2,
            "movie": 73,
            "rating": 4,
            "timestamp": 978300760,
            "gender": "M",
            "age": 56,
            "occupation": 16,
            "zip_code": "70072",
            "title": "Misérables, Les (1995)",
            "genres": ["Drama", "Musical"],
        },
        {
            "user": 1,
            "movie": 73,
            "rating": 5,
            "timestamp": 1,
            "gender": "F",
            "age": 1,
            "occupation": 10,
            "zip_code": "48067",
            "title": "Misérables, Les (1995)",
            "genres": ["Drama", "Musical"],
        },
    ]


def _movielens(path, ratings):
    """Writes a zip file of ratings `(user, movie, rating, time)`."""
    with zipfile.ZipFile(path, "w") as archive:
        users = [f"{u}::F::1::10::48067" for u in range(1, 4)]
        movies = [f"{m}::Film::Drama" for m in range(1, 300)]
        lines = ["::".join(map(str, rating)) for rating in ratings]
        for name, rows in (("users", users), ("movies", movies), ("ratings", lines)):
            archive.writestr(f"ml-1m/{name}.dat", "\n".join(rows) + "\n")
    return path


# Films are numbered 30, 10, 20, ... in order of appearance, and users 1, 2, 3.
_RATINGS = [
    (1, 30, 5, 70), (1, 10, 3, 90), (1, 20, 4, 90), (2, 20, 1, 60), (2, 30, 2, 50),
    *((3, movie, 3, movie) for movie in range(40, 240)),
]  # fmt: skip


def test_movielens_holds_out_the_last_rating_of_each_user(scripts, tmp_path):
    source = _movielens(tmp_path / "ml-1m.zip", _RATINGS)
    scripts("movielens_1m").make(source, tmp_path / "out", check=False)
    train = _rows(tmp_path / "out" / "train.parquet")
    test = _rows(tmp_path / "out" / "test.parquet")
    assert len(train) == len(_RATINGS) - 3
    assert train[:3] == [
        {"user": 0, "item": 0, "rating": 5},
        {"user": 0, "item": 1, "rating": 3},
        {"user": 1, "item": 0, "rating": 2},
    ]
    held_out = [(row["user"], row["item"]) for row in test if row["label"]]
    assert held_out == [(0, 2), (1, 2), (2, 202)]
    ranked = {u: [r["item"] for r in test if r["user"] == u] for u in range(3)}
    for user in (0, 1):
        assert len(set(ranked[user])) == len(ranked[user]) == 100
        assert set(ranked[user]) <= set(range(203))
    assert not {0, 1} & set(ranked[0])  # Films 30 and 10, which user 1 has rated.
    assert 0 not in ranked[1]
    assert sorted(ranked[2]) == [0, 1, 2, 202]  # All that user 3 has not rated.


def test_movielens_holds_out_once_more_for_tuning(scripts, tmp_path):
    source = _movielens(tmp_path / "ml-1m.zip", [*_RATINGS[:5], (3, 10, 1, 1)])
    scripts("movielens_1m").make(source, tmp_path / "out", check=False)
    # Users 0 and 1 have one rating less than in train; user 2 had only one.
    train = _rows(tmp_path / "out" / "tuning" / "train.parquet")
    assert train == [{"user": 0, "item": 0, "rating": 5}]
    test = _rows(tmp_path / "out" / "tuning" / "test.parquet")
    assert [(row["user"], row["item"]) for row in test if row["label"]] == [
        (0, 1),
        (1, 0),
    ]


def test_movielens_takes_the_published_negatives(scripts, tmp_path):
    source = _movielens(tmp_path / "ml-1m.zip", _RATINGS[:5])
    negatives = tmp_path / "ml-1m.test.negative"
    negatives.write_text("(0,1)\t7\t9\t7\n(1,0)\t0\t3\n")
    scripts("movielens_1m").make(source, tmp_path / "out", negatives, check=False)
    rows = [tuple(row.values()) for row in _rows(tmp_path / "out" / "test.parquet")]
    # 7 occurs once; 0, for the user whose held-out item it is, only as such.
    assert rows == [(0, 1, 1), (0, 7, 0), (0, 9, 0), (1, 0, 1), (1, 3, 0)]
    train = _rows(tmp_path / "out" / "train.parquet")
    assert [tuple(row.values()) for row in train] == [(0, 0, 5), (0, 2, 4), (1, 2, 1)]


def test_movielens_splits_each_users_ratings_by_time(scripts, tmp_path):
    # User 1 rates 101 to 130, the last ones first; user 2 five films at one time.
    ratings = [(1, 131 - n, 4, 1000 - n) for n in range(1, 31)]
    ratings += [(2, movie, 1, 7) for movie in (9, 5, 8, 6, 7)]
    source = _movielens(tmp_path / "ml-1m.zip", ratings)
    scripts("movielens_1m").make(source, tmp_path / "out", check=False)
    splits = {
        split: _rows(tmp_path / "out" / "by_time" / f"{split}.parquet")
        for split in ("train", "valid", "test")
    }
    assert {
        split: [(row["user"], row["movie"]) for row in rows]
        for split, rows in splits.items()
    } == {
        # 24, 3 and 3 of 30; 4 of 5, whose valid split ends at 4.5 and so is empty.
        "train": [(1, movie) for movie in range(101, 125)]
        + [(2, movie) for movie in (9, 5, 8, 6)],
        "valid": [(1, 125), (1, 126), (1, 127)],
        "test": [(1, 128), (1, 129), (1, 130), (2, 7)],
    }
    assert [row["history"] for row in splits["train"][:3]] == [[], [101], [101, 102]]
    assert splits["train"][22]["history"] == [*range(103, 123)]
    assert splits["test"][-1]["history"] == [9, 5, 8, 6]
    row = splits["test"][-1]
    assert (row["rating"], row["gender"], row["genres"]) == (1, "F", ["Drama"])
    # `printf 2 | md5sum` and `printf 7 | md5sum`, modulo the numbers of buckets.
    assert row["user_folded"] == 0xC81E728D9D4C2F636F067F89CC14862C % 36_000
    assert row["movie_folded"] == 0x8F14E45FCEEA167A5A36DEDD4BEA2543 % 60_000


@pytest.mark.slow
def test_the_true_ratings_are_split_by_time_and_folded_as_the_paper_does(
    scripts, tmp_path
):
    data = pathlib.Path(os.environ.get("MONOLITH_TF_TEST_DATA", "")) / "ml1m"
    if "MONOLITH_TF_TEST_DATA" not in os.environ or not data.exists():
        pytest.skip("MONOLITH_TF_TEST_DATA names no folder with ml1m")
    given = pq.read_table(data / "ratings.parquet").to_pydict().values()
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w") as archive:
        for name in ("users.dat", "movies.dat"):
            archive.write(data / name, f"ml-1m/{name}")
        lines = ("::".join(map(str, row)) for row in zip(*given, strict=True))
        archive.writestr("ml-1m/ratings.dat", "\n".join(lines) + "\n")
    scripts("movielens_1m").make(tmp_path / "ml-1m.zip", tmp_path / "out", check=False)
    tables = [
        pq.read_table(tmp_path / "out" / "by_time" / f"{split}.parquet")
        for split in ("train", "valid", "test")
    ]
    rows = pa.concat_tables(tables)
    assert len(rows) == 1_000_209
    for earlier, later in itertools.pairwise(tables):
        last = dict(
            zip(
                earlier["user"].to_pylist(),
                earlier["timestamp"].to_pylist(),
                strict=True,
            )
        )
        for user, time in zip(
            later["user"].to_pylist(), later["timestamp"].to_pylist(), strict=True
        ):
            assert last[user] < time
    # In the paper 162,541 users become 149,970 and 59,047 movies 57,361.
    for name, share in (("user", 149_970 / 162_541), ("movie", 57_361 / 59_047)):
        left = len(rows[f"{name}_folded"].unique()) / len(rows[name].unique())
        assert left == pytest.approx(share, abs=0.001)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(0,1)\t7\n1,0 3\n", r"negative:2: a line must be `\(user,item\)`.*'1,0 3"),
        ("(0,77)\t7\n", "1 items, 0 of them among the ratings"),
    ],
)
def test_movielens_refuses_other_negatives(scripts, tmp_path, text, message):
    source = _movielens(tmp_path / "ml-1m.zip", _RATINGS[:5])
    negatives = tmp_path / "ml-1m.test.negative"
    negatives.write_text(text)
    with pytest.raises(ValueError, match=message):
        scripts("movielens_1m").make(source, tmp_path / "out", negatives, check=False)


def test_movielens_checks_the_published_sum(scripts, tmp_path):
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w") as archive:
        archive.writestr("ml-1m/users.dat", "")
    with pytest.raises(SystemExit, match="not the published c4d9eecf"):
        scripts("movielens_1m").make(tmp_path / "ml-1m.zip", tmp_path / "out")


def test_another_zip_file_is_told_apart(scripts, tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(SystemExit, match=r"other\.zip has no users\.dat"):
        scripts("movielens_1m").make(
            tmp_path / "other.zip", tmp_path / "out", check=False
        )


def _amazon(folder, reviews):
    """Writes reviews and metadata in the form of Amazon's files."""
    with gzip.open(folder / "reviews_Beauty_5.json.gz", "wt") as file:
        for user, item, time in reviews:
            review = {"reviewerID": user, "asin": item, "reviewerName": 'A "B"'}
            review |= {"helpful": [1, 2], "overall": 5.0, "unixReviewTime": time}
            file.write(json.dumps(review) + "\n")
    # The metadata are not JSON: quotes are single unless there is one inside.
    with gzip.open(folder / "meta_Beauty.json.gz", "wt") as file:
        file.write(
            "{'asin': 'b', 'title': \"Men's\", 'categories': "
            "[['Beauty', 'Hair'], ['Beauty', 'Skin', 'Face']]}\n"
            "{'asin': 'c', 'categories': [['Beauty', 'Hair']]}\n"
            "{'asin': 'other', 'categories': [['Beauty', 'Nails']]}\n"
            "{'asin': 'd', 'price': 1.5}\n"
        )
    return folder / "reviews_Beauty_5.json.gz", folder / "meta_Beauty.json.gz"


def test_amazon_predicts_each_step_from_those_before(scripts, tmp_path):
    reviews = [("U", "a", 30), ("U", "b", 10), ("U", "c", 20), ("V", "d", 5)]
    out = tmp_path / "out"
    scripts("amazon").make(*_amazon(tmp_path, reviews), out, seed=1)
    # U's steps are b, c, a: items 2, 3, 1 of categories 1 (Face), 2 (Hair) and none. V
    # has one step, without any before it.
    shared = {"user": 1, "item_history": [2], "category_history": [1]}
    (step,) = _rows(out / "train.parquet")
    assert step == {"item": 3, "category": 2, **shared}
    # The only item that U never reviewed is d.
    drawn = {"item": 4, "category": 0, **shared, "label": 0}
    assert _rows(out / "drawn_once.parquet") == [{**step, "label": 1}, drawn]
    positive, negative = _rows(out / "test.parquet")
    shared = {"user": 1, "item_history": [2, 3], "category_history": [1, 2]}
    assert positive == {"label": 1, "item": 1, "category": 0, **shared}
    assert negative == {"label": 0, "item": 4, "category": 0, **shared}


def test_amazon_holds_out_one_step_more_for_tuning(scripts, tmp_path):
    reviews = [("U", item, time) for time, item in enumerate("abcd")]
    reviews += [("V", "e", 1), ("V", "f", 2)]
    out = tmp_path / "out"
    scripts("amazon").make(*_amazon(tmp_path, reviews), out, seed=1)
    train = _rows(out / "train.parquet")
    assert [row["item_history"] for row in train] == [[1], [1, 2]]
    assert _rows(out / "tuning" / "train.parquet") == train[:1]
    positive, negative = _rows(out / "tuning" / "test.parquet")
    assert positive == {"label": 1, **train[1]}
    assert negative["label"] == 0
    assert negative["item"] in {4, 5, 6}
    assert negative["item_history"] == [1, 2]


def test_a_file_has_its_name_once_it_is_whole(scripts, tmp_path):
    splits = scripts("streaming").Splits(tmp_path, {"train": 1.0})
    splits.write(pa.RecordBatch.from_pydict({"user": [1, 2]}))
    assert [path.name for path in tmp_path.iterdir()] == ["train.parquet.partial"]
    splits.close()
    assert [path.name for path in tmp_path.iterdir()] == ["train.parquet"]
    assert _rows(tmp_path / "train.parquet") == [{"user": 1}, {"user": 2}]


def test_amazon_keeps_the_latest_steps_and_the_files_order_of_equal_times(
    scripts, tmp_path
):
    reviews = [("U", f"i{n}", 7) for n in range(60)] + [("V", "j", 7)]
    out = tmp_path / "out"
    scripts("amazon").make(*_amazon(tmp_path, reviews), out, seed=1)
    rows = _rows(out / "test.parquet")
    assert rows[0]["item"] == 60
    assert rows[0]["item_history"] == [*range(10, 60)]
    assert rows[1]["item"] == 61


def test_amazon_says_that_no_negative_is_left(scripts, tmp_path):
    files = _amazon(tmp_path, [("U", "a", 1), ("U", "b", 2)])
    with pytest.raises(ValueError, match="A user has reviewed all 2 items"):
        scripts("amazon").make(*files, tmp_path / "out", seed=1)


def _criteo_line(number):
    counts = [str(number), "", "-1", *["3"] * 10]
    categories = ["68fd1e64", "", *["80e26c9b"] * 24]
    return "\t".join([str(number % 2), *counts, *categories])


def test_criteo_keeps_every_row_once_and_missing_values(scripts, tmp_path):
    lines = [_criteo_line(number) for number in range(200)]
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    shares = scripts("streaming").shares([0.5, 0.25, 0.25])
    for run in ("a", "b"):
        scripts("criteo").make(tmp_path / "train.txt", tmp_path / run, shares, seed=3)
    rows = {
        split: _rows(tmp_path / "a" / f"{split}.parquet")
        for split in ("train", "valid", "test")
    }
    assert sorted(row["I1"] for part in rows.values() for row in part) == [*range(200)]
    assert 75 < len(rows["train"]) < 125
    first = rows["train"][0]
    assert first["I2"] is None
    assert first["I3"] == -1
    assert first["C1"] == "68fd1e64"
    assert first["C2"] is None
    assert len(first) == 40
    assert _rows(tmp_path / "b" / "train.parquet") == rows["train"]


def test_shares_must_sum_to_one(scripts):
    with pytest.raises(SystemExit, match=r"sum to 1, not \[0\.5"):
        scripts("streaming").shares([0.5, 0.2, 0.2])


_AVAZU = """\
id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,\
app_category,device_id,device_ip,device_model,device_type,device_conn_type,C14,C15,\
C16,C17,C18,C19,C20,C21
1000009418151094273,0,14102100,1005,0,1fbe01fe,f3845767,28905ebd,ecad2386,7801e8d9,\
07d7df22,a99f214a,ddd2926e,44956a24,1,2,15706,320,50,1722,0,35,-1,79
10000169349117863715,1,14102523,1005,0,1fbe01fe,f3845767,28905ebd,ecad2386,7801e8d9,\
07d7df22,a99f214a,96809ac8,711ee120,1,0,15704,320,50,1722,0,35,100084,79
"""


def test_avazu_reads_packed_files_and_takes_the_hour_apart(scripts, tmp_path):
    with gzip.open(tmp_path / "train.gz", "wt") as file:
        file.write(_AVAZU)
    shares = scripts("streaming").shares([1.0, 0.0, 0.0])
    scripts("avazu").make(tmp_path / "train.gz", tmp_path / "out", shares, seed=0)
    first, second = _rows(tmp_path / "out" / "train.parquet")
    # 21 October 2014 was a Tuesday, the 25th a Saturday.
    assert (first["hour"], first["weekday"], first["is_weekend"]) == (0, 1, 0)
    assert (second["hour"], second["weekday"], second["is_weekend"]) == (23, 5, 1)
    assert first["device_model"] == "44956a24"
    assert first["C20"] == -1
    assert (first["click"], second["click"]) == (0, 1)
    assert "id" not in first
    assert not (tmp_path / "out" / "valid.parquet").exists()


_BEFORE, _AFTER = 1_494_604_799, 1_494_604_800  # Around 13 May 2017, 0:00, Beijing.


def _taobao(folder):
    """Writes small files in the real formats; returns two of their paths."""
    (folder / "raw_sample.csv").write_text(
        "user,time_stamp,adgroup_id,pid,nonclk,clk\n"
        f"581738,{_BEFORE},1,430548_1007,1,0\n"
        f"7,{_AFTER},63133,430539_1007,0,1\n"
    )
    (folder / "ad_feature.csv").write_text(
        "adgroup_id,cate_id,campaign_id,customer,brand,price\n"
        "63133,6406,83237,1,95471,170.0\n"
        "1,9025,8,2,NULL,99.5\n"
    )
    # In the real file a space follows the last name.
    (folder / "user_profile.csv").write_text(
        "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,"
        "shopping_level,occupation,new_user_class_level \n"
        "581738,0,5,2,5,,3,0,3\n"
    )
    log = [(7, _AFTER - n, "pv", n, 1000 + n) for n in range(60)]
    log += [(581738, 5, "buy", 4, 8), (581738, 2, "cart", 3, 9), (71, 1, "fav", 1, 1)]
    lines = ["user,time_stamp,btag,cate,brand", *(",".join(map(str, r)) for r in log)]
    (folder / "behavior_log.csv").write_text("\n".join(lines) + "\n")
    return folder / "raw_sample.csv", folder / "behavior_log.csv"


def test_taobao_joins_ads_and_users_and_splits_by_day(scripts, tmp_path):
    source, _ = _taobao(tmp_path)
    scripts("taobao_ad").make(source, tmp_path / "out")
    (train,), (test,) = (
        _rows(tmp_path / "out" / f"{name}.parquet") for name in ("train", "test")
    )
    assert train == {
        "user": 581738, "time_stamp": _BEFORE, "adgroup_id": 1, "pid": "430548_1007",
        "clk": 0, "cate_id": 9025, "campaign_id": 8, "customer": 2, "brand": None,
        "price": 99.5, "cms_segid": 0, "cms_group_id": 5, "final_gender_code": 2,
        "age_level": 5, "pvalue_level": None, "shopping_level": 3, "occupation": 0,
        "new_user_class_level": 3,
    }  # fmt: skip
    assert (test["clk"], test["brand"], test["price"]) == (1, 95471, 170.0)
    assert test["age_level"] is None  # Nothing is known of user 7.


def test_taobao_gives_the_behaviors_before_a_row(scripts, tmp_path):
    source, behaviors = _taobao(tmp_path)
    scripts("taobao_ad").make(source, tmp_path / "out", behaviors)
    (train,), (test,) = (
        _rows(tmp_path / "out" / f"{name}.parquet") for name in ("train", "test")
    )
    assert train["cate_history"] == [3, 4]
    assert train["brand_history"] == [9, 8]
    assert train["btag_history"] == ["cart", "buy"]
    # The one in the row's own second is not before it; the last 50 others are.
    assert test["cate_history"] == [*range(50, 0, -1)]
    assert train["new_user_class_level"] == 3
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "test.parquet",
        "train.parquet",
    ]


def test_taobao_says_that_a_file_is_another_one(scripts, tmp_path):
    _, behaviors = _taobao(tmp_path)
    with pytest.raises(SystemExit, match=r"behavior_log\.csv:1: .*Received: user,time"):
        scripts("taobao_ad").make(behaviors, tmp_path / "out")
    assert not (tmp_path / "out" / "train.parquet").exists()


@pytest.mark.parametrize("name", _NAMES)
def test_each_script_explains_itself(scripts, name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as exit_:
        scripts(name).main()
    assert exit_.value.code == 0
    assert "--output" in capsys.readouterr().out
