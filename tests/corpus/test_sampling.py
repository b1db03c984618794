"""Every thing of a stream has the same chance."""

from collections import Counter

from spacy_bert_heads.corpus.sampling import EvenSample


def test_a_short_stream_is_kept_as_it_is() -> None:
    sample: EvenSample[int] = EvenSample(10, 0)
    for number in range(7):
        sample.offer(number)
    assert sample.kept == list(range(7)) and sample.seen == 7


def test_of_a_long_one_each_is_kept_as_often_as_any_other() -> None:
    counts: Counter[int] = Counter()
    for seed in range(2000):
        sample: EvenSample[int] = EvenSample(5, seed)
        for number in range(20):
            sample.offer(number)
        assert len(set(sample.kept)) == 5 and sample.seen == 20
        counts.update(sample.kept)
    # 500 expected of each, with a deviation of 19
    assert set(counts) == set(range(20)) and max(abs(count - 500) for count in counts.values()) < 95
