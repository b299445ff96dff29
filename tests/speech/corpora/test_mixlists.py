"""Mix lists: the published format, equal use, different speakers, the same for the same seed."""

from collections import Counter
from pathlib import Path

import pytest

from sepml.errors import SepmlError
from sepml.speech.corpora.corpus_folder import SpeakerRow, UtteranceRow, write_tables
from sepml.speech.corpora.draw_mix_lists import LISTS, ListSizes, draw_mix_list, mix_lists_of
from sepml.speech.mixing.mixlist import MixLine, read_mix_list


def corpus(*counts: int) -> dict[str, list[str]]:
    return {f"s{k}": [f"s{k}/s{k}-{i:04d}.wav" for i in range(count)] for k, count in enumerate(counts)}


def parse(lines: list[str], folder: Path) -> list[MixLine]:
    path = folder / "mix_2_spk_tr.txt"
    path.write_text("".join(line + "\n" for line in lines))
    return read_mix_list(path)


def speakers_of(line: str) -> list[str]:
    return [path.split("/")[0] for path in line.split()[0::2]]


@pytest.mark.parametrize("n_src", [2, 3, 4])
@pytest.mark.parametrize("counts", [(20, 20, 20, 20), (5, 30, 11, 7, 19), (1, 1, 1, 1)])
def test_a_speaker_never_meets_itself_and_the_format_is_read_back(counts: tuple[int, ...], n_src: int, tmp_path: Path) -> None:
    lines = draw_mix_list(corpus(*counts), 101, seed=3, n_src=n_src)
    assert len(lines) == 101
    assert all(len(set(speakers_of(line))) == n_src for line in lines)
    parsed = parse(lines, tmp_path)
    assert len({line.id for line in parsed}) == 101
    for line in parsed:
        assert 0 <= line.gains[0] <= 2.5
        assert line.gains[1] == -line.gains[0]
        assert n_src != 3 or line.gains[2] == 0


@pytest.mark.parametrize(("counts", "n"), [((20, 20, 20), 45), ((30, 20, 25), 200), ((4, 5, 6), 3), ((7, 7), 100)])
def test_utterances_are_used_equally(counts: tuple[int, ...], n: int) -> None:
    utterances = corpus(*counts)
    used = Counter(path for line in draw_mix_list(utterances, n, seed=0) for path in line.split()[0::2])
    uses = [used[path] for paths in utterances.values() for path in paths]
    assert sum(uses) == 2 * n
    assert max(uses) - min(uses) <= 1


def test_a_speaker_with_most_of_the_utterances_is_in_every_mixture_and_the_rest_is_even() -> None:
    utterances = corpus(100, 5, 6)
    lines = draw_mix_list(utterances, 60, seed=0)
    assert all("s0" in speakers_of(line) for line in lines)
    used = Counter(path for line in lines for path in line.split()[0::2])
    for group in (utterances["s0"], utterances["s1"] + utterances["s2"]):
        uses = [used[path] for path in group]
        assert max(uses) - min(uses) <= 1


def test_the_same_utterances_do_not_meet_twice() -> None:
    pairs = Counter(frozenset(line.split()[0::2]) for line in draw_mix_list(corpus(60, 70, 80, 50), 5000, seed=1))
    assert max(pairs.values()) == 1


def test_few_utterances_repeat_with_other_gains() -> None:
    lines = draw_mix_list(corpus(1, 1), 50, seed=0)
    assert len(set(lines)) == 50
    with pytest.raises(SepmlError, match="cannot all differ"):
        draw_mix_list(corpus(1, 1), 5, seed=0, gain_range_db=0)


def test_pairs_of_speakers_are_well_mixed() -> None:
    lines = draw_mix_list(corpus(50, 50, 50, 50, 50), 5000, seed=0)
    pairs = Counter(tuple(speakers_of(line)) for line in lines)
    # 20 ordered pairs, 250 each on average with a standard deviation below 16.
    assert len(pairs) == 20
    assert min(pairs.values()) > 180 and max(pairs.values()) < 320
    gains = [float(line.split()[1]) for line in lines]
    assert abs(sum(gains) / len(gains) - 1.25) < 0.06


def test_deterministic_by_seed() -> None:
    utterances = corpus(20, 20, 20)
    assert draw_mix_list(utterances, 50, seed=5) == draw_mix_list(utterances, 50, seed=5)
    assert draw_mix_list(utterances, 50, seed=5) != draw_mix_list(utterances, 50, seed=6)


@pytest.mark.parametrize(
    ("utterances", "n", "message"),
    [
        ({"a": ["a/1.wav"]}, 3, "1 speakers with utterances, at least 2"),
        ({"a": ["a/1.wav"], "b": []}, 3, "1 speakers with utterances, at least 2"),
        ({"a": ["a/x y.wav"], "b": ["b/1.wav"]}, 3, "white space"),
        ({"a": ["a/1.wav"], "b": ["b/1.wav"]}, 3, "called '1'"),
        ({"a": ["a/1.wav"], "b": ["b/2.wav"]}, 0, "0 mixtures"),
    ],
)
def test_faults(utterances: dict[str, list[str]], n: int, message: str) -> None:
    with pytest.raises(SepmlError, match=message):
        draw_mix_list(utterances, n, seed=0)


def test_format_equals_the_published_lists(shared_dir: Path) -> None:
    published = (shared_dir / "wsj0-mix-lists" / "mix_2_spk_tt.txt").read_text().splitlines()
    drawn = draw_mix_list(corpus(300, 300, 300), 3000, seed=0)
    for line in (*published, *drawn):
        path1, gain1, path2, gain2 = line.split(" ")[:4]
        assert line == f"{path1} {float(gain1):.5g} {path2} {gain2} "
        assert gain2 == f"-{gain1}"
    mean = [sum(float(line.split()[1]) for line in lines) / 3000 for lines in (published, drawn)]
    assert mean[0] == pytest.approx(mean[1], abs=0.05)


def write_corpus(folder: Path, tier_of_last: str = "A") -> None:
    rows = []
    for k in range(6):
        for i in range(10):
            split = "unseen_valid" if k in (2, 3) else "unseen_test" if k > 3 else "train"
            split = {8: "seen_valid", 9: "seen_test"}.get(i, split) if split == "train" else split
            tier = tier_of_last if k == 5 else "A"
            rows.append(UtteranceRow(f"s{k}/s{k}-{i:04d}.wav", f"s{k}", "F", tier, split, "3.00", "x"))
    write_tables(folder, rows, [SpeakerRow("s0", "F", "A", "en", "", "train", 1, 1, "1.00", "g", "")])


def test_the_lists_of_a_corpus_are_disjoint_and_of_their_split(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    paths = mix_lists_of(tmp_path, seed=0, sizes=ListSizes(tr=40, cv=10, tt=12))
    assert [path.name for path in paths] == [f"mix_2_spk_{name}.txt" for name in LISTS]
    lists = {path.stem.removeprefix("mix_2_spk_"): read_mix_list(path) for path in paths}
    assert [len(lists[name]) for name in LISTS] == [40, 10, 10, 12, 12]
    used = {name: {path for line in lines for path in line.paths} for name, lines in lists.items()}
    names = list(used)
    assert all(not used[a] & used[b] for i, a in enumerate(names) for b in names[:i])
    assert {path.split("/")[0] for path in used["tt_unseen"]} == {"s4", "s5"}


def test_test_lists_take_clean_tiers_only_and_a_split_without_speakers_is_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path, tier_of_last="D")
    with pytest.raises(SepmlError, match="'tt_unseen' cannot be drawn: 1 speakers"):
        mix_lists_of(tmp_path, seed=0, sizes=ListSizes(tr=40, cv=10, tt=12))
    assert not (tmp_path / "lists").exists()
    mix_lists_of(tmp_path, seed=0, sizes=ListSizes(tr=40, cv=10, tt=12), tiers="ABD")
