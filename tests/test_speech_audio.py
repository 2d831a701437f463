from __future__ import annotations

import struct
import sys
import tracemalloc
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ramify.base.errors import DataError
from ramify.serve.speech.audio import LONGEST, SHORTEST, chunks, open_sound
from ramify.serve.speech.resample import RATE, Resampler, Samples


def tone(hertz: float, rate: int, seconds: float = 1.0) -> Samples:
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate).astype(np.float32)


def resampled(samples: Samples, rate: int, block: int = 4_000) -> Samples:
    resampler = Resampler(rate)
    parts = [resampler.push(samples[start : start + block]) for start in range(0, len(samples), block)]
    return np.concatenate([*parts, resampler.finish()])


def whole(source: Any) -> Samples:
    """The sound at 16 kHz in one piece."""
    return np.concatenate(list(chunks(open_sound(source))))


def refused(source: Any) -> str:
    with pytest.raises(DataError) as caught:
        open_sound(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- resampling ---


RATES = (4_000, 8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000)
HELD = [(rate, hertz) for hertz in (100, 1_000, 3_000, 7_100) for rate in RATES if hertz <= 0.447 * rate]


@pytest.mark.parametrize(("rate", "hertz"), HELD)
def test_a_tone_below_half_of_both_rates_keeps_shape_and_place(rate: int, hertz: int) -> None:
    """The result is known exactly: the same tone, sampled at 16 kHz. Outside its edges it is within 80 dB of that."""
    found = resampled(tone(hertz, rate), rate)
    assert len(found) == RATE
    expected = tone(hertz, RATE)
    assert np.abs(found - expected)[1_000:-1_000].max() < 1e-4


@pytest.mark.parametrize("hertz", [8_100, 9_000, 12_000, 19_000])
def test_what_16_khz_cannot_hold_is_not_folded_into_speech(hertz: int) -> None:
    found = resampled(tone(hertz, 44_100), 44_100)
    assert np.abs(found[1_000:-1_000]).max() < 2e-4


def test_the_result_does_not_depend_on_the_blocks_and_a_straight_rate_is_untouched() -> None:
    draw = np.random.default_rng(0)
    noise = draw.standard_normal(30_000).astype(np.float32)
    assert np.array_equal(resampled(noise, 16_000), noise)
    for rate in (22_050, 48_000):
        together = resampled(noise, rate, len(noise))
        assert np.allclose(resampled(noise, rate, 999), together, atol=1e-6)
        assert len(together) == -(-len(noise) * RATE // rate)


def test_it_agrees_with_scipy() -> None:
    """Both are band-limited; their filters differ above 6.5 kHz only, so speech-band noise must come out alike."""
    signal = pytest.importorskip("scipy.signal")
    draw = np.random.default_rng(1)
    low = signal.firwin(801, 5_000, fs=44_100)
    noise = np.convolve(draw.standard_normal(44_100), low, mode="same").astype(np.float32)
    expected = signal.resample_poly(noise, 160, 441, window=("kaiser", 12.0))
    found = resampled(noise, 44_100)
    assert np.abs(found - expected)[1_000:-1_000].max() < 2e-3 * np.abs(expected).max()


# --- forms of recordings ---


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "int32", "uint16", "float16", "float32", "float64"])
def test_every_type_of_sample_is_the_same_sound(kind: str) -> None:
    sound = 0.8 * tone(440, RATE)
    found = np.dtype(kind)
    if found.kind == "f":
        samples = sound.astype(found)
    else:
        middle = 2 ** (8 * found.itemsize - 1)
        samples = np.round(sound * (middle - 1) + (middle if found.kind == "u" else 0)).astype(found)
    heard = whole((RATE, samples))
    assert np.abs(heard - 0.625 * sound).max() < (0.01 if found.itemsize == 1 else 2e-3)  # 0.5 of 0.8: half full scale


def test_channels_are_averaged_and_loudness_is_evened_out() -> None:
    left, right = tone(300, RATE), 0.2 * tone(500, RATE)
    heard = whole((RATE, np.stack([left, right], axis=1)))
    expected = (left + right) / 2
    assert np.allclose(heard, expected * 0.5 / np.abs(expected).max(), atol=1e-6)
    assert np.allclose(whole((RATE, 0.01 * left)), whole((RATE, 20_000 * left)), atol=1e-5)


def test_silence_is_ordinary() -> None:
    for samples in (np.zeros(RATE), np.zeros((RATE, 2), dtype=np.int16), np.full(RATE, 2, dtype=np.int16)):
        sound = open_sound((RATE, samples))
        assert sound.is_silent
        assert sound.seconds == 1.0
        assert list(chunks(sound)) == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((RATE, np.zeros(0)), "recording: holds no sound"),
        ((RATE, np.array([0.1, np.nan, 0.2])), "recording: holds values that are not numbers"),
        ((RATE, np.array([0.1, np.inf])), "not numbers"),
        ((RATE, np.array([1e300, 0.0])), "not numbers"),
        ((0, np.ones(9)), "a rate of 0 Hz cannot be read (allowed: 1000 to 768000)"),
        ((-16_000, np.ones(9)), "a rate of -16000 Hz"),
        ((RATE, np.zeros((2, 2, 2))), "found float64 (2, 2, 2)"),
        ((RATE, np.zeros((2, 16_000))), "[time, channels]"),
        ((RATE, np.zeros((9, 0))), "[time, channels]"),
        ((RATE, np.zeros(9, dtype=bool)), "found bool"),
        ((RATE, np.zeros(9, dtype=np.int64)), "found int64"),
        ((RATE, np.array(["a", "b"])), "numbers [time]"),
    ],
    ids=str,
)
def test_recordings_that_are_no_sound_are_refused_in_one_line(source: Any, message: str) -> None:
    assert message in refused(source)


# --- long sounds ---


def test_long_sounds_come_in_chunks_cut_at_pauses() -> None:
    """Bursts of noise with pauses in irregular places: no cut may fall into a burst, and nothing may be lost."""
    draw = np.random.default_rng(2)
    parts = []
    for _ in range(40):
        parts += [draw.standard_normal(int(RATE * draw.uniform(1.0, 6.0))), np.zeros(int(RATE * 0.4))]
    sound = np.concatenate(parts).astype(np.float32) / 8
    found = list(chunks(open_sound((RATE, sound))))
    assert sum(map(len, found)) == len(sound)
    assert all(SHORTEST * RATE <= len(each) <= LONGEST * RATE for each in found[:-1])
    assert all(not np.abs(each[-1_000:]).any() for each in found[:-1])
    assert np.allclose(np.concatenate(found), sound * 0.5 / np.abs(sound).max(), atol=1e-6)


def test_memory_does_not_grow_with_the_length_of_a_file(tmp_path: Path) -> None:
    """Ten minutes are 38 MB at 16 kHz; what is held at once is a few blocks."""
    draw = np.random.default_rng(3)
    minute = draw.integers(-9_000, 9_000, (8_000 * 60, 2), dtype=np.int16)

    def peak(minutes: int) -> int:
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(str(path), "w", 8_000, 2, "PCM_16") as file:
            for _ in range(minutes):
                file.write(minute)
        tracemalloc.start()
        sound = open_sound(path)
        samples = sum(map(len, chunks(sound)))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sound.seconds == 60 * minutes
        assert samples == 60 * minutes * RATE
        return found

    assert peak(10) < 1.2 * peak(1) < 30 * 2**20


def test_silent_stretches_are_left_out(tmp_path: Path) -> None:
    sound = np.concatenate([0.3 * tone(400, RATE, 5.0), np.zeros(100 * RATE, dtype=np.float32), tone(400, RATE, 2.0)])
    assert sum(map(len, chunks(open_sound((RATE, sound))))) < 70 * RATE


# --- files ---


@pytest.mark.parametrize("kind", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_wav_files_of_every_kind(kind: str, tmp_path: Path) -> None:
    sound = 0.5 * tone(440, RATE)
    soundfile.write(str(tmp_path / "a.wav"), np.stack([sound, sound], axis=1), RATE, subtype=kind)
    assert np.abs(whole(tmp_path / "a.wav") - sound).max() < 0.02


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3", "aiff", "au", "caf"])
def test_other_formats_are_read_whatever_their_name(suffix: str, tmp_path: Path) -> None:
    sound = 0.5 * tone(440, 48_000, 2.0)
    soundfile.write(str(tmp_path / f"a.{suffix}"), sound, 48_000)
    path = (tmp_path / f"a.{suffix}").rename(tmp_path / "recording")
    found = whole(path)
    assert abs(len(found) - 2 * RATE) < 0.1 * RATE
    spectrum = np.abs(np.fft.rfft(found[4_000:20_000]))
    assert int(spectrum.argmax()) == 440


@pytest.mark.parametrize("kind", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32"])
def test_without_soundfile_wav_is_read_the_same_and_others_are_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = np.stack([0.5 * tone(440, 22_050), 0.1 * tone(700, 22_050)], axis=1)
    soundfile.write(str(tmp_path / "a.wav"), sound, 22_050, subtype=kind)
    soundfile.write(str(tmp_path / "a.flac"), sound, 22_050)
    expected = whole(tmp_path / "a.wav")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    assert np.array_equal(whole(tmp_path / "a.wav"), expected)
    message = refused(tmp_path / "a.flac")
    assert "needs soundfile, which is not installed" in message
    assert "pip install 'ramify[chat]'" in message


def test_without_soundfile_samples_wider_than_numbers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 8 * RATE, 8, 64)
    data = struct.pack("<4sI", b"data", 8_000) + bytes(8_000)
    (tmp_path / "a.wav").write_bytes(struct.pack("<4sI4s", b"RIFF", 4 + len(form + data), b"WAVE") + form + data)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    assert "64 bits a sample" in refused(tmp_path / "a.wav")


def test_a_file_of_the_standard_library_and_one_from_a_pipe(tmp_path: Path) -> None:
    samples = (20_000 * tone(300, RATE)).astype("<i2")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    plain = (tmp_path / "a.wav").read_bytes()
    piped = plain[:4] + struct.pack("<I", 0xFFFFFFFF) + plain[8:40] + struct.pack("<I", 0xFFFFFFFF) + plain[44:]
    (tmp_path / "b.wav").write_bytes(piped)
    assert np.array_equal(whole(tmp_path / "a.wav"), whole(tmp_path / "b.wav"))


def test_a_few_bytes_that_a_recorder_forgot_are_no_reason_to_refuse(tmp_path: Path) -> None:
    soundfile.write(str(tmp_path / "a.wav"), 0.5 * tone(300, RATE), RATE)
    content = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(content[:-36])
    assert open_sound(tmp_path / "a.wav").frames == RATE - 18


BROKEN = {
    "empty": (b"", "the file is empty"),
    "text": (b"this is no sound at all, only words\n" * 20, "no sound that can be read"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(500), "no sound that can be read"),
    "mp4": (b"\0\0\0\x20ftypisom" + bytes(500), "an MP4 or M4A file, which no decoder here reads"),
    "webm": (b"\x1a\x45\xdf\xa3" + bytes(500), "a WebM or Matroska file"),
    "avi": (b"RIFF\xff\0\0\0AVI LIST" + bytes(500), "an AVI video"),
    "header": (b"RIFF\x24\0\0\0WAVE", "is cut off: the header is there, the sound is missing"),
    "half header": (b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0", "is cut off"),
    "ogg": (b"OggS" + bytes(60), "no sound that can be read"),
    "flac": (b"fLaC" + bytes(60), "no sound that can be read"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_files_that_are_no_sound_are_refused_in_one_line(what: str, tmp_path: Path) -> None:
    content, message = BROKEN[what]
    (tmp_path / "a.wav").write_bytes(content)
    found = refused(tmp_path / "a.wav")
    assert found.startswith(f"{tmp_path / 'a.wav'}: ")
    assert message in found


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("left", [0.9, 0.5, 0.1])
def test_files_that_are_cut_off_are_refused(suffix: str, left: float, tmp_path: Path) -> None:
    draw = np.random.default_rng(4)
    soundfile.write(str(tmp_path / f"a.{suffix}"), 0.1 * draw.standard_normal(5 * RATE), RATE)
    content = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(content[: int(left * len(content))])
    message = refused(tmp_path / f"a.{suffix}")
    assert "cut off" in message or "no sound that can be read" in message


def test_a_wav_file_without_samples_with_nan_missing_or_a_folder(tmp_path: Path) -> None:
    soundfile.write(str(tmp_path / "none.wav"), np.zeros(0), RATE)
    assert "holds no sound" in refused(tmp_path / "none.wav")
    soundfile.write(str(tmp_path / "nan.wav"), np.array([0.0, np.nan] * 100), RATE, subtype="FLOAT")
    assert "not numbers" in refused(tmp_path / "nan.wav")
    assert "no such file" in refused(tmp_path / "absent.wav")
    assert "cannot be read" in refused(tmp_path)
