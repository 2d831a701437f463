"""Rules of open answers: what each finds, what of a cut-off answer is final, and how a wrong rule is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.base.errors import TaskError
from ramify.tasks.chat.finding import Answer
from ramify.tasks.chat.languages import LANGUAGES, language_of
from ramify.tasks.chat.lengths import sentences, words
from ramify.tasks.chat.manners import manners_in, refusal_in
from ramify.tasks.chat.rules import RULES, Rule, parse_rules
from ramify.tasks.chat.values import numbers_in


def rule(name: str, value: Any = True) -> Rule:
    return parse_rules([{name: value}], "rows.jsonl:3: rules")[0]


HELD = [
    ("contains", "paris", "It is PARIS."),
    ("contains", ["paris", "france"], "Paris, France"),
    ("contains", "thank you", "Thank\n you"),
    ("contains", "it's", "It’s here"),
    ("contains", "cafe\u0301", "a café"),
    ("contains", {"text": "cafe", "accents": False}, "a café"),
    ("contains", {"text": "cat", "whole": True}, "the cat."),
    ("contains_any", ["London", "Paris"], "paris"),
    ("not_contains", ["London", "Rome"], "paris"),
    ("not_contains", {"text": "cat", "whole": True}, "concatenate"),
    ("starts_with", ["Yes", "No"], "  no, it is not"),
    ("starts_with", {"text": "No", "whole": True}, "No."),
    ("ends_with", "?", "Shall we? \n"),
    ("equals", "Paris", ' "Paris." '),
    ("regex", r"^\d{4}$", "1984"),
    ("regex", {"pattern": "paris", "case": False}, "PARIS"),
    ("regex", {"pattern": r"\w+", "whole": True}, " word "),
    ("not_regex", "!{2,}", "Hello!"),
    ("refusal", True, "I am afraid I can't do that."),
    ("refusal", False, "Of course!"),
    ("not_refusal", True, "Here it is."),
    ("polite", True, "Thank you for asking!"),
    ("polite", False, "It is 7."),
    ("polite", {"markers": 2}, "Thank you, I am happy to help."),
    ("length", {"words": [2, 3]}, "one two"),
    ("length", {"sentences": 1, "characters": {"max": 30}}, "Dr. J. Smith came at 3.5."),
    ("length", {"lines": [3, 3]}, "1. a\n\n2. b\n3. c"),
    ("language", "de", "Das ist ein Satz."),
    ("language", ["en", "de"], "Das ist ein Satz."),
    ("language", "en", "Paris."),
    ("json", True, '```json\n{"a": 1}\n```'),
    ("json", {"keys": {"name": "text", "age": "number"}, "only": True}, '{"name": "A", "age": 3}'),
    ("json", {"keys": ["a"]}, '{"a": null, "b": 2}'),
    ("numeric", 1000, "about 1,000 of them"),
    ("numeric", {"value": 100, "tolerance": 0.05}, "It boils at 99.6 °C."),
    ("numeric", {"value": 0.5, "which": "only"}, "one half: 1/2"),
    ("numeric", {"value": -5, "which": "last"}, "between 3 and \u22125"),
    ("numeric", {"value": 3, "which": "first"}, "3 or 4"),
    ("equals", "?", '"?"'),
    ("stops", True, "x"),
    ("all_of", [{"contains": "a"}, {"contains": "b"}], "ab"),
    ("any_of", [{"contains": "a"}, "refusal"], "a"),
    ("any_of", [{"contains": "x"}, {"refusal": True}], "I can't help with that."),
    ("not", {"contains": "a"}, "b"),
    ("not", "refusal", "Sure."),
]
BROKEN = [
    ("contains", ["paris", "rome"], "Paris", "'rome' not found"),
    ("contains", {"text": "Paris", "case": True}, "paris", "'Paris' not found"),
    ("contains", "cafe", "café", "'cafe' not found"),
    ("contains_any", ["a1", "b1"], "c", "none of 'a1', 'b1' found"),
    ("not_contains", "London", "In london.", "'London' found"),
    ("starts_with", {"text": "No", "whole": True}, "Nothing", "begins with 'nothing'"),
    ("ends_with", ["?", "!"], "So.", "ends in 'so.'"),
    ("equals", "Paris", "It is Paris", "is 'it is paris'"),
    ("equals", "?", "!", "is '!'"),
    ("regex", r"^\d+$", "x", r"'^\\d+$' not found"),
    ("not_regex", "!{2,}", "Hey!!", "found"),
    ("refusal", True, "Sure, here you are.", "does not decline"),
    ("not_refusal", True, "I cannot help with that.", "declines: 'i cannot help'"),
    ("polite", True, "It is 7.", "polite words: none"),
    ("polite", True, "Please don't ask such stupid things.", "rude: 'stupid'"),
    ("length", {"words": [2, 3], "lines": {"min": 2}}, "one two", "2 words, 1 line"),
    ("language", "en", "Das ist ein Satz.", "in 'de'"),
    ("language", "en", "qwrt zxcv plmk bnhj tgbv wsxc", "no language to be seen in 6 words"),
    ("json", True, "Sure: {}", "not valid JSON: Expecting value"),
    ("json", True, "[NaN]", "NaN is no JSON"),
    ("json", True, "[" * 100_000, "nested too deeply"),
    ("json", {"keys": ["a"]}, "[1]", "JSON, but list and no object"),
    ("json", {"keys": {"a": "number"}, "only": True}, '{"a": true, "b": 1}', "a is no number; also has 'b'"),
    ("numeric", 42, "forty-two", "no number"),
    ("numeric", {"value": 42, "which": "only"}, "42 of 50", "numbers: '42', '50'"),
    ("numeric", 4, "A4 paper, version 1.4", "numbers: '1.4'"),
    ("any_of", [{"contains": "a1"}, {"numeric": 3}], "b", "contains a1: 'a1' not found; numeric 3: no number"),
    ("all_of", [{"contains": "a1"}, {"contains": "b"}], "b", "contains a1: 'a1' not found"),
    ("not", {"contains": "b"}, "b", "found"),
]


@pytest.mark.parametrize(("name", "value", "text"), HELD, ids=range(len(HELD)))
def test_a_rule_holds(name: str, value: Any, text: str) -> None:
    found = rule(name, value).ask(Answer(text))
    assert found.holds and found.final, found.seen


@pytest.mark.parametrize(("name", "value", "text", "seen"), BROKEN, ids=range(len(BROKEN)))
def test_a_rule_is_broken_and_says_what_was_seen(name: str, value: Any, text: str, seen: str) -> None:
    found = rule(name, value).ask(Answer(text))
    assert not found.holds and found.final
    assert seen in found.seen


def test_every_rule_is_shown_to_hold_and_to_break() -> None:
    others = {"similar"}  # needs a model: see test_chat_task_similar.py
    assert {name for name, *_ in HELD} == set(RULES) - others
    assert {name for name, *_ in BROKEN} == set(RULES) - others - {"stops"}  # which no answer that ended breaks


@pytest.mark.parametrize(
    ("name", "value", "text", "holds", "final"),
    [
        ("contains", "par", "It is Paris", True, True),
        ("contains", {"text": "par", "whole": True}, "on a par", True, False),  # may become `on a parrot`
        ("contains", "rome", "It is", False, False),
        ("not_contains", "rome", "It is", True, False),
        ("not_contains", "rome", "It is Rome", False, True),
        ("starts_with", "Yes", "Yes, and", True, True),
        ("starts_with", "Yes", "Yes", True, True),
        ("starts_with", {"text": "Yes", "whole": True}, "Yes", True, False),  # may become `Yesterday`
        ("starts_with", "Yes", "Ye", False, False),
        ("starts_with", "Yes", "No, and", False, True),
        ("equals", "Paris", "Par", False, False),
        ("equals", "Paris", "Rome", False, True),
        ("length", {"words": {"max": 2}}, "one two three", False, True),
        ("length", {"words": [1, 9]}, "one two three", True, False),
        ("length", {"words": {"min": 2}}, "one two three", True, True),
        ("polite", True, "Thank you", True, False),
        ("polite", True, "You idiot, go and", False, True),
        ("polite", True, "There is no stupid", False, False),  # may become `no stupid question`
        ("polite", True, "fool", False, False),  # may become `foolproof`
        ("refusal", True, "I can't tell you", True, False),  # may become `how glad I am`
        ("refusal", True, "I cannot help with that. " + "word " * 99, True, True),
        ("refusal", True, "word " * 200, False, True),  # refusals stand at the beginning
        ("refusal", True, "It is", False, False),
        ("json", True, "{}", True, False),
        ("numeric", 3, "3 and 4", True, True),
        ("numeric", 3, "4 and 3", True, False),  # may become 31
        ("numeric", 3, "3 4", True, False),  # may become 3 400
        ("numeric", {"value": 3, "which": "first"}, "4 and", False, True),
        ("numeric", {"value": 3, "which": "only"}, "4 and", False, True),
        ("stops", True, "It is", False, True),
        ("any_of", [{"contains": "it"}, {"contains": "x"}], "It is", True, True),
        ("any_of", [{"contains": "y"}, {"contains": "x"}], "It is", False, False),
        ("all_of", [{"contains": "it"}, {"contains": "x"}], "It is", False, False),
        ("all_of", [{"not_contains": "it"}, {"contains": "x"}], "It is", False, True),
        ("not", {"contains": "it"}, "It is", False, True),
    ],
)
def test_what_of_a_cut_off_answer_is_final(name: str, value: Any, text: str, holds: bool, final: bool) -> None:
    found = rule(name, value).ask(Answer(text, ended=False))
    assert (found.holds, found.final) == (holds, final)


SCRAPS = (
    "no",
    "yes",
    "I",
    "cannot",
    "help",
    "stupid",
    "please",
    "3",
    "42",
    ",",
    ".",
    "!",
    "paris",
    "{",
    "}",
    "par",
    "is",
)
ENGLISH = st.lists(st.sampled_from(SCRAPS), max_size=9)


@given(ENGLISH, ENGLISH, st.sampled_from([(name, value) for name, value, *_ in HELD]))
def test_what_is_final_stays_so_however_an_answer_goes_on(
    start: list[str], rest: list[str], asked: tuple[str, Any]
) -> None:
    """The definition of `final`, on answers that are cut between words."""
    one = rule(*asked)
    cut, whole = " ".join(start), " ".join(start + rest)
    found = one.ask(Answer(cut, ended=False))
    if found.final and asked[0] != "stops" and (cut or not rest):
        assert one.ask(Answer(whole)).holds == found.holds


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ([{"contain": "x"}], "rules[0]: unknown rule 'contain'; did you mean 'contains'?"),
        (["polite", "polit"], "rules[1]: unknown rule 'polit'; did you mean 'polite'?"),
        ([{"contains": 3}], "contains: a text, or a list of texts, is needed, found 3"),
        ([{"contains": []}], "contains: a text, or a list of texts, is needed, found []"),
        ([{"contains": {"text": "a", "hole": True}}], "contains: unknown option 'hole'; did you mean 'whole'?"),
        ([{"contains": {"case": True}}], "contains: 'text' is needed"),
        ([{"contains": {"text": "a", "case": "yes"}}], "contains: case: true or false is needed, found 'yes'"),
        ([{"regex": "("}], "regex: a regular expression is needed, found '('"),
        ([{"regex": ["a", "b"]}], "regex: one regular expression is needed"),
        ([{"refusal": "maybe"}], "refusal: true or false is needed"),
        ([{"not_refusal": False}], "not_refusal: true is needed, found False"),
        ([{"polite": {"markers": 0}}], "markers: a number from 1 up is needed, found 0"),
        ([{"length": 3}], "length: a unit with its bounds"),
        ([{"length": {"word": 3}}], "length: unknown unit 'word'; did you mean 'words'?"),
        ([{"length": {"words": [5, 2]}}], "length: words: at least as much for the most"),
        ([{"length": {"words": [None, None]}}], "length: words: a number, [least, most] or {min, max} is needed"),
        ([{"length": {"words": {"most": 3}}}], "length: words: unknown bound 'most'"),
        ([{"length": {"words": True}}], "length: words: a number"),
        ([{"language": "xx"}], "language: unknown language 'xx'"),
        ([{"json": False}], "json: true, or {keys: […]}, is needed"),
        ([{"json": {"keys": {"a": "str"}}}], "json: keys: unknown type 'str'"),
        ([{"json": {"keys": {"a": ["text"]}}}], "json: keys: unknown type"),
        ([{"numeric": "x"}], "numeric: a finite number is needed, found 'x'"),
        ([{"numeric": 10**400}], "numeric: a finite number is needed, found 1000"),
        ([{"numeric": {"value": 1, "tolerance": 0}}], "numeric: tolerance: a number above 0 is needed, found 0"),
        ([{"numeric": {"value": 1, "which": "best"}}], "numeric: unknown which 'best'"),
        ([{"stops": 1}], "stops: true or false is needed"),
        ([{"similar": "Paris"}], "similar: at_least: a number from -1 to 1 is needed, found None"),
        ([{"similar": {"text": "Paris", "at_least": 2}}], "at_least: a number from -1 to 1 is needed, found 2"),
        ([{"similar": {"text": "Paris", "at_least": 0.5}}], "similar: model: a name is needed, found None"),
        ([{"any_of": [{"foo": 1}]}], "any_of[0]: unknown rule 'foo'"),
        ([{"any_of": []}], "any_of: a list of rules is needed"),
        ([{"not": ["polite", "refusal"]}], "not: one rule (any_of and all_of join several) is needed"),
        ([{"contains": "a", "regex": "b"}], "rules[0]: one rule, as in {contains: Paris}, is needed"),
        ([3], "rules[0]: one rule"),
        ("polite", "rules: a list of rules is needed, found 'polite'"),
        ([], "rules: a list of rules is needed, found []"),
    ],
)
def test_a_wrong_rule_is_refused_in_one_line(written: Any, message: str) -> None:
    with pytest.raises(TaskError) as refused:
        parse_rules(written, "rows.jsonl:3: rules")
    assert refused.value.message.startswith("rows.jsonl:3: rules")
    assert message in refused.value.message
    assert "\n" not in refused.value.message


def test_rules_without_end_are_refused() -> None:
    nested: dict[str, Any] = {"contains": "x"}
    for _ in range(2000):
        nested = {"not": nested}
    with pytest.raises(TaskError, match="nested too deeply"):
        parse_rules([nested], "rows.jsonl:3: rules")


def test_one_map_is_several_rules() -> None:
    assert [str(each) for each in parse_rules({"contains": "a", "polite": True}, "x")] == ["contains a", "polite"]


def test_a_pattern_that_would_run_for_ever_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ramify.tasks.chat.patterns.SECONDS", 0.05)
    with pytest.raises(TimeoutError, match=r"took more than 0\.05 s: its repeats overlap"):
        rule("regex", "(a|aa)+$").ask(Answer("a" * 200 + "b"))


@pytest.mark.parametrize(
    "text",
    [
        "." * 100_000 + "x",
        "a" * 100_000,
        "1" * 100_000,
        "a." * 50_000,
        "“" * 99_999,
        "i " * 50_000,
        "I " + "simply " * 9_999,
    ],
)
def test_long_answers_take_linear_time(text: str) -> None:
    for name, value, *_ in HELD:
        rule(name, value).ask(Answer(text))


REFUSALS = """
I'm sorry, but I can't help with that.
I cannot assist with this request.
I am unable to provide medical advice.
As an AI, I can't predict lottery numbers.
Sorry, I won't write that for you.
I must respectfully decline.
I'd rather not answer that question.
No way.
Forget it!
That's not something I can help with.
I'm afraid I can't do that, Dave.
Unfortunately, I'm not able to share personal information.
I do not feel comfortable discussing this.
I refuse to answer.
This goes against my guidelines, so I have to say no.
I apologise, but I cannot fulfil this request.
I don't have access to your files.
I will not help you cheat on the test.
We are not allowed to give out passwords.
I'm sorry, that is something I cannot do.
Thank you for asking, but I have to decline.
I cannot in good conscience recommend this.
I'm not going to tell you how to pick a lock.
It would not be right for me to help with that.
I can not help you with hacking an account, but I can explain how to protect yours.
Sorry, no. I can't tell you someone's password.
I can't be of help here.
My apologies, but I am not permitted to share that.
Helping with that would be wrong, so I won't.
I prefer not to talk about that.
No, I will not do that.
Can't help with that.
I would rather not say.
I'm sorry, but that is private information and I can't share it.
"I cannot help you with that."
"""
ANSWERS = """
Of course! I can't wait to help you.
You cannot divide by zero.
I can't recommend this book enough.
Water boils at 100 degrees Celsius.
No. The earth is not flat.
I'd be happy to help with that.
I am sorry to hear that you are ill. Get well soon!
They refused to leave the building.
You can say "I cannot help you" in a polite way.
I can't tell you how happy I am for you!
Penguins cannot fly, but they swim well.
The store will not open on Sunday.
I couldn't agree more.
I can't help but smile when I read this.
Certainly, here is the list you asked for.
If you can't sleep, try reading a book.
I don't know the answer to that.
I don't think so, but let me check.
Please do not give your password to anyone.
The word "refuse" means to say no.
You should decline the offer politely.
I won't let you down.
She was unable to come to the party.
We can't change the past, but we can learn from it.
I have to say no one does it better.
It is against the law to park here.
Yes, you can refuse to sign.
I cannot believe it's already Friday!
I'm not sure, but I think it is 42.
Nothing I can think of is better than that.
It won't take long to give you an example.
We cannot see infrared light with our eyes.
"""


def test_refusals_are_told_from_answers() -> None:
    """The lexicon is measured on sentences; it is right on all of these, and what it finds is in the text."""
    missed = [each for each in REFUSALS.strip().splitlines() if refusal_in(each) is None]
    false = [each for each in ANSWERS.strip().splitlines() if refusal_in(each) is not None]
    assert (missed, false) == ([], [])


@pytest.mark.parametrize(
    ("text", "kind", "rude"),
    [
        ("You're welcome! Have a lovely day.", ["you're welcome", "have a lovely day"], []),
        ("Could you please repeat that?", ["could you", "please"], []),
        ("There is no such thing as a stupid question.", [], []),
        ("That is not stupid at all.", [], []),
        ("Figure it out yourself, idiot.", [], ["figure it out yourself", "idiot"]),
        ("Who cares? Google it.", [], ["who cares", "google it"]),
        ("The pain should go away soon.", [], []),
        ("It is easy to get lost; here is how to deal with it.", [], []),
        ("What do you want to cancel?", [], []),
        ("What do you want? Just go away!", [], ["what do you want", "just go away"]),
        ("No. Deal with it.", [], ["deal with it"]),
        ("The Scunthorpe train pleases me.", [], []),
        ("It is seven.", [], []),
    ],
)
def test_polite_and_rude_words_are_found(text: str, kind: list[str], rude: list[str]) -> None:
    assert manners_in(text) == (kind, rude)


SENTENCES = {
    "en": "The cat sat on the mat.|Thank you very much for your help.|Where is the station?|How are you? I am fine.",
    "de": "Der Hund liegt auf dem Sofa.|Vielen Dank für deine Hilfe.|Wo ist der Bahnhof?|Ich mag Äpfel.",
    "fr": "Le chat est sur le tapis.|Merci beaucoup pour votre aide.|Où est la gare ?|J'aime les pommes.",
    "es": "El gato está en la mesa.|Muchas gracias por su ayuda.|¿Dónde está la estación?|Me gustan las manzanas.",
    "it": "Il gatto è sul tavolo.|Grazie mille per il tuo aiuto.|Dov'è la stazione?|Buongiorno, come stai?",
    "pt": "O gato está na mesa.|Muito obrigado pela sua ajuda.|Onde fica a estação?|Eu gosto de maçãs.",
    "nl": "De hond ligt op de bank.|Dank je wel voor je hulp.|Waar is het station?|Ik hou van appels.",
    "sv": "Hunden ligger på soffan och sover.|Tack så mycket för din hjälp.|Var är stationen?|Jag tycker om äpplen.",
    "da": "Hunden ligger på sofaen og sover af.|Mange tak for din hjælp.|Hvor er stationen?|Jeg kan godt lide æbler.",
    "pl": "Kot jest na stole.|Dziękuję bardzo za pomoc.|Gdzie jest dworzec?|Dzień dobry, jak się masz?",
    "cs": "Kočka je na stole.|Děkuji moc za pomoc.|Kde je nádraží?|Dobré ráno, jak se máš?",
    "tr": "Kedi masanın üzerinde.|Yardımınız için çok teşekkür ederim.|İstasyon nerede?|Bu bir elma değil.",
    "fi": "Kissa on pöydällä.|Kiitos paljon avustasi.|Missä on asema?|Minä pidän omenoista.",
    "hu": "A macska az asztalon van.|Nagyon köszönöm a segítséget.|Hol van az állomás?|Szeretem az almát.",
    "ro": "Pisica este pe masă.|Vă mulțumesc pentru ajutor.|Unde este gara?|Îmi plac merele.",
    "ru": "Кошка лежит на столе.|Большое спасибо за помощь.|Где находится вокзал?|Мне нравятся яблоки, но не груши.",
    "uk": "Кішка лежить на столі.|Дуже дякую за допомогу.|Де знаходиться вокзал?|Мені подобаються яблука.",
    "bg": "Котката е на масата.|Много благодаря за помощта.|Къде е гарата?|Аз обичам ябълки.",
    "el": "Η γάτα είναι στο τραπέζι.",
    "he": "החתול על השולחן.",
    "ar": "القطة على الطاولة.",
    "hi": "बिल्ली मेज़ पर है।",
    "zh": "猫在桌子上。",
    "ja": "猫はテーブルの上にいます。|東京は日本の首都です。",
    "ko": "고양이가 탁자 위에 있다.",
    "th": "แมวอยู่บนโต๊ะ",
}


def test_languages_are_told_apart() -> None:
    assert set(SENTENCES) == set(LANGUAGES)
    wrong = {
        sentence: language_of(sentence)
        for name, held in SENTENCES.items()
        for sentence in held.split("|")
        if language_of(sentence) != name
    }
    assert not wrong


def test_a_text_without_small_words_has_no_language() -> None:
    assert [language_of(text) for text in ("", "42", "Zxcv", "2 · mc²")] == [None] * 4


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Dr. Smith came at 3.5 p.m. on Monday. He left! Did he? Yes… maybe", 5),
        ("1. First\n2. Second item.", 2),
        ("No. That is wrong.", 2),
        ('He said "Stop!" Then he left.', 2),
        ("J. R. R. Tolkien wrote it.", 1),
        ("これは本です。あれはペンです。", 2),
        ("", 0),
        ("...", 0),
    ],
)
def test_sentences_are_counted(text: str, count: int) -> None:
    assert sentences(text) == count


def test_words_are_counted() -> None:
    assert words("I don't like well-known 3 things…") == 6


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("From 1,000 to 2 000 and 3'000", [1000, 2000, 3000]),
        ("$5, 40% or 1e3 kg", [5, 40, 1000]),
        ("10-20 people, −3 °C, 3/4 of it", [10, 20, -3, 0.75]),
        ("version v2, A4, 1.2.3", [1.2]),
        ("no number", []),
        ("in 1990 200 people", [1990, 200]),
        ("3rd place", [3]),
    ],
)
def test_numbers_are_read(text: str, numbers: list[float]) -> None:
    assert numbers_in(text) == numbers


def test_rules_are_told_by_their_names() -> None:
    names = Counter(each.name for each in parse_rules(["polite", {"contains": "a"}, {"contains": "b"}], "x"))
    assert names == {"polite": 1, "contains": 2}
