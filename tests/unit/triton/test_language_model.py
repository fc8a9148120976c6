"""The tiny language model, without Triton around it."""

import numpy as np
import pytest

from tests.support.tiny_model import (
    Batcher,
    Finish,
    PagedKv,
    PromptTooLongError,
    QueueFullError,
    Sampling,
    Sequence,
    batcher,
    pick,
    run,
    vocabulary,
)

PROMPTS = ("How do I open a file?", "What is a generator?", "Sort a list", "Explain the time module to me, please.")


def sequence(text: str, max_tokens: int = 24, **rest: object) -> Sequence:
    prompt = vocabulary().encode(f"<|user|>{text}<|end|><|assistant|>")
    return Sequence(prompt, max_tokens, **rest)  # type: ignore[arg-type]


def alone(text: str, max_tokens: int = 24, **rest: object) -> str:
    return run(batcher(), sequence(text, max_tokens, **rest))[0]


def test_a_text_is_the_same_alone_and_in_company():
    """Four prompts decoded together give what each gives alone, though they differ in length and begin one by one."""
    together = run(batcher(), *(sequence(text) for text in PROMPTS))
    assert together == [alone(text) for text in PROMPTS]
    assert len(set(together)) > 1


def test_the_logits_of_a_row_do_not_depend_on_its_neighbours():
    """One step of three sequences gives bit for bit the logits of three steps of one."""
    model = batcher(slots=3)._model
    for slot, text in enumerate(PROMPTS[:3]):
        model.prefill(slot, vocabulary().encode(text), 0)
    lengths = [len(vocabulary().encode(text)) for text in PROMPTS[:3]]
    single = [model.decode([slot], [7], [lengths[slot]])[0] for slot in range(3)]
    assert np.array_equal(model.decode([0, 1, 2], [7, 7, 7], lengths), np.stack(single))


def test_a_reused_prefix_changes_nothing_but_the_work():
    """With a prompt's blocks in the cache the text is the same, and the blocks are counted as reused."""
    long = PROMPTS[3] * 20
    subject = batcher()
    cold, warm = sequence(long), sequence(long)
    assert run(subject, cold) == run(subject, warm)
    blocks = (len(cold.prompt) - 1) // 32
    assert (cold.reused_blocks, cold.missed_blocks) == (0, blocks)
    assert (warm.reused_blocks, warm.missed_blocks) == (blocks, 0)


def test_a_next_turn_reuses_the_answer_too():
    """A conversation's next prompt finds the blocks of the answer before it, not only those of the prompt."""
    subject, first = batcher(), sequence(PROMPTS[0], max_tokens=80)
    [answer] = run(subject, first)
    second = Sequence(first.prompt + first.generated[:-1] + vocabulary().encode("<|end|><|user|>More<|end|>"), 4)
    run(subject, second)
    assert second.reused_blocks == (len(first.prompt) + len(first.generated) - 1) // 32 > len(first.prompt) // 32
    assert answer


def test_a_full_cache_forgets_what_was_not_used_for_longest():
    """With room for two texts, a third pushes out the one that was used least lately."""
    cache = PagedKv(capacity=2, layers=1, heads=1, head_size=2, block=4)
    state = np.arange(1 * 2 * 1 * 8 * 2, dtype=np.float32).reshape(1, 2, 1, 8, 2)
    one, two, three = ([number] * 4 for number in (1, 2, 3))
    cache.save(one, state)
    cache.save(two, state * 2)
    assert cache.load([*one, 0], np.empty_like(state)) == (1, 0)
    cache.save(three, state * 3)
    assert cache.load([*two, 0], np.empty_like(state)) == (0, 1)
    found = np.zeros_like(state)
    assert cache.load([*three, 0], found) == (1, 0)
    assert np.array_equal(found[:, :, :, :4], state[:, :, :, :4] * 3)


def test_a_block_is_known_by_everything_before_it():
    """The same 32 tokens behind another beginning are another block."""
    cache = PagedKv(capacity=2, layers=1, heads=1, head_size=2, block=2)
    assert cache.keys([1, 2, 3, 4])[1] != cache.keys([9, 2, 3, 4])[1]
    assert cache.keys([1, 2, 3, 4, 5]) == cache.keys([1, 2, 3, 4])


def test_a_seed_repeats_a_text_and_another_seed_gives_another():
    """Sampling follows from the seed alone, also beside other sequences."""
    hot = {"sampling": Sampling(temperature=0.9, top_p=0.9, seed=5)}
    first = alone(PROMPTS[0], **hot)
    beside = run(batcher(), sequence(PROMPTS[1]), sequence(PROMPTS[0], **hot))[1]
    other = alone(PROMPTS[0], sampling=Sampling(temperature=0.9, top_p=0.9, seed=6))
    assert first == beside != other


def test_a_continuation_draws_what_the_whole_text_would_have_drawn():
    """Prompt and half the answer as a new prompt give the other half, with the same seed."""
    hot = Sampling(temperature=0.8, seed=11)
    whole = sequence(PROMPTS[2], sampling=hot)
    run(batcher(), whole)
    rest = Sequence(whole.prompt + whole.generated[:10], 14, hot)
    run(batcher(), rest)
    assert rest.generated == whole.generated[10:]


def test_top_p_keeps_the_likeliest_tokens_only():
    """Of weights 0.6, 0.3 and 0.1, top_p 0.6 leaves the first and 0.9 the first two, for every random number."""
    logits = np.log(np.array([0.3, 0.6, 0.1], np.float32))
    drawn = {p: {pick(logits, Sampling(1.0, p, seed), 0) for seed in range(200)} for p in (0.59, 0.89, 1.0)}
    assert drawn == {0.59: {1}, 0.89: {0, 1}, 1.0: {0, 1, 2}}


def test_a_text_ends_before_a_stop_string():
    """The first match ends it, the match is not part of the text and is told as the reason."""
    whole = alone(PROMPTS[0])
    stop = whole[20:26]
    stopped = sequence(PROMPTS[0], stop=("never this", stop))
    run(batcher(), stopped)
    assert stopped.text == whole[: whole.index(stop)]
    assert (stopped.finish, stopped.stop_reason) == (Finish.STOP, stop)


def test_the_end_token_ends_the_text_and_is_not_in_it():
    """A model that says `<|end|>` has finished for reason stop."""
    greedy = sequence(PROMPTS[0])
    run(batcher(), greedy)
    subject, cut = batcher(), sequence(PROMPTS[0])
    subject._end = greedy.generated[5]
    run(subject, cut)
    said = greedy.generated[: greedy.generated.index(subject._end)]
    assert cut.finish is Finish.STOP
    assert cut.text.encode() == b"".join(map(vocabulary().bytes_of, said))


def test_prompt_and_answer_fit_the_context_or_are_refused():
    """A prompt as long as the context is refused; one token shorter gets one token and ends for length."""
    subject = batcher(slots=1, context=96)
    with pytest.raises(PromptTooLongError, match="96 tokens"):
        subject.add(Sequence([5] * 96, 8))
    last = Sequence([5] * 95, 8)
    run(subject, last)
    assert (len(last.generated), last.finish) == (1, Finish.LENGTH)


def test_a_full_queue_refuses():
    """Beyond the waiting places a request is refused at once."""
    subject = batcher(slots=1, queue=1)
    subject.add(sequence(PROMPTS[0]))
    with pytest.raises(QueueFullError):
        subject.add(sequence(PROMPTS[0]))


def test_a_long_prompt_does_not_stop_the_others():
    """While 300 tokens are read, a running sequence gets a token in every step and a short prompt gets in between."""
    subject = batcher()
    running, long, short = sequence(PROMPTS[0], 60), sequence(PROMPTS[3] * 25, 4), sequence(PROMPTS[1], 8)
    subject.add(running)
    subject.step()
    subject.add(long)
    subject.add(short)
    while not long.generated:
        before = len(running.generated)
        subject.step()
        assert len(running.generated) == before + 1
    assert short.first_token < long.first_token


def test_a_removed_sequence_frees_its_slot():
    """Cancelled while waiting, reading or running, a sequence leaves nothing behind."""
    subject = batcher(slots=1)
    running, waiting = sequence(PROMPTS[0], 50), sequence(PROMPTS[1], 50)
    subject.add(running)
    subject.add(waiting)
    subject.step()
    subject.remove(waiting)
    subject.remove(running)
    assert list(subject) == []
    assert run(subject, sequence(PROMPTS[2])) == [alone(PROMPTS[2])]


def test_tokens_join_to_the_bytes_of_the_text():
    """Every byte of a text comes back; a part of a character decodes to U+FFFD until the rest is there."""
    tokens = vocabulary().encode("naïve 日本 🙂\n")
    assert b"".join(map(vocabulary().bytes_of, tokens)).decode() == "naïve 日本 🙂\n"
    begun = vocabulary().bytes_of(vocabulary().encode("🙂")[0])
    assert begun.decode(errors="replace") == "\ufffd"
    assert vocabulary().bytes_of(vocabulary().token("<|end|>")) == b""


def test_the_batcher_tells_waiting_reading_and_running_apart():
    """A sequence goes from one to the next; the gauges show their numbers."""
    subject: Batcher = batcher(slots=1)
    subject.add(sequence(PROMPTS[0]))
    subject.add(sequence(PROMPTS[1]))
    assert (len(subject.waiting), len(subject.reading), len(subject.running)) == (2, 0, 0)
    subject.step()
    assert (len(subject.waiting), len(subject.reading), len(subject.running)) == (1, 0, 1)
