from __future__ import annotations

import re
import statistics
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from speech_setup import SENTENCES, samples_of, spoken, word_error

from ramify.base.errors import ConfigError, DataError
from ramify.serve.speech import Transcript, recognisers, transcribe
from ramify.serve.speech.resample import RATE, Samples

pytest.importorskip("pocketsphinx")


def heard(source: Path | tuple[int, np.ndarray]) -> str:
    return transcribe(source, "pocketsphinx").text


def test_word_error_counts_edits() -> None:
    assert word_error("a b c d", "a b c d") == 0
    assert word_error("a b c d", "a x c") == 0.5
    assert word_error("a b", "") == 1
    assert word_error("a b", "a b c d") == 1


def test_ten_sentences_are_understood(tmp_path: Path) -> None:
    errors = []
    for number, sentence in enumerate(SENTENCES):
        path = spoken(sentence, tmp_path / f"{number}.wav")
        errors.append(word_error(sentence, heard(path)))
    assert statistics.median(errors) <= 0.2


def test_the_words_do_not_depend_on_how_the_sound_was_stored(tmp_path: Path) -> None:
    """A sentence at three times its rate, in two channels, from a microphone and from files."""
    sentence = SENTENCES[6]
    rate, samples = samples_of(spoken(sentence, tmp_path / "a.wav"))
    high = np.repeat(samples, 3)  # not filtered: what is above 8 kHz must go
    assert word_error(sentence, heard((3 * rate, np.stack([high, high // 2], axis=1)))) <= 0.2
    soundfile.write(str(tmp_path / "a.flac"), high / 99_999, 3 * rate, subtype="PCM_24")
    assert word_error(sentence, heard(tmp_path / "a.flac")) <= 0.2


def test_a_recording_of_a_person(shared: Path) -> None:
    folder = shared / "data" / "speech"
    said = "and so my fellow americans ask not what your country can do for you ask what you can do for your country"
    assert word_error(said, heard(folder / "jfk.wav")) <= 0.3
    raw = np.fromfile(folder / "pocketsphinx" / "goforward.raw", dtype="<i2")
    assert word_error("go forward ten meters", heard((RATE, raw))) <= 0.25


def test_silence_and_noise_have_no_words_and_say_so() -> None:
    assert transcribe((48_000, np.zeros(48_000, dtype=np.int16))) == Transcript(
        "", 1.0, "pocketsphinx", "there is only silence"
    )
    assert transcribe((RATE, np.array([3], dtype=np.int16) * 9_999)).note == "no words were heard"


def test_without_any_recogniser_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognisers, "find_spec", lambda name: None)
    recognisers._sphinx.cache_clear()
    for name in ("auto", "pocketsphinx", "faster-whisper"):
        with pytest.raises(ConfigError, match="pip install") as caught:
            recognisers.open_recogniser(name)
        assert "installed" in caught.value.message
    monkeypatch.undo()
    assert recognisers.open_recogniser("auto").name == "pocketsphinx"


def test_unknown_recognisers_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown speech recogniser 'sphinx'; did you mean 'pocketsphinx'"):
        recognisers.open_recogniser("sphinx")
    with pytest.raises(DataError, match="no such file"):
        transcribe(Path("absent.wav"), "pocketsphinx")


STAND_IN = """
class WhisperModel:
    made = []

    def __init__(self, folder, device, local_files_only):
        assert local_files_only
        WhisperModel.made.append(folder)
        if folder.endswith("broken"):
            raise RuntimeError("Unsupported model binary version\\nmore")

    def transcribe(self, chunk, beam_size, vad_filter, condition_on_previous_text):
        class Segment:
            text = f" {chunk.dtype} {len(chunk)}"
        return iter([Segment(), Segment()]), None
"""


def test_faster_whisper_is_chosen_when_its_weights_are_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of that name with the same interface stands in: what is tested is which weights it is given."""
    (tmp_path / "faster_whisper.py").write_text(STAND_IN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "faster_whisper", raising=False)
    cache: dict[str, str] = {}
    monkeypatch.setattr(recognisers, "try_to_load_from_cache", lambda repo, name: cache.get(repo))
    recognisers._whisper.cache_clear()
    assert recognisers.open_recogniser("auto").name == "pocketsphinx"  # no weights: nothing is downloaded
    with pytest.raises(ConfigError, match="hf download Systran/faster-whisper-small"):
        recognisers.open_recogniser("faster-whisper")
    with pytest.raises(ConfigError, match="the model tiny is not in the cache"):
        recognisers.open_recogniser("faster-whisper:tiny")
    with pytest.raises(ConfigError, match="unknown model of faster-whisper 'smal'; did you mean 'small'"):
        recognisers.open_recogniser("faster-whisper:smal")

    for size in ("tiny", "small"):
        (tmp_path / size).mkdir()
        (tmp_path / size / "model.bin").touch()
        cache[f"Systran/faster-whisper-{size}"] = str(tmp_path / size / "model.bin")
    sound: Samples = 0.1 * np.ones(8_000, dtype=np.float32)
    found = transcribe((RATE, sound))
    assert found == Transcript("float32 8000 float32 8000", 0.5, "faster-whisper:small")
    assert transcribe((RATE, sound), "faster-whisper:tiny").recogniser == "faster-whisper:tiny"
    assert sys.modules["faster_whisper"].WhisperModel.made == [str(tmp_path / "small"), str(tmp_path / "tiny")]
    (tmp_path / "broken").mkdir()
    with pytest.raises(Exception, match=r"broken: its weights cannot be used: Unsupported model binary version$"):
        recognisers.open_recogniser(f"faster-whisper:{tmp_path / 'broken'}")
    recognisers._whisper.cache_clear()


@pytest.mark.proof
def test_recordings_of_other_people(shared: Path) -> None:
    folder = shared / "data" / "speech"
    numbers = "one zero zero zero one nine oh two one oh zero one eight zero three"
    assert word_error(numbers, heard(folder / "vosk_test.wav")) <= 0.4
    novel = folder / "pocketsphinx" / "librivox"
    lines = (novel / "transcription").read_text(encoding="utf-8")
    said = {name: text for text, name in re.findall(r"<s> (.*) </s> \((.*)\)", lines)}
    assert len(said) == 5
    errors = [word_error(text, heard(novel / f"{name}.wav")) for name, text in said.items()]
    assert statistics.mean(errors) <= 0.4


@pytest.mark.proof
def test_ten_minutes_of_speech(tmp_path: Path) -> None:
    sentences = [samples_of(spoken(each, tmp_path / f"{n}.wav")) for n, each in enumerate(SENTENCES)]
    rate = sentences[0][0]
    pause = np.zeros(rate // 2, dtype=np.int16)
    once = np.concatenate([part for _, samples in sentences for part in (samples, pause)])
    times = -(-600 * rate // len(once))
    found = transcribe((rate, np.tile(once, times)), "pocketsphinx")
    assert found.seconds >= 600
    assert word_error(" ".join(SENTENCES * times), found.text) <= 0.25
